"""What the operator's commands store is what the functions read; what is signed here is signed by anybody's rules."""

import json
import time

import pytest
from kling_relay.credential import TokenSigner, key_in, webhook_secrets_in
from kling_relay.webhooks import is_signed
from standardwebhooks import Webhook

from local import provider_secret as secret

OLD, NEW = "whsec_b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQ=", "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
PAIR = '{"access_key":"ak","secret_key":"a-secret-key-of-at-least-32-bytes"}'
KEYS = ["sk-key", "ak:a-secret-key-of-at-least-32-bytes", PAIR]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("key_first", [True, False])
def test_both_are_found_in_whichever_order_they_came(key: str, key_first: bool) -> None:
    stored = ""
    for step in (1, 2) if key_first else (2, 1):
        stored = secret.with_key(stored, key) if step == 1 else secret.with_webhook_secrets(stored, f"{OLD} {NEW}")
        assert secret.holds_key(stored) == bool(key_in(stored)) == (step == 1 or key_first)
    assert webhook_secrets_in(stored) == secret.webhook_secrets(stored) == [OLD, NEW]
    found = key_in(stored)
    assert found == key or json.loads(found).items() >= json.loads(key).items()
    if key != "sk-key":
        assert TokenSigner(lambda refresh: key_in(stored), time.time)(False).count(".") == 2


@pytest.mark.parametrize("key", KEYS)
def test_one_is_replaced_and_the_other_stays(key: str) -> None:
    stored = secret.with_key(secret.with_webhook_secrets(key, OLD), "sk-newer")
    assert (key_in(stored), webhook_secrets_in(stored)) == ("sk-newer", [OLD])
    stored = secret.with_webhook_secrets(stored, NEW)
    assert (key_in(stored), webhook_secrets_in(stored)) == ("sk-newer", [NEW])
    assert secret.with_webhook_secrets(stored, "none") == "sk-newer"


def test_what_else_is_in_there_stays() -> None:
    stored = secret.with_key('{"access_key":"a","secret_key":"s","note":"mine"}', "sk-newer")
    assert json.loads(stored) == {"key": "sk-newer", "note": "mine"}
    assert json.loads(secret.with_webhook_secrets(stored, NEW)) == {**json.loads(stored), "webhook_secret": NEW}


@pytest.mark.parametrize("stored", ["", "{}", '{"webhook_secret": "x"}', '{"key": ""}', '{"key": 5, "note": "x"}'])
def test_without_a_key(stored: str) -> None:
    assert key_in(stored) == ""
    assert secret.with_webhook_secrets('{"webhook_secret": "x"}', "none") == "{}"


@pytest.mark.parametrize("text", ["{", "[]", "{" * 5000, '{"a":' * 5000, "{'key': 'x'}"])
def test_what_is_no_object_is_a_key(text: str) -> None:
    assert key_in(text) == text and webhook_secrets_in(text) == []


@pytest.mark.parametrize("held", [None, 5, ["x"], {"x": 1}, ""])
def test_a_webhook_secret_of_another_type_is_none(held: object) -> None:
    assert webhook_secrets_in(json.dumps({"key": "k", "webhook_secret": held})) == []


def test_what_is_signed_here_verifies_everywhere() -> None:
    body, now = b'{"task_id":"1"}', int(time.time())
    headers = secret.signed(NEW, "probe-1", now, body)
    Webhook(NEW).verify(body, headers)
    assert is_signed([OLD, NEW], headers, body, now) and not is_signed([OLD], headers, body, now)


def test_its_form() -> None:
    assert secret.is_webhook_secret(NEW)
    for text in ("", "whsec_", "sk-key", NEW[6:], NEW + "\n", "whsec_short", "whsec_" + "%" * 32):
        assert not secret.is_webhook_secret(text)
