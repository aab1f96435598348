"""Test Standard Webhooks signatures: the provider's official example, an independent implementation, invalid ones."""

import base64
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kling_relay.security.standard_webhooks import is_signed, signature, signed
from standardwebhooks import Webhook

# The example of Kling's own page on webhook signatures.
SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
AT = 1781080794
BODY = b'{"id":"1234567890","status":"succeeded","message":"","create_time":1781080778802,"update_time":1781080794151}'
HEADERS = {
    "webhook-id": "9876543210",
    "webhook-timestamp": str(AT),
    "webhook-signature": "v1,UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4=",
}
OTHER = "whsec_b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQ="
RIGHT = HEADERS["webhook-signature"]


def test_the_official_example() -> None:
    assert signature(SECRET, "9876543210", str(AT), BODY) == RIGHT
    assert is_signed([SECRET], HEADERS, BODY, AT)


def test_each_secret_signs_what_we_send() -> None:
    assert signed([SECRET], "9876543210", str(AT), BODY) == HEADERS
    both = signed([OTHER, SECRET], "9876543210", str(AT), BODY)
    assert both["webhook-signature"] == f"{signature(OTHER, '9876543210', str(AT), BODY)} {RIGHT}"
    assert is_signed([SECRET], both, BODY, AT) and is_signed([OTHER], both, BODY, AT)


@pytest.mark.parametrize("stands_for_it", ["X", "None", "webhook-id"])
def test_nothing_stands_for_an_id_that_is_not_there(stands_for_it: str) -> None:
    headers = signed([SECRET], stands_for_it, str(AT), BODY)
    del headers["webhook-id"]
    assert not is_signed([SECRET], headers, BODY, AT)


@pytest.mark.parametrize("seconds", [-300, -1, 0, 299.9, 300])
def test_within_five_minutes(seconds: float) -> None:
    assert is_signed([SECRET], HEADERS, BODY, AT + seconds)


@pytest.mark.parametrize("seconds", [-301, -300.1, 300.1, 301, 1e9])
def test_not_later_and_not_sooner(seconds: float) -> None:
    assert not is_signed([SECRET], HEADERS, BODY, AT + seconds)


@pytest.mark.parametrize(
    "given_", [f"v1,AAAA {RIGHT}", f"{RIGHT} v1,AAAA", f"v1a,AAAA {RIGHT} junk", f"  {RIGHT} ", f"é {RIGHT} \ud800"]
)
def test_any_of_several_signatures(given_: str) -> None:
    assert is_signed([SECRET], {**HEADERS, "webhook-signature": given_}, BODY, AT)


def test_any_of_the_secrets_and_a_broken_one_beside_it() -> None:
    assert is_signed([OTHER, "whsec_", "whsec_%", "whsec_é", SECRET], HEADERS, BODY, AT)
    assert not is_signed([OTHER, "whsec_", "whsec_%"], HEADERS, BODY, AT)
    assert not is_signed([], HEADERS, BODY, AT)


@pytest.mark.parametrize("secret", ["whsec_", "", "whsec_%", "whsec_é", "whsec_a", f"{SECRET[:12]}!{SECRET[12:]}"])
def test_a_secret_of_another_form_signs_nothing(secret: str) -> None:
    with pytest.raises(ValueError):
        signature(secret, "1", "2", b"")


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-signature": ""},
        {"webhook-signature": RIGHT[3:]},
        {"webhook-signature": f"v2,{RIGHT[3:]}"},
        {"webhook-signature": f"V1,{RIGHT[3:]}"},
        {"webhook-signature": f"v1, {RIGHT[3:]}"},
        {"webhook-signature": RIGHT[:-1]},
        {"webhook-signature": RIGHT.replace("Us", "us")},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,%%%"},
        {"webhook-signature": "\ud800"},
        {"webhook-id": ""},
        {"webhook-id": "9876543211"},
        {"webhook-id": "\ud800"},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": str(AT + 1)},
        {"webhook-timestamp": f"{AT}.0"},
        {"webhook-timestamp": f"+{AT}"},
        {"webhook-timestamp": f" {AT}"},
        {"webhook-timestamp": f"0{AT}"},
        {"webhook-timestamp": "١٧٨١٠٨٠٧٩٤"},
        {"webhook-timestamp": "1" * 5000},
        {"webhook-timestamp": "nan"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "1e9"},
    ],
)
def test_what_is_changed_or_malformed_is_not_signed(change: dict[str, str]) -> None:
    assert not is_signed([SECRET], {**HEADERS, **change}, BODY, AT)
    for name in HEADERS:
        assert not is_signed([SECRET], {k: v for k, v in HEADERS.items() if k != name}, BODY, AT)


def test_the_body_counts_byte_by_byte() -> None:
    for body in (BODY + b"\n", BODY[:-1], BODY.replace(b"succeeded", b"Succeeded"), b"", b"\xff"):
        assert not is_signed([SECRET], HEADERS, body, AT)


@settings(deadline=None, max_examples=150)
@given(st.binary(min_size=24, max_size=64), st.text(max_size=200), st.uuids())
def test_an_independent_implementation_agrees_both_ways(key: bytes, text: str, message_id: object) -> None:
    secret, now = "whsec_" + base64.b64encode(key).decode(), int(time.time())
    body = text.encode()
    ours = signature(secret, str(message_id), str(now), body)
    headers = {"webhook-id": str(message_id), "webhook-timestamp": str(now), "webhook-signature": ours}
    Webhook(secret).verify(body, headers, json_parse=False)
    assert is_signed([secret], headers, body, now)
    assert is_signed([secret.rstrip("=")], headers, body, now), "as that one, without the padding too"


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(sorted(HEADERS)), st.text(max_size=80)), st.binary(max_size=50))
def test_nothing_that_is_made_up_is_signed_or_raises(headers: dict[str, str], body: bytes) -> None:
    assert not is_signed([SECRET, OTHER], {**HEADERS, **headers}, body, AT)
