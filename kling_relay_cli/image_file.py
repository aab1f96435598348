"""Any photo as Kling takes it: JPEG or PNG, and small enough for a request."""

import base64
import io
from fractions import Fraction
from pathlib import Path

import av

_MAX_BYTES = 3_500_000  # as base64 it has to fit into a request of 5.5 MB
_SIDES = (2048, 1280, 640, 320)  # px; the first that is small enough is taken


class PictureError(Exception):
    """The file cannot be sent; the text says why."""


def as_base64(path: Path) -> str:
    """The picture at `path`, sent as it is where Kling would take it, otherwise converted to JPEG and made smaller."""
    try:
        data = path.expanduser().read_bytes()
    except FileNotFoundError:
        raise PictureError(f"IMAGE: file not found ({path})") from None
    except OSError as exc:
        raise PictureError(f"IMAGE: {path} cannot be read: {exc.strerror}") from None
    if len(data) > _MAX_BYTES or not data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        frame = _upright(_decoded(data, path))
        data = next(small for side in _SIDES if len(small := _as_jpeg(frame, side)) <= _MAX_BYTES)
    return base64.b64encode(data).decode()


def _decoded(data: bytes, path: Path) -> av.VideoFrame:
    try:
        with av.open(io.BytesIO(data), mode="r") as container:
            return next(container.decode(video=0))
    except (av.FFmpegError, StopIteration, IndexError) as exc:
        raise PictureError(f"IMAGE: {path} is not a readable image; use a JPEG or PNG file") from exc


def _upright(frame: av.VideoFrame) -> av.VideoFrame:
    """Turned as the camera says (EXIF): a JPEG that is written anew has no such note."""
    turns = {90: ["cclock"], -90: ["clock"], 180: ["clock", "clock"], -180: ["clock", "clock"]}.get(frame.rotation, [])
    if not turns:
        return frame
    graph = av.filter.Graph()
    steps = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1))]
    steps += [graph.add("transpose", f"dir={turn}") for turn in turns]
    graph.link_nodes(*steps, graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


def _as_jpeg(frame: av.VideoFrame, most_side: int) -> bytes:
    shrink = min(1.0, most_side / max(frame.width, frame.height))
    width, height = (max(2, int(side * shrink) // 2 * 2) for side in (frame.width, frame.height))
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base, encoder.options = Fraction(1, 1), {"qmin": "2", "qmax": "4"}
    scaled = frame.reformat(width=width, height=height, format="yuvj420p")
    scaled.pts = None
    return b"".join(bytes(packet) for packet in [*encoder.encode(scaled), *encoder.encode(None)])
