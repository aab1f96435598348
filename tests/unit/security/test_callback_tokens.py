"""Test callback tokens: one task, one key; rotation; and that no other token passes."""

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kling_relay.security.callback_tokens import callback_url, is_callback_token
from kling_relay.security.keyring import Keyring, base62
from kling_relay.tasks.task import new_task_id

BASE = "https://api.example/live"
RING = Keyring({"k9": "old", "k10": "new"})
TASK = "0123456789abcdef0123456789abcdef"


def token(keyring: Keyring, task_id: str = TASK) -> str:
    return callback_url(BASE, keyring, task_id).rpartition("/")[2]


def test_the_address() -> None:
    url = callback_url(BASE, RING, TASK)
    assert re.fullmatch(rf"{BASE}/hooks/kling/{TASK}/k10\.[A-Za-z0-9_-]{{32}}", url)
    assert is_callback_token(RING, TASK, token(RING))


def test_tokens_are_made_as_they_were() -> None:
    """A task that is under way while a new version is deployed has the address of the old one."""
    assert token(Keyring({"k9": "old"})) == "k9.aap7Mllr7tazga0QoJYYPwF1F7oCKMdx"


def test_rotation_keeps_old_addresses_until_their_key_goes() -> None:
    before = Keyring({"k9": "old"})
    assert is_callback_token(RING, TASK, token(before))
    assert not is_callback_token(before, TASK, token(RING))
    assert not is_callback_token(Keyring({"k10": "new"}), TASK, token(before))
    assert not is_callback_token(Keyring({"k10": "another"}), TASK, token(RING))


def test_a_token_belongs_to_one_task() -> None:
    tokens = {token(RING, new_task_id()) for _ in range(100)}
    assert len(tokens) == 100
    assert not any(is_callback_token(RING, TASK, other) for other in tokens)


def test_other_purposes_have_other_keys() -> None:
    assert RING.mac("k9", "callback/v1", TASK) != RING.mac("k9", "api-key/v1", TASK)
    assert RING.mac("k9", "callback/v1", TASK) != RING.mac("k10", "callback/v1", TASK)


@pytest.mark.parametrize(
    "change",
    [
        lambda good: "",
        lambda good: ".",
        lambda good: good[:-1],
        lambda good: good + "=",
        lambda good: good + "\n",
        lambda good: " " + good,
        lambda good: good.swapcase(),
        lambda good: good.replace("k10", "k9"),
        lambda good: good.replace("k10", "k11"),
        lambda good: good.replace(".", "%2e"),
        lambda good: good.partition(".")[2],
        lambda good: "k10.",
        lambda good: "k10",
        lambda good: good + "\ud800",
        lambda good: good * 1000,
    ],
)
def test_changed_tokens(change) -> None:
    assert not is_callback_token(RING, TASK, change(token(RING)))


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=60) | st.text(max_size=40).map("k10.".__add__), st.text(max_size=40))
def test_any_token_for_any_task(given_token: str, task_id: str) -> None:
    assume(given_token != token(RING, task_id))
    assert not is_callback_token(RING, task_id, given_token)


def test_a_task_id_of_half_characters_is_no_error() -> None:
    assert not is_callback_token(RING, "\ud800", token(RING))
    assert RING.mac("k9", "p", "\ud800") != RING.mac("k9", "p", "?")


def test_the_greatest_key_signs() -> None:
    assert Keyring({"9": "", "10": "", "1": ""}).current == "10"


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=40), st.integers(1, 50))
def test_base62(raw: bytes, length: int) -> None:
    assert re.fullmatch(rf"[0-9A-Za-z]{{{length}}}", base62(raw, length))
