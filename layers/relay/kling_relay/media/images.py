"""Read format and size of an image from its header bytes, and apply Kling's rules for them. Decodes no pixel. Pure.

Kling accepts a bad image, takes its time and then fails the task with four words. So the rules are applied before the
paid POST.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAX_BYTES = 10 * 1024 * 1024
MIN_SIDE = 300  # px
MAX_RATIO = 2.5  # the longer side over the shorter one

_PNG = b"\x89PNG\r\n\x1a\n"
_CHUNK_FRAME = 12  # length, type and CRC around the data of a PNG chunk
_MAX_CHUNKS = 100_000
_SIZE_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15 without DHT, JPG and DAC
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
# Bytes before a marker that belong to no segment are skipped, as libjpeg does: cameras and editors leave some between
# segments, and some lengths are too short for their segments. In a scan an 0xFF occurs only before 0x00 or in
# RST0..RST7 (0xD0..0xD7).
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
_MAX_SEGMENTS = 10_000
_OTHER_FORMATS = (
    ("GIF", rb"GIF8"),
    ("WebP", rb"RIFF....WEBP"),
    ("HEIC", rb"....ftyp(?:hei|hev|mif1|msf1)"),
    ("AVIF", rb"....ftypavi"),
    ("TIFF", rb"II\*\0|MM\0\*"),
    ("BMP", rb"BM....\0\0\0\0"),
    ("SVG", rb"\s*<(?:svg|\?xml)"),
    ("PDF", rb"%PDF"),
)


class ImageError(ValueError):
    """The image cannot be used. The text names the limit that it breaks, and its own value."""


class UnfinishedError(ImageError):
    """The bytes end before the sides or before the picture's end; more bytes may hold them."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The header of an image: `format` is "png" or "jpeg"; sides in pixels."""

    format: str
    width: int
    height: int

    @property
    def extension(self) -> str:
        return {"png": "png", "jpeg": "jpg"}[self.format]


def read_header(data: bytes) -> ImageHeader:
    """Read format and sides. Raises ImageError if `data` is neither PNG nor JPEG, or ends before the sides."""
    if data.startswith(_PNG) and data[12:16] == b"IHDR" and len(data) >= 24:
        return ImageHeader("png", *struct.unpack(">II", data[16:24]))
    if data.startswith(b"\xff\xd8\xff"):
        return ImageHeader("jpeg", *_jpeg_sides(data))
    found = next((name for name, start in _OTHER_FORMATS if re.match(start, data, re.DOTALL)), None)
    raise ImageError(f"must be a JPEG or PNG image (got {found or 'another format'})")


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and position of each segment of a JPEG that has a length, and of its EOI."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if (match := _MARKER.search(data, at)) is None:
            return
        at, marker = match.start(), match[1][0]
        yield marker, at
        at += 2 if marker == _SOI else 2 + max(2, int.from_bytes(data[at + 2 : at + 4]))
    raise ImageError(f"must have at most {_MAX_SEGMENTS} JPEG segments (got more)")


def _jpeg_sides(data: bytes) -> tuple[int, int]:
    for marker, at in _segments(data):
        if marker in (_EOI, _SOS):
            raise ImageError("must have a JPEG header with the size (got none)")
        if marker in _SIZE_MARKERS and at + 9 <= len(data):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
    raise UnfinishedError("must be a complete JPEG image (got one that ends before its size)")


def _check_end(data: bytes, header: ImageHeader) -> None:
    """Raise UnfinishedError if the picture is cut off.

    A PNG's chunks must reach IEND, a JPEG needs its EOI after a scan. Bytes after the end are ignored, as decoders do.
    """
    whole = _png_ends(data) if header.format == "png" else _jpeg_ends(data)
    if not whole:
        raise UnfinishedError(f"must be a complete {header.format.upper()} image (got one without its end)")


def _png_ends(data: bytes) -> bool:
    at, kinds = len(_PNG), set()
    for _ in range(_MAX_CHUNKS):
        kind = data[at + 4 : at + 8]
        at += _CHUNK_FRAME + int.from_bytes(data[at : at + 4])
        if at > len(data) or len(kind) < 4:
            return False
        kinds.add(kind)
        if kind == b"IEND":
            return b"IDAT" in kinds
    return False


def _jpeg_ends(data: bytes) -> bool:
    scanned = False
    for marker, _ in _segments(data):
        if marker == _EOI:
            return scanned
        scanned = scanned or marker == _SOS
    return False


def check(data: bytes) -> ImageHeader:
    """Apply Kling's rules to a whole image, which must have its end. Raises ImageError."""
    header = check_start(data, len(data))
    _check_end(data, header)
    return header


def check_start(data: bytes, length: int | None) -> ImageHeader:
    """Apply Kling's rules to the first bytes of an image of `length` bytes (None if unknown).

    The rules: at most 10 MB, sides at least 300 px, ratio 1:2.5 to 2.5:1. Raises ImageError.
    """
    if length is not None and length > MAX_BYTES:
        raise ImageError(f"must have at most 10 MB, {MAX_BYTES} bytes (got {length})")
    header = read_header(data)
    sides = f"(got {header.width}x{header.height})"
    if min(header.width, header.height) < MIN_SIDE:
        raise ImageError(f"both sides must have at least {MIN_SIDE} px {sides}")
    if max(header.width, header.height) > MAX_RATIO * min(header.width, header.height):
        raise ImageError(f"the ratio of the sides must be between 1:2.5 and 2.5:1 {sides}")
    return header
