"""Test the walk over an MP4's boxes: whole files pass in pieces of any size, all other files fail."""

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kling_relay.media.mp4 import BoxWalk, InvalidVideoError

from tests.support.loopback_servers import box, edges, mp4

FTYP = box(b"ftyp", b"isom\0\0\2\0")
MOOV = box(b"moov", box(b"mvhd"))
VIDEO = mp4(600)
FILES = Path(__file__).resolve().parents[2] / "fixtures" / "videos"


def walk(data: bytes, length: int | None = None, piece: int = 1 << 20, open_end: bool = True) -> bool:
    """Whether the file names a video track."""
    walker = BoxWalk(len(data) if length is None else length, open_end=open_end)
    for at in range(0, len(data), piece):
        walker.feed(data[at : at + piece])
    walker.finish()
    return walker.has_video_track


@pytest.mark.parametrize("piece", [1, 2, 7, 8, 9, 16, 100, 10_000])
@pytest.mark.parametrize(
    "data",
    [
        VIDEO,
        FTYP + box(b"mdat", b"x") + MOOV,
        FTYP + box(b"moov", b"m") + box(b"mdat", b"pictures", to_end=True),
        FTYP + box(b"moov", b"m", long=True) + box(b"mdat", b"x" * 20, long=True) + box(b"udta") + box(b"\xa9nam"),
        FTYP + MOOV + box(b"moof") + box(b"mdat") + box(b"moof") + box(b"mdat", b"pictures", to_end=True),
        FTYP + box(b"mdat") + box(b"moov") + MOOV + box(b"mdat", b"x"),
    ],
)
def test_whole_files_pass(data: bytes, piece: int) -> None:
    walk(data, piece=piece)


@pytest.mark.parametrize("piece", [1, 10_000])
@pytest.mark.parametrize("name", sorted(path.name for path in FILES.iterdir()))
def test_shapes_that_renderers_write(name: str, piece: int) -> None:
    """Self-made files, whole by their boxes."""
    walk((FILES / name).read_bytes(), piece=piece)


@pytest.mark.parametrize("piece", [1, 3, 8, 10_000])
@pytest.mark.parametrize("zeros", [1, 4, 7, 8, 9, 16, 5000])
def test_zeros_after_the_last_box_are_padding(zeros: int, piece: int) -> None:
    walk(VIDEO + bytes(zeros), piece=piece)
    for unfinished in (FTYP + MOOV, FTYP + box(b"mdat", b"x")):
        with pytest.raises(InvalidVideoError):
            walk(unfinished + bytes(zeros + 1), piece=piece)
    for junk in (b"x", bytes(zeros) + b"x", bytes(zeros) + box(b"free", b"x")):
        with pytest.raises(InvalidVideoError):
            walk(VIDEO + bytes(zeros) + junk, piece=piece)


@pytest.mark.parametrize("length_is_right", [True, False])
def test_no_beginning_of_a_file_passes(length_is_right: bool) -> None:
    for cut in range(len(VIDEO)):
        with pytest.raises(InvalidVideoError):
            walk(VIDEO[:cut], length=cut if length_is_right else len(VIDEO), piece=64)


def test_a_cut_at_a_box_edge_is_called_truncated() -> None:
    for cut in edges(VIDEO)[1:-1]:
        with pytest.raises(InvalidVideoError, match="truncated"):
            walk(VIDEO[:cut])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<!DOCTYPE html><html><body>Not found</body></html>",
        b'{"code":1,"message":"expired"}',
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        b"\xff\xd8\xff\xe0" + bytes(50),
        b"GIF89a" + bytes(50),
        b"RIFF\x10\0\0\0WEBPVP8 " + bytes(40),
        b"RIFF\x10\0\0\0AVI LIST" + bytes(40),
        b"\x1aE\xdf\xa3" + bytes(50),
        b"\x1f\x8b\x08" + bytes(50),
        b"PK\x03\x04" + bytes(50),
        b"%PDF-1.7\n" + bytes(50),
        b"#EXTM3U\n#EXT-X-VERSION:3\n",
        b"G" + bytes(187),
        b"OggS" + bytes(50),
        bytes(64),
        b"\xff" * 64,
        VIDEO[1:],
        b"\n" + VIDEO,
        box(b"moov") + FTYP + box(b"mdat"),
        box(b"ftyp", b"isom") + box(b"moov") + box(b"mdat"),
        FTYP + box(b"moov") + b"\0\0\0\7mdat",
        FTYP + box(b"moov") + b"\0\0\0\1mdat" + (15).to_bytes(8),
        FTYP + box(b"moov") + b"\0\0\0\1mdat" + (0).to_bytes(8),
        FTYP + box(b"moov") + box(b"mdat") + bytes(16),
    ],
)
def test_other_files_are_not_a_video(data: bytes) -> None:
    with pytest.raises(InvalidVideoError, match="not_a_video"):
        walk(data)


@pytest.mark.parametrize(
    "data",
    [
        FTYP + MOOV + box(b"free"),
        FTYP + box(b"mdat") + box(b"free"),
        VIDEO + b"\0\0\1",
        VIDEO + (100).to_bytes(4) + b"free",
        FTYP + box(b"moov") + b"\0\0\0\1mdat" + (1 << 63).to_bytes(8),
        box(b"ftyp", b"isom\0\0\2\0", to_end=True) + box(b"moov") + box(b"mdat"),
    ],
)
def test_files_whose_boxes_do_not_add_up_are_truncated(data: bytes) -> None:
    with pytest.raises(InvalidVideoError, match="truncated"):
        walk(data)


def test_an_error_page_fails_on_its_first_bytes() -> None:
    with pytest.raises(InvalidVideoError, match="not_a_video"):
        BoxWalk(1 << 40).feed(b"<html><h")


def test_more_bytes_than_announced_fail() -> None:
    with pytest.raises(InvalidVideoError, match="not_a_video"):
        walk(VIDEO + b"x", length=len(VIDEO))


def test_a_box_to_the_end_proves_nothing_without_a_known_end() -> None:
    data = FTYP + MOOV + box(b"mdat", b"pictures", to_end=True)
    with pytest.raises(InvalidVideoError, match="truncated"):
        walk(data, open_end=False)


EMPTY_INDEX = {"empty": box(b"moov"), "empty, long": box(b"moov", long=True)}
EMPTY_PICTURES = {
    "empty": box(b"mdat"),
    "empty, long": box(b"mdat", long=True),
    "empty fragments": (box(b"moof", b"x") + box(b"mdat")) * 2,
    "empty to the end": box(b"mdat", to_end=True),
}


@pytest.mark.parametrize("piece", [1, 8, 10_000])
@pytest.mark.parametrize("index", [MOOV, *EMPTY_INDEX.values()], ids=["full", *EMPTY_INDEX])
@pytest.mark.parametrize("pictures", [box(b"mdat", b"x"), *EMPTY_PICTURES.values()], ids=["full", *EMPTY_PICTURES])
def test_an_index_or_pictures_that_hold_nothing_are_missing(index: bytes, pictures: bytes, piece: int) -> None:
    """Guess: no capture shows such a file. A store that makes room for an upload before it comes would send one."""
    if index is MOOV and pictures == box(b"mdat", b"x"):
        walk(FTYP + index + pictures, piece=piece)
        return
    with pytest.raises(InvalidVideoError, match="truncated"):
        walk(FTYP + index + pictures, piece=piece)


def track(handler: bytes, *, before: bytes = b"", long: bool = False) -> bytes:
    """A `trak` as ISO/IEC 14496-12 nests it: the handler type is 8 bytes into `hdlr`."""
    hdlr = box(b"hdlr", bytes(8) + handler + bytes(12) + b"name\0", long=long)
    return box(b"trak", box(b"tkhd", bytes(84)) + before + box(b"mdia", box(b"mdhd", bytes(24)) + hdlr, long=long))


SOUND, PICTURES = track(b"soun"), track(b"vide")
ODD_SIZE = (3).to_bytes(4) + b"free"


@pytest.mark.parametrize("piece", [1, 2, 7, 8, 13, 20, 10_000])
@pytest.mark.parametrize(
    ("index", "found"),
    [
        (PICTURES, True),
        (box(b"mvhd", bytes(100)) + SOUND + PICTURES, True),
        (PICTURES + SOUND, True),
        (track(b"vide", before=box(b"edts", b"vide" * 10)), True),
        (track(b"vide", long=True), True),
        (box(b"free", b"x" * 30, long=True) + PICTURES, True),
        (SOUND, False),
        (box(b"mvhd", bytes(100)), False),
        (box(b"udta", PICTURES), False),  # a copy of a track's bytes inside of something else is none
        (box(b"mvhd", b"vide" + box(b"hdlr", bytes(8) + b"vide")), False),
        (b"m" * 200, False),
        (bytes(200), False),
        (ODD_SIZE + PICTURES, False),
        (box(b"free", to_end=True) + PICTURES, False),
        (box(b"trak", box(b"mdia", box(b"hdlr", bytes(4)))), False),
        (PICTURES[:60], False),
        (b"\0\0\0\1free" + (1 << 63).to_bytes(8) + PICTURES, False),
    ],
)
def test_a_video_track_is_found_and_its_want_refuses_nothing(index: bytes, found: bool, piece: int) -> None:
    pictures = box(b"mdat", b"x" * 30)
    for data in (FTYP + box(b"moov", index) + pictures, FTYP + pictures + box(b"moov", index, long=True)):
        assert walk(data, piece=piece) is found
    assert walk(FTYP + box(b"free", index) + MOOV + pictures, piece=piece) is False
    assert walk(FTYP + box(b"moov", index) + pictures + box(b"moov", SOUND), piece=piece) is found


def test_a_large_index_is_not_kept() -> None:
    index = box(b"trak", box(b"stbl", bytes(8 << 20))) + PICTURES
    data = FTYP + box(b"moov", index) + box(b"mdat", b"x")
    walker = BoxWalk(len(data))
    tracemalloc.start()
    try:
        for at in range(0, len(data), 1 << 16):
            walker.feed(data[at : at + (1 << 16)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    walker.finish()
    assert walker.has_video_track and peak < 1 << 19


KINDS = st.sampled_from([b"moov", b"mdat", b"free", b"uuid"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(KINDS, st.binary(max_size=40), st.booleans()), max_size=8), st.integers(1, 70))
def test_any_boxes_in_any_pieces(parts: list[tuple[bytes, bytes, bool]], piece: int) -> None:
    video = FTYP + b"".join(box(kind, payload, long=long) for kind, payload, long in parts)
    if {b"moov", b"mdat"} <= {kind for kind, payload, _ in parts if payload}:
        walk(video, piece=piece)
    else:
        with pytest.raises(InvalidVideoError, match="truncated"):
            walk(video, piece=piece)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_arbitrary_bytes_never_pass_and_never_crash(junk: bytes, piece: int) -> None:
    for data in (junk, FTYP + junk):
        with pytest.raises(InvalidVideoError):
            walk(data, piece=piece)
