"""Decode a request body, the JSON in it, and the base64 in that. Pure.

A message that was damaged in transit is refused: it does not ask for the intended task, which would be paid.
"""

import base64
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from kling_relay.errors import KlingError

MARK = "\ufffd"
"""Decoders write it for bytes that are not UTF-8. API Gateway does too, because it passes a body on as text."""

_ALPHABET = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_STANDARD = str.maketrans("-_", "+/")  # of the URL alphabet
_LINE_LENGTHS = ({64}, {76})  # RFC 7468 and RFC 2045: encoders break lines there
_SURROGATE = re.compile("[\ud800-\udfff]")


def http_body(text: str | None, is_base64: bool, headers: Mapping[str, str], limit: int) -> bytes:
    """Return the bytes of a request's body from API Gateway: at most `limit`, or enough to show that it is longer.

    `headers` has lower-case names. Raises KlingError for a form, for a body that was damaged in transit, and for an
    unsupported compression (HTTP 415).
    """
    text = text or ""
    is_json = text.lstrip().startswith("{")
    if not is_json:
        _refuse_form(text, headers.get("content-type") or "")
    encoding = (headers.get("content-encoding") or "identity").strip().lower()
    if encoding == "identity" or is_json:  # a gateway that compresses answers unpacks requests too
        return body_bytes(text, is_base64)
    if is_base64 and encoding in ("gzip", "x-gzip"):
        return _unpacked(body_bytes(text, is_base64), limit)
    raise KlingError(1200, f"Content-Encoding: the body must be uncompressed (got {encoding[:32]!r})", http=415)


def _refuse_form(text: str, content_type: str) -> None:
    """Raise KlingError for a form. curl -d names the second type for JSON too, which does not reach this function."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data" or (kind == "application/x-www-form-urlencoded" and "=" in text):
        raise KlingError(
            1201,
            "body: must be a JSON object (got a form); send Content-Type application/json, and the image as a URL, "
            "as base64, or uploaded first (POST /kling/v1/uploads)",
        )


def _unpacked(data: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)  # gzip alone
    try:
        body = unpacker.decompress(data, limit + 1)
    except zlib.error as exc:
        raise KlingError(1201, "body: must be gzip data, as Content-Encoding states (got other data)") from exc
    if len(body) <= limit and not unpacker.eof:
        raise KlingError(1201, f"body: the gzip data must be complete (got {len(data)} bytes without its end)")
    return body


def body_bytes(text: str, is_base64: bool) -> bytes:
    """Return the bytes of a body from API Gateway. Raises KlingError if they were damaged in transit."""
    if is_base64:
        try:
            return base64.b64decode(text, validate=True)
        except ValueError as exc:
            raise KlingError(1201, "body: the gateway passed on invalid base64; send the request again") from exc
    if MARK in text or _SURROGATE.search(text):
        raise KlingError(
            1201,
            f"body: must be UTF-8 (got {len(text)} characters with U+FFFD, which replaces invalid bytes); "
            "send uncompressed UTF-8, and write an intended U+FFFD as \\ufffd",
        )
    return text.encode()


def decode(raw: bytes) -> Any:
    """Parse the JSON text `raw` strictly: no NaN, no number above a double's range.

    Half a surrogate pair, which JavaScript leaves of a cut emoji, becomes U+FFFD. Raises ValueError, RecursionError.
    """
    raw = raw.removeprefix(b"\xef\xbb\xbf")  # some editors put a byte order mark in front
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        if rb"\u" not in raw:
            raise
    # RFC 8259 section 8.2 allows half a pair, msgspec refuses it, and no later step can store it.
    lenient = json.dumps(json.loads(raw.decode(), parse_constant=_refuse), ensure_ascii=False)
    return msgspec.json.decode(_SURROGATE.sub(MARK, lenient))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def image_bytes(text: str) -> bytes:
    """Decode base64 of either alphabet, padded or not, in one line or in several. Raises ValueError with the mistake.

    A form turns each "+" into a blank, so blanks count as line breaks only at the positions where encoders break lines.
    A lost "+" also leaves a length that needs padding, so a text with blanks must be padded already.
    """
    lines = re.sub(r"[\t\r\n]", "", text).strip(" ").split(" ")
    joined = "".join(lines).translate(_STANDARD)
    lengths = {len(line) for line in lines[:-1]}
    wrapped = not lengths or (lengths in _LINE_LENGTHS and len(lines[-1]) <= max(lengths))
    if " " in text and _ALPHABET.fullmatch(joined) and not (wrapped and len(joined) % 4 == 0):
        raise ValueError('base64 must not contain spaces (a web form turns "+" into a space)')
    try:
        return base64.b64decode(joined + "=" * (-len(joined) % 4), validate=True)
    except ValueError as exc:
        raise ValueError("must be an http(s) URL or valid base64") from exc
