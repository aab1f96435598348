"""Test that whole videos are stored, and that no byte of others becomes visible."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.loopback_servers import S3Sink, box, respond
from tests.unit.transfer.s3_copy.copies import EDGES, NEAR_EDGES, STORED, VIDEO, Source, copy, failure, keys

pytestmark = pytest.mark.enable_socket


@pytest.mark.parametrize("path", ["/whole", "/chunks", "/close"])
def test_a_whole_video_is_stored(path: str, moto_s3: Any, origin: str) -> None:
    assert copy(moto_s3, origin, path) == STORED
    answer = moto_s3.get_object(Bucket="videos", Key="t1/0.mp4")
    assert answer["Body"].read() == VIDEO
    assert answer["ContentType"] == "video/mp4"


def test_the_put_is_plain_and_conditional(s3: Any, sink: S3Sink, origin: str) -> None:
    assert copy(s3, origin) == STORED
    (put,) = sink.puts
    assert put["content-length"] == str(len(VIDEO))
    assert put["content-type"] == "video/mp4"
    assert put["if-none-match"] == "*"
    assert put["x-amz-content-sha256"] == "unsigned-payload"
    assert not {"transfer-encoding", "x-amz-trailer", "x-amz-sdk-checksum-algorithm"} & set(put)
    assert sink.visible() == {"t1/0.mp4": VIDEO}


def test_a_box_to_the_end_needs_a_length(s3: Any, sink: S3Sink, source: Source, origin: str) -> None:
    video = box(b"ftyp", b"isom\0\0\2\0") + box(b"moov", b"m") + box(b"mdat", b"pictures", to_end=True)
    source.extra["open"] = lambda connection, path, headers: respond(connection, video, length=path == "/open/length")
    assert failure(s3, origin, "/open/close") == "truncated"
    assert sink.visible() == {}
    assert copy(s3, origin, "/open/length").size == len(video)


# Files that are not whole


@pytest.mark.parametrize("kind", ["cut", "lost", "close"])
@pytest.mark.parametrize("offset", NEAR_EDGES)
def test_no_part_of_a_video_becomes_visible(kind: str, offset: int, s3: Any, sink: S3Sink, origin: str) -> None:
    reason = failure(s3, origin, f"/{kind}/{offset}")
    assert reason in (("truncated", "not_a_video") if offset < EDGES[1] else ("truncated",))
    assert sink.visible() == {}


@pytest.mark.parametrize("kind", ["cut", "lost", "close"])
@pytest.mark.parametrize("offset", EDGES[1:-1])
def test_moto_shows_no_part_of_a_video(kind: str, offset: int, moto_s3: Any, origin: str) -> None:
    assert failure(moto_s3, origin, f"/{kind}/{offset}") == "truncated"
    assert keys(moto_s3) == []


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.integers(1, len(VIDEO) - 1), kind=st.sampled_from(["cut", "lost"]))
def test_no_cut_anywhere_becomes_visible(s3: Any, sink: S3Sink, origin: str, offset: int, kind: str) -> None:
    assert failure(s3, origin, f"/{kind}/{offset}") in ("truncated", "not_a_video")
    assert sink.visible() == {}


PAGES = [
    b"<!DOCTYPE html><html><body>sorry</body></html>",
    b"<html>" + b" " * 5000,
    b'{"code":1200,"message":"no"}',
    b"[]",
    b"null",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    b"Not Found",
    b"\n",
    b"\0",
    bytes(5000),
    b"\xff" * 5000,
    b"\x89PNG\r\n\x1a\n" + bytes(5000),
    b"\xff\xd8\xff\xe0" + bytes(5000),
    b"GIF89a" + bytes(500),
    b"RIFF\0\0\0\0WEBP" + bytes(99),
    b"\x1aE\xdf\xa3" + bytes(5000),
    b"\x1f\x8b\x08" + bytes(5000),
    b"PK\x03\x04" + bytes(500),
    b"%PDF-1.7",
    b"#EXTM3U\n",
    b"",
]


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_with_200_is_not_a_video(
    page: bytes, length: bool, s3: Any, sink: S3Sink, source: Source, origin: str
) -> None:
    source.extra["page"] = lambda connection, path, headers: respond(
        connection, page, length=length, Content_Type="video/mp4"
    )
    assert failure(s3, origin, "/page") == "not_a_video"
    assert sink.visible() == {}


def test_an_error_page_stops_on_its_first_bytes(s3: Any, sink: S3Sink, source: Source, origin: str) -> None:
    source.extra["page"] = lambda connection, path, headers: respond(connection, b"<html>" + b" " * 900_000)
    assert failure(s3, origin, "/page") == "not_a_video"
    assert sink.visible() == {}
    assert sink.received == [0]


def test_the_last_bytes_are_held_back(s3: Any, sink: S3Sink, origin: str) -> None:
    failure(s3, origin, f"/cut/{EDGES[-2]}")
    assert sink.visible() == {}
    assert sink.received[0] < EDGES[-2]


@pytest.mark.parametrize("handler", [b"vide", b"soun"])
def test_whether_there_is_a_video_track_is_told(
    handler: bytes, s3: Any, sink: S3Sink, source: Source, origin: str
) -> None:
    index = box(b"moov", box(b"trak", box(b"mdia", box(b"hdlr", bytes(8) + handler + bytes(12)))))
    video = box(b"ftyp", b"isom\0\0\2\0") + index + box(b"mdat", b"pictures")
    source.extra["track"] = lambda connection, path, headers: respond(connection, video)
    for _ in range(2):  # copied, and found
        assert copy(s3, origin, "/track").has_video_track is (handler == b"vide")
    assert sink.visible() == {"t1/0.mp4": video}
