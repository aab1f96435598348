"""The bytes of a body as API Gateway hands it on, and what was damaged on the way.

That API Gateway decodes a body as UTF-8, with U+FFFD for bytes that are not, is from the emulator; AWS documents only
that bodies are text unless a binary media type matches. `make doctor` can check it on a deployed stack.
"""

import json
from typing import Any

import pytest
from kling_relay.errors import KlingError
from kling_relay.message import body_bytes, decode

from tests.unit.world import BODY, World


@pytest.mark.parametrize(
    ("text", "is_base64", "raw"),
    [(None, False, b""), ("{é}", False, "{é}".encode()), ("e30=", True, b"{}"), ("", True, b"")],
)
def test_bytes_of_a_body(text: str | None, is_base64: bool, raw: bytes) -> None:
    assert body_bytes(text, is_base64) == raw


@pytest.mark.parametrize(("text", "is_base64"), [("{\ufffd}", False), ("{\ud83d}", False), ("{}", True), ("é", True)])
def test_a_damaged_body_is_refused(text: str, is_base64: bool) -> None:
    with pytest.raises(KlingError, match="1201 body: "):
        body_bytes(text, is_base64)


@pytest.mark.parametrize("prompt", ["caf\xe9".encode("latin-1"), "cat".encode("utf-16"), b"\xed\xa0\xbd"])
def test_a_body_that_is_not_utf8_is_never_paid(world: World, prompt: bytes) -> None:
    raw = json.dumps(BODY).encode().replace(b"canary-prompt", prompt)
    status, answer = world.post(raw.decode("utf-8", "replace"))
    assert (status, answer["code"]) == (400, 1201) and "UTF-8" in answer["message"]
    assert world.tasks() == [] and world.provider.posts == []


def test_a_mark_that_is_meant_is_sent_escaped(world: World) -> None:
    world.create({**BODY, "prompt": "\ufffd"})  # as json.dumps writes it
    assert world.provider.posts[0]["prompt"] == "\ufffd"


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'"\\ud83d"', "\ufffd"),
        (b'"\\ud83d\\ude00\\ud83d"', "\U0001f600\ufffd"),
        (b'["\\\\ud83d", "\\ude00"]', ["\\ud83d", "\ufffd"]),
        (b'{"\\ud83d": 1.0}', {"\ufffd": 1.0}),
        (b"\xef\xbb\xbf1", 1),
    ],
)
def test_half_a_pair_becomes_the_mark(raw: bytes, value: Any) -> None:
    assert decode(raw) == value


@pytest.mark.parametrize("raw", [b'["\\ud83d", NaN]', b'["\\ud83d", 1e999]', b'["\\ud83d", "\xff"]', b'"\\ud83d', b""])
def test_it_stays_strict(raw: bytes) -> None:
    with pytest.raises(ValueError):
        decode(raw)
