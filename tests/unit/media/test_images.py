"""Test the reading of image headers: real structures, broken ones, and any bytes."""

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kling_relay.media.images import MAX_BYTES, ImageError, ImageHeader, UnfinishedError, check, read_header

from tests.support.image_files import jpeg, png, segment


def encoded(codec: str, width: int, height: int) -> bytes:
    """A picture from a real encoder."""
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as container:
        stream = container.add_stream(codec, rate=Fraction(1))
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "rgb24"
        for packet in [*stream.encode(av.VideoFrame(width, height, stream.pix_fmt)), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize(("codec", "name"), [("mjpeg", "jpeg"), ("png", "png")])
def test_files_of_a_real_encoder(codec: str, name: str) -> None:
    assert check(encoded(codec, 640, 360)) == ImageHeader(name, 640, 360)


# Self-made files. Pillow, ffmpeg and libpng open every one that is not in CUT or OTHER. That Kling opens a JPEG with
# stray bytes is a guess from libjpeg, which skips them.
FILES = Path(__file__).resolve().parents[2] / "fixtures" / "images"
CUT = {"cut-before-end.jpg", "cut-before-iend.png", "cut-half.jpg", "cut-half.png", "header-only.png"}
OTHER = {"gif-named.jpg": "GIF", "webp-named.png": "WebP"}


@pytest.mark.parametrize("name", sorted(path.name for path in FILES.iterdir()))
def test_files_that_people_send(name: str) -> None:
    data = (FILES / name).read_bytes()
    if name in CUT:
        with pytest.raises(UnfinishedError, match=r"image \(got one without its end\)"):
            check(data)
    elif name in OTHER:
        with pytest.raises(ImageError, match=rf"must be a JPEG or PNG image \(got {OTHER[name]}\)"):
            check(data)
    else:
        header = check(data)
        assert header.width in (320, 400) and header.height == 320
        assert header.format == {"png": "png", "jpg": "jpeg"}[name[-3:]]


@pytest.mark.parametrize("name", ["whole.jpg", "progressive.jpg", "whole.png", "animated.png"])
def test_no_cut_of_a_picture_is_whole(name: str) -> None:
    data = (FILES / name).read_bytes()
    for length in [*range(2, len(data) - 8, 97), *range(len(data) - 8, len(data))]:
        with pytest.raises(ImageError):
            check(data[:length])
    assert check(data + b"\xff\xd8" + bytes(50)) == check(data)


def test_restart_markers_are_no_segments() -> None:
    picture = jpeg().replace(b"\x55" * 64, (b"\x55\xff\x00" + b"\xff\xd0") * 20_000)
    assert check(picture).width == 640


def test_the_end_inside_a_table_between_scans_is_no_end() -> None:
    start = jpeg()[:-2] + segment(0xC4, b"\xff\xd9" * 9) + segment(0xDA, b"\1\1\0\0\x3f\0") + b"\x55" * 9
    with pytest.raises(UnfinishedError):
        check(start)
    assert check(start + b"\xff\xd9").width == 640


def test_a_png_without_pixels_is_cut_off() -> None:
    whole = png()
    pixels = whole.index(b"IDAT") - 4
    with pytest.raises(UnfinishedError):
        check(whole[:pixels] + whole[whole.index(b"IEND") - 4 :])


THUMBNAIL = jpeg(160, 120)  # with a frame header of its own, which must not be taken for the picture's


@pytest.mark.parametrize(
    "picture",
    [
        *(jpeg(800, 600, frame=frame) for frame in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)),  # baseline, progressive, arithmetic
        jpeg(800, 600, before=segment(0xE1, b"Exif\0\0MM\0*" + THUMBNAIL)),
        jpeg(800, 600, before=segment(0xE1, bytes(65_000)) + segment(0xE2, bytes(65_000)) + segment(0xFE, b"")),
        jpeg(800, 600, before=b"\xff\xff\xff" + b"\xff\x01" + b"\xff\xd0"),  # fill bytes and bare markers
        jpeg(800, 600) + b"PK\3\4 <script>",
        png(800, 600),
        png(800, 600) + jpeg(10, 10),
    ],
)
def test_sides_are_found(picture: bytes) -> None:
    header = check(picture)
    assert (header.width, header.height) == (800, 600)
    assert header.extension == ("png" if picture.startswith(b"\x89") else "jpg")


@pytest.mark.parametrize(
    ("width", "height", "limit"),
    [
        (300, 300, ""),
        (299, 300, r"at least 300 px \(got 299x300\)"),
        (300, 299, "at least 300 px"),
        (0, 0, "at least 300 px"),
        (750, 300, ""),
        (300, 750, ""),
        (751, 300, r"between 1:2.5 and 2.5:1 \(got 751x300\)"),
        (300, 751, "between 1:2.5"),
        (50_000, 50_000, ""),  # Kling names no upper limit, and nothing here decodes a pixel
    ],
)
@pytest.mark.parametrize("make", [jpeg, png])
def test_rules_for_the_sides(make, width: int, height: int, limit: str) -> None:
    picture = make(width, height)
    if limit:
        with pytest.raises(ImageError, match=limit):
            check(picture)
    else:
        assert check(picture).width == width


def test_ten_megabytes_and_no_more() -> None:
    at_most = png(padding=MAX_BYTES - len(png(padding=1)) + 1)
    assert len(at_most) == MAX_BYTES
    assert check(at_most).width == 640
    with pytest.raises(ImageError, match=r"at most 10 MB, 10485760 bytes \(got 10485761\)"):
        check(at_most + b"\0")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        png()[:23],
        png().replace(b"IHDR", b"CgBI", 1),
        b"GIF89a" + bytes(40),
        b"RIFF\0\0\0\0WEBPVP8 " + bytes(40),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7 " + png(),
        b" " + jpeg(),
        b"\xff\xd8\xff\xd9" + jpeg(),  # an end, and only then a picture
        b"\xff\xd8" + segment(0xDA, bytes(6)) + segment(0xC0, struct.pack(">BHHB", 8, 600, 800, 1)),  # pixels first
        b"\xff\xd8" + segment(0xC4, struct.pack(">BHHB", 8, 600, 800, 1)) * 3,  # tables only
        b"\xff\xd8" + b"\xff\xe0\0\0" * 20,  # lengths that cannot be
    ],
)
def test_no_picture(data: bytes) -> None:
    with pytest.raises(ImageError):
        read_header(data)


@pytest.mark.parametrize("picture", [jpeg(800, 600, before=segment(0xE1, bytes(300))), png(800, 600)])
def test_no_cut_before_the_sides_is_accepted(picture: bytes) -> None:
    sides = 24 if picture.startswith(b"\x89") else picture.index(b"\xff\xc0") + 9
    for end in range(sides):
        with pytest.raises(ImageError):
            read_header(picture[:end])
    assert read_header(picture[:sides]).width == 800


@pytest.mark.parametrize("filler", [b"\xff", b"\xff\xe0\0\0", b"\xff\x01"])
def test_a_file_made_to_keep_us_busy(filler: bytes) -> None:
    class Counted(bytes):
        reads = 0

        def __getitem__(self, place: Any) -> Any:
            Counted.reads += 1
            return super().__getitem__(place)

    with pytest.raises(ImageError):
        check(Counted(b"\xff\xd8\xff" + filler * (4_000_000 // len(filler))))
    assert Counted.reads < 50_000


SIGNATURES = st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", jpeg()[:60]])


@settings(deadline=None, max_examples=300)
@given(SIGNATURES, st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_an_image_error(start: bytes, rest: bytes) -> None:
    try:
        header = check(start + rest)
    except ImageError as error:
        assert str(error)
    else:
        assert min(header.width, header.height) >= 300
