"""Format and size of an image from its header bytes, and Kling's rules for them. No pixel is decoded. Pure.

Kling accepts a bad image, takes its time and then fails the task with four words; so the rules are applied before
money.
"""

import struct
from dataclasses import dataclass

MAX_BYTES = 10 * 1024 * 1024
MIN_SIDE = 300  # px
MAX_RATIO = 2.5  # the longer side over the shorter one

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_SIZE_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15 without DHT, JPG and DAC
_JPEG_BARE_MARKERS = {0x01, 0xFF, *range(0xD0, 0xD9)}  # markers without a length, and the filler between markers
_JPEG_BODY_MARKERS = {0xD9, 0xDA}  # EOI, SOS: what comes after them is no header
_JPEG_MOST_SEGMENTS = 10_000


class ImageError(ValueError):
    """The image cannot be used; the text says which limit it breaks and what it has."""


class UnfinishedError(ImageError):
    """The bytes end before the sides are said; with more of them they may be."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """`format` is "png" or "jpeg"; sides in pixels."""

    format: str
    width: int
    height: int

    @property
    def extension(self) -> str:
        return {"png": "png", "jpeg": "jpg"}[self.format]


def read_header(data: bytes) -> ImageHeader:
    """Read format and sides; raises ImageError where `data` is neither PNG nor JPEG or ends before the sides."""
    if data.startswith(_PNG) and data[12:16] == b"IHDR" and len(data) >= 24:
        return ImageHeader("png", *struct.unpack(">II", data[16:24]))
    if data.startswith(b"\xff\xd8\xff"):
        return ImageHeader("jpeg", *_jpeg_sides(data))
    raise ImageError("the bytes are neither a JPEG nor a PNG image")


def _jpeg_sides(data: bytes) -> tuple[int, int]:
    at = 2
    for _ in range(_JPEG_MOST_SEGMENTS):
        if at + 9 > len(data):
            raise UnfinishedError("the JPEG ends before it says how large it is")
        if data[at] != 0xFF or (marker := data[at + 1]) in _JPEG_BODY_MARKERS:
            break
        if marker in _JPEG_BARE_MARKERS:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _JPEG_SIZE_MARKERS:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ImageError("the JPEG does not say how large it is")


def check(data: bytes) -> ImageHeader:
    """Apply Kling's rules to a whole image; raises ImageError."""
    return check_start(data, len(data))


def check_start(data: bytes, length: int | None) -> ImageHeader:
    """Apply Kling's rules (at most 10 MB, sides at least 300 px, ratio 1:2.5 to 2.5:1) to the first bytes of an image
    of `length` bytes, where that is known; raises ImageError."""
    if length is not None and length > MAX_BYTES:
        raise ImageError(f"at most {MAX_BYTES} bytes (10 MB) are allowed, the image has {length}")
    header = read_header(data)
    sides = f"the image has {header.width}x{header.height}"
    if min(header.width, header.height) < MIN_SIDE:
        raise ImageError(f"both sides must have at least {MIN_SIDE} px, {sides}")
    if max(header.width, header.height) > MAX_RATIO * min(header.width, header.height):
        raise ImageError(f"the ratio of the sides must lie between 1:2.5 and 2.5:1, {sides}")
    return header
