"""Test the bytes of a body as API Gateway passes them on, and damage on the way.

That API Gateway decodes a body as UTF-8, with U+FFFD for invalid bytes, is from the emulator. AWS documents only that
bodies are text unless a binary media type matches. `make doctor` can check it on a deployed stack.
"""

import base64
import gzip
import json
from typing import Any

import pytest
from kling_relay.api.json_body import body_bytes, decode, http_body
from kling_relay.errors import KlingError

from tests.support.stack_in_memory import BODY, World


@pytest.mark.parametrize(
    ("text", "is_base64", "raw"),
    [("", False, b""), ("{é}", False, "{é}".encode()), ("e30=", True, b"{}"), ("", True, b"")],
)
def test_bytes_of_a_body(text: str, is_base64: bool, raw: bytes) -> None:
    assert body_bytes(text, is_base64) == raw


@pytest.mark.parametrize(("text", "is_base64"), [("{\ufffd}", False), ("{\ud83d}", False), ("{}", True), ("é", True)])
def test_a_damaged_body_is_refused(text: str, is_base64: bool) -> None:
    with pytest.raises(KlingError, match="1201 body: "):
        body_bytes(text, is_base64)


PACKED = gzip.compress(b'{"a": 1}', mtime=0)
GZIP = {"content-encoding": "gzip"}


@pytest.mark.parametrize(
    ("text", "is_base64", "headers", "raw"),
    [
        (None, False, {}, b""),
        ("{}", False, {"content-encoding": "identity"}, b"{}"),
        ('{"a": 1}', False, GZIP, b'{"a": 1}'),  # unpacked by a gateway that compresses answers
        (base64.b64encode(PACKED).decode(), True, GZIP, b'{"a": 1}'),
        (base64.b64encode(PACKED).decode(), True, {"content-encoding": " X-GZIP "}, b'{"a": 1}'),
        ('{"a": "b=c"}', False, {"content-type": "application/x-www-form-urlencoded"}, b'{"a": "b=c"}'),  # curl -d
        ('[{"a": 1}]', False, {"content-type": "application/x-www-form-urlencoded"}, b'[{"a": 1}]'),
    ],
)
def test_a_body_over_http(text: str | None, is_base64: bool, headers: dict[str, str], raw: bytes) -> None:
    assert http_body(text, is_base64, headers, 100) == raw


def test_a_gzip_bomb_is_unpacked_to_one_byte_over_the_limit() -> None:
    packed = base64.b64encode(gzip.compress(bytes(10_000_000))).decode()
    assert len(http_body(packed, True, GZIP, 1000)) == 1001


@pytest.mark.parametrize(
    ("text", "is_base64", "headers", "http", "words"),
    [
        (PACKED.decode("utf-8", "replace"), False, GZIP, 415, "Content-Encoding: the body must be uncompressed"),
        (base64.b64encode(b"x").decode(), True, {"content-encoding": "br"}, 415, "(got 'br')"),
        (base64.b64encode(PACKED[:-9]).decode(), True, GZIP, 400, "the gzip data must be complete"),
        (base64.b64encode(b"no gzip at all").decode(), True, GZIP, 400, "must be gzip data"),
        (PACKED.decode("utf-8", "replace"), False, {}, 400, "must be UTF-8"),
        ("--x\r\n\ufffd", False, {"content-type": "Multipart/Form-Data; boundary=x"}, 400, "(got a form); send"),
        ("image=x&prompt=y", False, {"content-type": "application/x-www-form-urlencoded"}, 400, "got a form"),
    ],
)
def test_a_body_that_cannot_be_read(text: str, is_base64: bool, headers: dict[str, str], http: int, words: str) -> None:
    with pytest.raises(KlingError) as caught:
        http_body(text, is_base64, headers, 100)
    assert caught.value.http == http and words in caught.value.message


def test_the_function_reads_them_with_its_headers(world: World) -> None:
    status, answer = world.post("image=x&prompt=y", **{"Content-Type": "application/x-www-form-urlencoded"})
    assert (status, answer["code"]) == (400, 1201) and "got a form" in answer["message"]
    status, answer = world.post("\ufffd", **{"Content-Encoding": "gzip"})
    assert (status, answer["code"]) == (415, 1200)
    assert world.tasks() == []


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
