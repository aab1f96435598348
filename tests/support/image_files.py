"""Build the smallest possible image files: the headers that our rules read, inside a real structure."""

import base64
import struct
import zlib


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int = 640, height: int = 640, padding: int = 0) -> bytes:
    """Return a black PNG; `padding` bytes of text make the file larger."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height) if width * height < 10**7 else b""
    text = _chunk(b"tEXt", b"x" * padding) if padding else b""
    return b"\x89PNG\r\n\x1a\n" + header + text + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(width: int = 640, height: int = 640, *, frame: int = 0xC0, before: bytes = b"") -> bytes:
    """Return the segments of a JPEG without its pixels. `frame`: the SOF marker; `before`: segments in front of it."""
    jfif = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    tables = segment(0xDB, bytes(65)) + segment(0xC4, bytes(28))
    sizes = segment(frame, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
    return b"\xff\xd8" + jfif + before + tables + sizes + segment(0xDA, b"\1\1\0\0\x3f\0") + b"\x55" * 64 + b"\xff\xd9"


def text(picture: bytes) -> str:
    return base64.b64encode(picture).decode()
