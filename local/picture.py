"""Any photo as Kling takes it: JPEG or PNG, and small enough for a request."""

import base64
import io
from fractions import Fraction
from pathlib import Path

import av

_MOST_BYTES = 3_500_000  # as base64 it has to fit into a request of 5.5 MB
_MOST_SIDE = 2048  # px


class PictureError(Exception):
    """The file cannot be sent; the text says why."""


def as_base64(path: Path) -> str:
    """The picture at `path`, sent as it is where Kling would take it, otherwise converted to JPEG and made smaller."""
    if not path.is_file():
        raise PictureError(f"IMAGE: there is no file {path}")
    data = path.read_bytes()
    if len(data) > _MOST_BYTES or not data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        data = _as_jpeg(data, path)
    return base64.b64encode(data).decode()


def _as_jpeg(data: bytes, path: Path) -> bytes:
    try:
        with av.open(io.BytesIO(data)) as container:
            frame = next(container.decode(video=0))
    except (av.FFmpegError, StopIteration, IndexError) as exc:
        raise PictureError(f"IMAGE: {path} is no picture that can be read; try a JPEG or PNG file") from exc
    shrink = min(1.0, _MOST_SIDE / max(frame.width, frame.height))
    width, height = (max(2, int(side * shrink) // 2 * 2) for side in (frame.width, frame.height))
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base, encoder.options = Fraction(1, 1), {"qmin": "2", "qmax": "4"}
    scaled = frame.reformat(width=width, height=height, format="yuvj420p")
    scaled.pts = None
    return b"".join(bytes(packet) for packet in [*encoder.encode(scaled), *encoder.encode(None)])
