"""What arrives as text: a body, the JSON in it, the base64 in that. Pure.

A message that was damaged on its way is refused: what it asks for is not what its sender meant, and would be paid.
"""

import base64
import json
import re
from typing import Any, NoReturn

import msgspec

from kling_relay.errors import KlingError

MARK = "\ufffd"
"""Decoders write it for bytes that are not UTF-8: so does API Gateway, which hands on a body as text."""

_ALPHABET = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_STANDARD = str.maketrans("-_", "+/")  # of the URL alphabet
_LINE_LENGTHS = ({64}, {76})  # RFC 7468 and RFC 2045: encoders break lines there
_SURROGATE = re.compile("[\ud800-\udfff]")


def body_bytes(text: str | None, is_base64: bool) -> bytes:
    """Return the bytes of a body as API Gateway hands it on. Raises KlingError if they were damaged before."""
    text = text or ""
    if is_base64:
        try:
            return base64.b64decode(text, validate=True)
        except ValueError as exc:
            raise KlingError(1201, "body: the gateway's base64 cannot be decoded") from exc
    if MARK in text or _SURROGATE.search(text):
        raise KlingError(
            1201,
            "body: UTF-8 is expected, it holds U+FFFD, which replaces bytes that are not UTF-8: send UTF-8 text, "
            f"uncompressed, and a U+FFFD that is meant as \\ufffd ({len(text)} characters were sent)",
        )
    return text.encode()


def decode(raw: bytes) -> Any:
    """Return the value of the JSON text `raw`, strictly: no NaN, no number above a double's range. Half a surrogate
    pair, which is what JavaScript leaves of a cut emoji, becomes U+FFFD. Raises ValueError, RecursionError."""
    raw = raw.removeprefix(b"\xef\xbb\xbf")  # some editors put a byte order mark in front
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        if rb"\u" not in raw:
            raise
    # RFC 8259 section 8.2 allows half a pair, msgspec refuses it, nothing behind this can store it.
    lenient = json.dumps(json.loads(raw.decode(), parse_constant=_refuse), ensure_ascii=False)
    return msgspec.json.decode(_SURROGATE.sub(MARK, lenient))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def image_bytes(text: str) -> bytes:
    """Decode base64 of either alphabet, padded or not, in one line or in several; raises ValueError with the mistake.

    A form turns each "+" into a blank, so blanks are taken for line breaks only if they stand where encoders break
    lines. A lost "+" also leaves a length that needs padding, so a text with blanks has to be padded already.
    """
    lines = re.sub(r"[\t\r\n]", "", text).strip(" ").split(" ")
    joined = "".join(lines).translate(_STANDARD)
    lengths = {len(line) for line in lines[:-1]}
    wrapped = not lengths or (lengths in _LINE_LENGTHS and len(lines[-1]) <= max(lengths))
    if " " in text and _ALPHABET.fullmatch(joined) and not (wrapped and len(joined) % 4 == 0):
        raise ValueError('base64 has no blanks (a web form makes them of "+")')
    try:
        return base64.b64decode(joined + "=" * (-len(joined) % 4), validate=True)
    except ValueError as exc:
        raise ValueError("neither an http(s) URL nor valid base64") from exc
