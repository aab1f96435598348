"""Test authentication: our keys, Kling's signed tokens, and similar but invalid values."""

import base64
import hmac
import json
import secrets
from collections.abc import Iterator
from typing import Any

import boto3
import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kling_relay.dynamodb import Rows
from kling_relay.errors import KlingError
from kling_relay.security import auth
from kling_relay.security.api_keys import Keys
from kling_relay.security.keyring import Keyring
from moto import mock_aws

from tests.support.stack_in_memory import create_table

NOW_MS = 1_790_000_000_000
NOW = NOW_MS // 1000
RING = Keyring({"k1": "the stack's secret"})
FIRST_ID = "pwGQsuGOgEkx"
FIRST_KEY = "kr_pwGQsuGOgEkx_hI0O8zY6Itnkc4SToLqAkc5QdjYer68SlnjwhhKrPHf_QyACj3"
FIRST_SECRET = "7xrt8prt9LrX8vVENeifl0pP0Z2QkFjB7m7NQLaQS0o"
FIRST_HASH = "ed42a5bd394c04bbb145deead28a285a3bf1b777c3620fba93e2292830315cb5"


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    with mock_aws():
        client = boto3.client("dynamodb", region_name="us-east-1")
        create_table(client, "keys")
        yield Keys(Rows(client, "keys"))


@pytest.fixture(scope="module")
def key(keys: Keys) -> auth.IssuedKey:
    return auth.issue(keys, RING, "acme", NOW_MS)


def who(header: str | None, keys: Keys, keyring: Keyring = RING) -> str:
    return auth.authenticate(header, keys, keyring, NOW_MS).tenant


def code(header: str | None, keys: Keys, keyring: Keyring = RING) -> int:
    with pytest.raises(KlingError) as caught:
        who(header, keys, keyring)
    assert caught.value.http == 401
    return caught.value.code


def signed(
    key: auth.IssuedKey, *, secret: str | None = None, headers: Any = None, alg: str = "HS256", **claims: Any
) -> str:
    """A token as Kling's own sample makes it; a claim of None is left out."""
    claims = {"iss": key.access_key, "exp": NOW + 1800, "nbf": NOW - 5, **claims}
    claims = {name: value for name, value in claims.items() if value is not None}
    headers = headers or {"alg": "HS256", "typ": "JWT"}
    return jwt.encode(claims, secret or key.secret_key, algorithm=alg, headers=headers)


# -- API keys


def test_keys_and_tokens_are_made_as_they_were(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been handed out has to be known under later versions too: these were made with the first."""
    drawn: list[int] = []
    monkeypatch.setattr(secrets, "token_bytes", lambda size: (drawn.append(size), bytes(range(size)))[1])
    key = auth.issue(keys, RING, "first", NOW_MS)
    assert drawn == [16, 40], "128 bits of name, 256 and more of secret"
    assert (key.key_id, key.api_key) == (FIRST_ID, FIRST_KEY)
    assert (key.access_key, key.secret_key) == (f"krak{FIRST_ID}", FIRST_SECRET)
    stored = keys.get(FIRST_ID)
    assert stored is not None and (stored.hash, stored.label, stored.valid_until) == (FIRST_HASH, "", None)


def test_a_credential_has_room_for_2048_characters(keys: Keys, key: auth.IssuedKey) -> None:
    fitting = {
        len(token): token
        for header in range(3)
        for claim in range(1300, 1500)
        if len(token := signed(key, headers={"alg": "HS256", "x": "x" * header}, jti="x" * claim)) in (2048, 2049)
    }
    assert who(fitting[2048], keys) == "acme" and code(fitting[2049], keys) == 1002


def test_what_a_key_may_not_do_is_told(keys: Keys) -> None:
    with pytest.raises(KlingError) as caught:
        auth.Caller("acme", ("read", "submit"), "k").need("pay")
    assert caught.value.message == "API key lacks scope 'pay' (has: read, submit)"
    with pytest.raises(KlingError, match=r"\(has: none\)"):
        auth.Caller("acme", (), "k").need("read")


def test_a_key_is_issued_and_known_again(keys: Keys, key: auth.IssuedKey) -> None:
    assert who(f"Bearer {key.api_key}", keys) == "acme"
    other = auth.issue(keys, RING, "other", NOW_MS)
    assert who(f"Bearer {other.api_key}", keys) == "other"
    assert who(f"Bearer {signed(other)}", keys) == "other"
    assert len({key.api_key, other.api_key, key.secret_key, other.secret_key}) == 4


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "  Bearer   ", ""])
def test_the_scheme_is_read_kindly(scheme: str, keys: Keys, key: auth.IssuedKey) -> None:
    assert who(f"{scheme}{key.api_key} ", keys) == "acme"
    assert who(f"{scheme}{signed(key)}", keys) == "acme"


@pytest.mark.parametrize("header", [None, "", "  ", "Bearer", "Bearer  ", "bearer"])
def test_no_credential(header: str | None, keys: Keys) -> None:
    assert code(header, keys) == 1001


@pytest.mark.parametrize(
    "header",
    [
        *("x", "Bearer x", "Bearer kr_", "Bearer kr___", "Basic dTpw", "Bearer ..", "Bearer a.b.c", "Bearer \0"),
        *("Bearer kr_\u00e9_x_y", "Bearer kr_a_b_\ud800", "Bearer " + "k" * 100_000, "Bearer kr_" + "a" * 100_000),
    ],
)
def test_what_is_no_credential_of_ours(header: str, keys: Keys) -> None:
    assert code(header, keys) == 1002


@pytest.mark.parametrize("scheme", ["Bearer sk-", "sk-", "bearer  sk-"])
def test_a_key_may_begin_like_those_of_other_services(scheme: str, keys: Keys, key: auth.IssuedKey) -> None:
    """Report: gateways in front of the relay take no key without sk-."""
    assert who(f"{scheme}{key.api_key}", keys) == "acme"
    for other in (f"{scheme}sk-{key.api_key}", f"{scheme}{signed(key)}", scheme):
        assert code(other, keys) == 1002


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("Bearer Bearer {key}", "must have Bearer once"),
        ("Bearer bearer{key}", "must have Bearer once"),
        ('Bearer "{key}"', "must not have quotes"),
        ("'{key}'", "must not have quotes"),
        ("Bearer {access}", "(got an access key)"),
        ("{access}|{secret}", "(got an access key)"),
    ],
)
def test_the_refusal_names_the_mistake(form: str, words: str, keys: Keys, key: auth.IssuedKey) -> None:
    with pytest.raises(KlingError, match=words) as caught:
        who(form.format(key=key.api_key, access=key.access_key, secret=key.secret_key), keys)
    assert caught.value.code == 1002 and key.key_id not in caught.value.message


def test_a_token_that_lives_too_long_is_told_the_claim_and_the_limit(keys: Keys, key: auth.IssuedKey) -> None:
    with pytest.raises(KlingError, match=r"exp: must be at most 1800 s from now \(got 86400 s\)"):
        who(signed(key, exp=NOW + 86_400), keys)


def test_nothing_worth_stealing_is_stored(keys: Keys, key: auth.IssuedKey) -> None:
    row = repr(keys.get(key.key_id))
    for secret in (key.api_key, key.api_key.split("_")[2], key.secret_key):
        assert secret not in row


def with_check(body: str) -> str:
    return f"{body}_{auth._check(body)}"


def test_a_typing_mistake_is_refused_without_a_read(key: auth.IssuedKey) -> None:
    for at in range(3, len(key.api_key)):
        wrong = "A" if key.api_key[at] != "A" else "B"
        assert code(f"Bearer {key.api_key[:at]}{wrong}{key.api_key[at + 1 :]}", None) == 1002  # type: ignore[arg-type]


def test_a_wrong_secret_with_a_right_check(keys: Keys, key: auth.IssuedKey) -> None:
    _, key_id, secret, _ = key.api_key.split("_")
    assert who(with_check(f"kr_{key_id}_{secret}"), keys) == "acme"
    for wrong in (secret[:-1], secret + "0", secret.swapcase(), "", "0" * 43):
        assert code(with_check(f"kr_{key_id}_{wrong}"), keys) == 1002
    for unknown in ("0" * 12, key_id[::-1], key_id.lower(), "", "#", "0" * 1900):
        assert code(with_check(f"kr_{unknown}_{secret}"), keys) == 1002


def test_comparisons_take_constant_time(keys: Keys, key: auth.IssuedKey, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[Any, Any]] = []
    right = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: (compared.append((a, b)), right(a, b))[1])
    stored = keys.get(key.key_id).hash
    assert who(key.api_key, keys) == "acme"
    assert (stored, stored) in compared
    compared.clear()
    assert code(with_check(f"kr_{'0' * 12}_{'0' * 43}"), keys) == 1002
    assert len(compared) == 2  # an unknown key costs the same comparison
    assert len(compared[1][0]) == len(compared[1][1]) == len(stored)
    assert compared[1][0] != compared[1][1]  # nor would it pass, were it the only check


def test_a_revoked_key_ends_at_once(keys: Keys) -> None:
    key = auth.issue(keys, RING, "acme", NOW_MS)
    assert who(key.api_key, keys) == "acme"
    assert keys.revoke(key.key_id, NOW_MS)
    assert code(key.api_key, keys) == 1002
    assert code(signed(key), keys) == 1002


def test_keys_survive_a_rotation_and_end_with_their_secret(keys: Keys, key: auth.IssuedKey) -> None:
    both = Keyring({**RING.versions, "k2": "a newer secret"})
    newer = auth.issue(keys, both, "acme", NOW_MS)
    for ours in (key, newer):
        assert who(ours.api_key, keys, both) == "acme"
        assert who(signed(ours), keys, both) == "acme"
    only_new = Keyring({"k2": "a newer secret"})
    assert code(key.api_key, keys, only_new) == 1002
    assert code(signed(key), keys, only_new) == 1002
    assert who(newer.api_key, keys, only_new) == "acme"
    assert code(newer.api_key, keys, Keyring({"k2": "another stack's secret"})) == 1002


# -- Kling's tokens


@pytest.mark.parametrize(
    "claims",
    [
        *(
            {},
            {"iat": NOW},
            {"iat": NOW + 10**9},
            {"exp": NOW - 60},
            {"jti": "x", "more": {"a": 1}},
            {"nbf": NOW + 60},
            {"nbf": 0},
            {"nbf": None},  # RFC 7519: optional; some libraries never write it
        ),
        *({"exp": NOW + 1860}, {"exp": NOW - 59}, {"exp": float(NOW + 10)}, {"exp": str(NOW + 10)}),
    ],
)
def test_tokens_that_pass(claims: dict[str, Any], keys: Keys, key: auth.IssuedKey) -> None:
    assert who(f"Bearer {signed(key, **claims)}", keys) == "acme"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": NOW - 61}, 1004),
        ({"exp": 0}, 1004),
        ({"exp": -1e300}, 1004),
        ({"exp": float("nan")}, 1004),
        ({"nbf": NOW + 61}, 1003),
        ({"nbf": float("inf")}, 1003),
        ({"nbf": float("nan")}, 1003),
        ({"exp": NOW + 1861}, 1002),
        ({"exp": NOW + 10**9}, 1002),
        ({"exp": float("inf")}, 1002),
        ({"exp": 10**400}, 1002),
        ({"exp": None}, 1002),
        ({"iss": None}, 1002),
        ({"exp": [NOW]}, 1002),
        ({"exp": "soon"}, 1002),
        ({"iss": "krak000000000000"}, 1002),
        ({"iss": "another"}, 1002),
        ({"iss": ""}, 1002),
    ],
)
def test_tokens_that_do_not(claims: dict[str, Any], expected: int, keys: Keys, key: auth.IssuedKey) -> None:
    assert code(f"Bearer {signed(key, **claims)}", keys) == expected


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def forged(key: auth.IssuedKey, header: object, payload: object | None = None, secret: str | None = None) -> str:
    payload = payload or {"iss": key.access_key, "exp": NOW + 1800, "nbf": NOW - 5}
    text = f"{part(header)}.{part(payload)}"
    return f"{text}.{part(hmac.digest((secret or key.secret_key).encode(), text.encode(), 'sha256'))}"


@pytest.mark.parametrize(
    "header",
    [
        *({"alg": "none"}, {"alg": "None", "typ": "JWT"}, {"alg": "RS256", "typ": "JWT"}, {"alg": "HS512"}),
        *({"alg": "hs256"}, {"alg": ["HS256"]}, {"alg": None}, {}, [], "HS256"),
        *({"alg": "HS256", "crit": ["exp"]}, {"alg": "HS256", "b64": False}),
    ],
)
def test_the_header_chooses_nothing(header: object, keys: Keys, key: auth.IssuedKey) -> None:
    assert who(forged(key, {"alg": "HS256", "typ": "JWT"}), keys) == "acme"
    assert code(forged(key, header), keys) == 1002
    unsigned = forged(key, header).rpartition(".")[0] + "."
    assert code(unsigned, keys) == 1002


@pytest.mark.parametrize(
    "payload",
    [
        *(b"[]", b"null", b"1", b"\xff", b"{", b'{"iss":["krak"]}', b'{"iss":{"a":1}}', b'{"iss":"krak\\ud800"}'),
        *(b'{"iss":"krak#"}', b'{"exp":' + b"9" * 1300 + b"}", b'{"iss":' + b"[" * 1300),
    ],
)
def test_payloads_that_are_none(payload: bytes, keys: Keys, key: auth.IssuedKey) -> None:
    token = forged(key, {"alg": "HS256"}, payload)
    assert len(token) < 2048  # not refused for its length
    assert code(token, keys) == 1002


def test_an_access_key_has_our_prefix_and_a_name(keys: Keys, key: auth.IssuedKey) -> None:
    assert code(signed(key, iss=f"abcd{key.key_id}"), keys) == 1002
    assert code(signed(key, iss="krak#"), None) == 1002  # type: ignore[arg-type]  (without a read)


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_foreign_signatures(keys: Keys, key: auth.IssuedKey) -> None:
    other = auth.issue(keys, RING, "other", NOW_MS)
    for secret in (other.secret_key, key.api_key, key.access_key, key.secret_key[:-1], "x" * 43):
        assert code(signed(key, secret=secret), keys) == 1002
    assert code(signed(key, alg="HS512", headers={"alg": "HS512"}), keys) == 1002


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_mutated_tokens(keys: Keys, key: auth.IssuedKey, data: st.DataObject) -> None:
    token = signed(key)
    at = data.draw(st.integers(0, len(token) - 1))
    piece = data.draw(st.text(min_size=0, max_size=3))
    mutant = token[:at] + piece + token[at + data.draw(st.integers(0, 2)) :]
    if decoded(mutant) != decoded(token):
        assert code(f"Bearer {mutant}", keys) in (1001, 1002)


def decoded(token: str) -> Any:
    """What a token says: base64url leaves spare bits in the last character of a part, which say nothing."""
    try:
        signed_part, _, signature = token.strip().rpartition(".")
        return signed_part, base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    except ValueError:
        return token


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60) | st.text(alphabet="kr_.Bearer aA0\x00\ud800", max_size=60))
def test_any_header(keys: Keys, text: str) -> None:
    assert code(text, keys) in (1001, 1002)
