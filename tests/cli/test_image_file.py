"""kling_relay_cli/image_file.py: any photo as Kling takes it."""

import base64
import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import pytest

from kling_relay_cli import image_file

EXIF_RIGHT_TOP = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x0112, 3, 1, 6, 0)
"""The camera's note that the picture has to be turned clockwise by a quarter."""


def jpeg(width: int, height: int, *, turned: bool = False) -> bytes:
    graph = av.filter.Graph()
    start, end = graph.add("mandelbrot", f"s={width}x{height}"), graph.add("buffersink")
    start.link_to(end)
    graph.configure()
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "yuvj420p", Fraction(1, 1)
    encoder.options = {"qmin": "1", "qmax": "1"}
    frame = end.pull().reformat(format="yuvj420p")
    frame.pts = None
    data = b"".join(bytes(one) for one in [*encoder.encode(frame), *encoder.encode(None)])
    note = b"\xff\xe1" + struct.pack(">H", len(EXIF_RIGHT_TOP) + 2) + EXIF_RIGHT_TOP
    return data[:2] + note + data[2:] if turned else data


def sent(path: Path) -> bytes:
    data = base64.b64decode(image_file.as_base64(path))
    assert len(data) <= 3_500_000
    return data


def sides(data: bytes) -> tuple[int, int]:
    with av.open(io.BytesIO(data)) as container:
        frame = next(container.decode(video=0))
        return frame.width, frame.height


def test_what_kling_takes_is_sent_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(640, 480, turned=True))
    assert sent(path) == path.read_bytes()


def test_what_is_too_large_is_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(2600, 1300))
    monkeypatch.setattr(image_file, "_MAX_BYTES", len(path.read_bytes()) - 1)
    assert sides(sent(path)) == (2048, 1024)
    monkeypatch.setattr(image_file, "_MAX_BYTES", 40_000)
    smaller = base64.b64decode(image_file.as_base64(path))
    assert len(smaller) <= 40_000 and sides(smaller) in ((1280, 640), (640, 320), (320, 160))


def test_a_photo_that_is_written_anew_stays_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "portrait.jpg"
    path.write_bytes(jpeg(800, 600, turned=True))
    monkeypatch.setattr(image_file, "_MAX_BYTES", len(path.read_bytes()) - 1)
    monkeypatch.setattr(image_file, "_SIDES", (400,))
    assert sides(sent(path)) == (300, 400)
    with av.open(io.BytesIO(path.read_bytes())) as container:
        before = next(container.decode(video=0)).reformat(width=80, height=60, format="gray")
    with av.open(io.BytesIO(sent(path))) as container:
        after = next(container.decode(video=0)).reformat(width=60, height=80, format="gray")
    old, new = (
        [bytes(one.planes[0])[y * one.planes[0].line_size :][: one.width] for y in range(one.height)]
        for one in (before, after)
    )
    clockwise = [bytes(old[59 - x][y] for x in range(60)) for y in range(80)]
    wrong = [row[::-1] for row in reversed(clockwise)]

    def difference(rows: list[bytes]) -> int:
        return sum(abs(a - b) for row, ours in zip(rows, new, strict=True) for a, b in zip(row, ours, strict=True))

    assert difference(clockwise) * 3 < difference(wrong)


@pytest.mark.parametrize("data", [b"", b"no picture at all", b"GIF89a"])
def test_no_picture(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    with pytest.raises(image_file.PictureError, match="not a readable image"):
        image_file.as_base64(path)
