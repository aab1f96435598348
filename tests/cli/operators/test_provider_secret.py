"""Test the commands that store secrets: functions read the stored values, other implementations verify signatures."""

import json
import time

import pytest
from kling_relay.provider.credentials import TokenSigner, entries, entry_of, key_in, webhook_secrets_in
from kling_relay.security.standard_webhooks import is_signed
from standardwebhooks import Webhook

from kling_relay_cli.operators import provider_secret as secret

OLD, NEW = "whsec_b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQ=", "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
PAIR = '{"access_key":"ak","secret_key":"a-secret-key-of-at-least-32-bytes"}'
KEYS = ["sk-key", "ak:a-secret-key-of-at-least-32-bytes", PAIR]
ONE, TWO = "kling@https://api.example#1", "kling@https://api.example#2"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("key_first", [True, False])
def test_both_are_found_in_whichever_order_they_came(key: str, key_first: bool) -> None:
    stored = ""
    for step in (1, 2) if key_first else (2, 1):
        changed = (secret.with_key, key) if step == 1 else (secret.with_webhook_secrets, f"{OLD} {NEW}")
        stored = changed[0](stored, ONE, changed[1])
        held = bool(key_in(entry_of(stored, ONE)))
        assert secret.holds_key(stored, ONE) == held == (step == 1 or key_first)
    entry = entry_of(stored, ONE)
    assert webhook_secrets_in(entry) == secret.webhook_secrets(stored, ONE) == [OLD, NEW]
    found = key_in(entry)
    assert found == key or json.loads(found).items() >= json.loads(key).items()
    if key != "sk-key":
        assert TokenSigner(lambda refresh: key_in(entry), time.time)(False).count(".") == 2


@pytest.mark.parametrize("key", KEYS)
def test_one_is_replaced_and_the_other_stays(key: str) -> None:
    """From the form of the secret that names no account."""
    stored = secret.with_key(secret.with_webhook_secrets(key, ONE, OLD), ONE, "sk-newer")
    assert (key_in(entry_of(stored, ONE)), webhook_secrets_in(entry_of(stored, ONE))) == ("sk-newer", [OLD])
    stored = secret.with_webhook_secrets(stored, ONE, NEW)
    assert (key_in(entry_of(stored, ONE)), webhook_secrets_in(entry_of(stored, ONE))) == ("sk-newer", [NEW])
    assert entry_of(secret.with_webhook_secrets(stored, ONE, "none"), ONE) == "sk-newer"


@pytest.mark.parametrize("key", KEYS)
def test_each_account_keeps_its_own(key: str) -> None:
    stored = secret.with_key(secret.with_key("", ONE, key), TWO, "sk-two")
    assert key_in(entry_of(stored, TWO)) == "sk-two"
    assert secret.holds_key(stored, ONE) and not secret.holds_key(stored, "kling@https://api.example#3")
    stored = secret.with_key(stored, TWO, "sk-newer")
    assert key_in(entry_of(stored, TWO)) == "sk-newer" and entry_of(stored, ONE) != "sk-newer"


def test_what_was_stored_before_accounts_serves_those_that_have_no_entry() -> None:
    """Tasks may be open that were sent with it, before the operator changed to another provider."""
    stored = secret.with_key("sk-old", TWO, "sk-two")
    assert key_in(entry_of(stored, ONE)) == "sk-old" and key_in(entry_of(stored, TWO)) == "sk-two"
    assert entries("") == {} and entry_of("", ONE) == ""


def test_what_else_is_in_there_stays() -> None:
    stored = secret.with_key('{"access_key":"a","secret_key":"s","note":"mine"}', ONE, "sk-newer")
    assert json.loads(entry_of(stored, ONE)) == {"key": "sk-newer", "note": "mine"}
    changed = secret.with_webhook_secrets(stored, ONE, NEW)
    assert json.loads(entry_of(changed, ONE)) == {"key": "sk-newer", "note": "mine", "webhook_secret": NEW}


@pytest.mark.parametrize("stored", ["", "{}", '{"webhook_secret": "x"}', '{"key": ""}', '{"key": 5, "note": "x"}'])
def test_without_a_key(stored: str) -> None:
    assert key_in(entry_of(stored, ONE)) == "" and not secret.holds_key(stored, TWO)


@pytest.mark.parametrize("text", ["{", "[]", "{" * 5000, '{"a":' * 5000, "{'key': 'x'}"])
def test_what_is_no_object_is_a_key(text: str) -> None:
    assert key_in(entry_of(text, ONE)) == text and webhook_secrets_in(entry_of(text, ONE)) == []


@pytest.mark.parametrize("held", [None, 5, ["x"], {"x": 1}, ""])
def test_a_webhook_secret_of_another_type_is_none(held: object) -> None:
    assert webhook_secrets_in(entry_of(json.dumps({"key": "k", "webhook_secret": held}), ONE)) == []


@pytest.mark.parametrize("entry", [None, 5, ["x"], {"x": 1}])
def test_an_entry_of_another_type_is_no_key(entry: object) -> None:
    assert key_in(entry_of(json.dumps({ONE: entry}), ONE)) in ("", json.dumps(entry))


def test_what_is_signed_here_verifies_everywhere() -> None:
    body, now = b'{"task_id":"1"}', int(time.time())
    headers = secret.signed(NEW, "probe-1", now, body)
    Webhook(NEW).verify(body, headers)
    assert is_signed([OLD, NEW], headers, body, now) and not is_signed([OLD], headers, body, now)


def test_its_form() -> None:
    assert secret.is_webhook_secret(NEW)
    for text in ("", "whsec_", "sk-key", NEW[6:], NEW + "\n", "whsec_short", "whsec_" + "%" * 32):
        assert not secret.is_webhook_secret(text)
