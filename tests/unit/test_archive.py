"""The copy of a video into the bucket: whole or not at all, once, in bounded memory.

The source is a scripted server on loopback (as the operator's trusted origin); the bucket is moto's S3 in this process,
or a sink behind real HTTP that counts half a PUT as nothing, as S3 does, and can be told to misbehave.
"""

import hashlib
import resource
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kling_relay import archive as archive_module
from kling_relay.archive import ArchiveError, StoredVideo, archive, client_config
from moto import mock_aws

from tests.unit.loopback import Handler, S3Sink, box, drip, edges, mp4, respond, serve

pytestmark = pytest.mark.enable_socket

VIDEO = mp4(30_000)
STORED = StoredVideo("t1/0.mp4", len(VIDEO), hashlib.md5(VIDEO).hexdigest())
EDGES = edges(VIDEO)
NEAR_EDGES = sorted({at for edge in EDGES for at in range(edge - 1, edge + 9) if 0 < at < len(VIDEO)})


def client(port: int, config: Config | None = None) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=(config or client_config()).merge(
            Config(s3={"addressing_style": "path", "payload_signing_enabled": False})
        ),
    )


class Source:
    """Where the provider keeps the video: each path is one way of answering."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.extra: dict[str, Handler] = {}

    def __call__(self, connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        self.requests.append(path)
        kind, _, number = path.strip("/").partition("/")
        if kind in self.extra:
            self.extra[kind](connection, path, headers)
        elif kind == "whole":
            respond(connection, VIDEO)
        elif kind == "cut":  # a file that was cut before the source had it: its length is right
            respond(connection, VIDEO[: int(number)])
        elif kind == "lost":  # a connection that breaks
            respond(connection, VIDEO[: int(number)], length=False, Content_Length=str(len(VIDEO)))
        elif kind == "close":
            respond(connection, VIDEO[: int(number or len(VIDEO))], length=False)
        elif kind == "chunks":
            respond(connection, length=False, Transfer_Encoding="chunked")
            for at in range(0, len(VIDEO), 7000):
                piece = VIDEO[at : at + 7000]
                connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            connection.sendall(b"0\r\n\r\n")
        elif kind == "status":
            respond(connection, b"<Error>expired</Error>", status=int(number))


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def origin(source: Source) -> Iterator[str]:
    with serve(source) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def sink() -> S3Sink:
    return S3Sink()


@pytest.fixture
def s3(sink: S3Sink) -> Iterator[Any]:
    with serve(sink) as port:
        made = client(port)

        def count(**_: Any) -> None:
            sink.sent += 1

        made.meta.events.register("before-send.s3", count)
        yield made


@pytest.fixture
def moto_s3() -> Iterator[Any]:
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1", config=client_config())
        s3.create_bucket(Bucket="videos")
        yield s3


def copy(s3: Any, origin: str, path: str = "/whole", **more: Any) -> StoredVideo:
    limits = {"max_bytes": 1 << 20, "deadline_seconds": 10} | more
    return archive(s3, bucket="videos", key="t1/0.mp4", url=origin + path, trusted_origin=origin, **limits)


def failure(s3: Any, origin: str, path: str = "/whole", **more: Any) -> str:
    with pytest.raises(ArchiveError) as caught:
        copy(s3, origin, path, **more)
    assert str(caught.value) == caught.value.reason
    return caught.value.reason


def keys(s3: Any) -> list[str]:
    return [found["Key"] for found in s3.list_objects_v2(Bucket="videos").get("Contents", [])]


# Whole videos


@pytest.mark.parametrize("path", ["/whole", "/chunks", "/close"])
def test_a_whole_video_is_stored(path: str, moto_s3: Any, origin: str) -> None:
    assert copy(moto_s3, origin, path) == STORED
    answer = moto_s3.get_object(Bucket="videos", Key="t1/0.mp4")
    assert answer["Body"].read() == VIDEO
    assert answer["ContentType"] == "video/mp4"


def test_the_put_is_plain_and_conditional(s3: Any, sink: S3Sink, origin: str) -> None:
    assert copy(s3, origin, bucket_owner="123456789012") == STORED
    (put,) = sink.puts
    assert put["content-length"] == str(len(VIDEO))
    assert put["content-type"] == "video/mp4"
    assert put["if-none-match"] == "*"
    assert put["x-amz-content-sha256"] == "unsigned-payload"
    assert put["x-amz-expected-bucket-owner"] == "123456789012"
    assert not {"transfer-encoding", "x-amz-trailer", "x-amz-sdk-checksum-algorithm"} & set(put)
    assert sink.visible() == {"t1/0.mp4": VIDEO}


def test_a_box_to_the_end_needs_a_length(s3: Any, sink: S3Sink, source: Source, origin: str) -> None:
    video = box(b"ftyp", b"isom\0\0\2\0") + box(b"moov") + box(b"mdat", b"pictures", to_end=True)
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


# Sources that fail


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_expired_source(status: int, s3: Any, sink: S3Sink, origin: str) -> None:
    assert failure(s3, origin, f"/status/{status}") == "source_expired"
    assert sink.puts == []


@pytest.mark.parametrize("status", [206, 400, 429, 500, 503])
def test_a_source_in_trouble(status: int, s3: Any, sink: S3Sink, origin: str) -> None:
    assert failure(s3, origin, f"/status/{status}") == "source_unreachable"
    assert sink.puts == []


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/v.mp4", "https://127.0.0.1/v.mp4", "https://10.0.0.1/v", "ftp://x/v"]
)
def test_a_refused_address(url: str, s3: Any, sink: S3Sink) -> None:
    with pytest.raises(ArchiveError, match="refused_address"):
        archive(s3, bucket="videos", key="k", url=url, max_bytes=100, deadline_seconds=5)
    assert sink.puts == []


@pytest.mark.parametrize("path", ["/whole", "/chunks", "/close"])
def test_a_video_over_the_limit(path: str, s3: Any, sink: S3Sink, origin: str) -> None:
    assert failure(s3, origin, path, max_bytes=len(VIDEO) - 1) == "too_large"
    assert sink.visible() == {}
    assert copy(s3, origin, path, max_bytes=len(VIDEO)) == STORED


@pytest.mark.parametrize("length", [True, False])
def test_a_source_that_drips_ends_on_time(length: bool, s3: Any, sink: S3Sink, source: Source, origin: str) -> None:
    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        respond(connection, VIDEO[:2000], length=False, **({"Content_Length": str(len(VIDEO))} if length else {}))
        drip(connection, VIDEO[2000:])

    source.extra["drip"] = handler
    assert failure(s3, origin, "/drip", deadline_seconds=0.4) == "source_unreachable"
    assert sink.visible() == {}


# What S3 answers


def test_nothing_is_overwritten(moto_s3: Any, source: Source, origin: str) -> None:
    other = mp4(20_000)
    moto_s3.put_object(Bucket="videos", Key="t1/0.mp4", Body=other)
    kept = copy(moto_s3, origin)
    assert kept == StoredVideo("t1/0.mp4", len(other), hashlib.md5(other).hexdigest())
    assert moto_s3.get_object(Bucket="videos", Key="t1/0.mp4")["Body"].read() == other


def test_what_players_and_caches_are_told(moto_s3: Any, origin: str) -> None:
    copy(moto_s3, origin)
    told = moto_s3.head_object(Bucket="videos", Key="t1/0.mp4")
    assert (told["ContentType"], told["CacheControl"]) == ("video/mp4", "max-age=300")
    assert told["ContentDisposition"] == 'inline; filename="t1-0.mp4"'


def test_what_lies_at_the_key_has_to_be_whole(s3: Any, sink: S3Sink, origin: str) -> None:
    sink.objects["t1/0.mp4"] = VIDEO[:-1]
    assert failure(s3, origin) == "checksum"
    assert sink.visible() == {"t1/0.mp4": VIDEO[:-1]}
    assert sink.deleted == []


def test_two_copiers_at_once_store_one_video(s3: Any, sink: S3Sink, source: Source, origin: str) -> None:
    both_read = threading.Barrier(2, timeout=10)

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        respond(connection, VIDEO[:20_000], length=False, Content_Length=str(len(VIDEO)))
        both_read.wait()
        connection.sendall(VIDEO[20_000:])

    source.extra["both"] = handler
    with ThreadPoolExecutor(2) as pool:
        copies = list(pool.map(lambda _: copy(s3, origin, "/both"), range(2)))
    assert copies == [STORED, STORED]
    assert sink.visible() == {"t1/0.mp4": VIDEO}
    assert sink.received == [len(VIDEO)] * 2


def test_a_put_whose_answer_is_lost_is_found(s3: Any, sink: S3Sink, origin: str) -> None:
    sink.lose_answer = True
    assert copy(s3, origin) == STORED
    assert len(sink.puts) == 1


def test_a_stored_video_outlives_its_source(s3: Any, sink: S3Sink, origin: str) -> None:
    sink.objects["t1/0.mp4"] = VIDEO
    assert copy(s3, origin, "/status/403") == STORED


@pytest.mark.parametrize("status", [403, 500, 503])
def test_storage_that_refuses(status: int, s3: Any, sink: S3Sink, source: Source, origin: str) -> None:
    sink.refuse = status
    assert failure(s3, origin) == "storage"
    assert len(sink.puts) == 1
    sink.refuse = None
    assert copy(s3, origin) == STORED


def test_storage_that_is_away(origin: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert failure(client(unused.getsockname()[1]), origin) == "storage"


def test_an_etag_that_is_no_md5_is_settled_by_reading_back(s3: Any, sink: S3Sink, origin: str) -> None:
    sink.etag = "kms-etag"
    assert copy(s3, origin) == STORED
    assert sink.deleted == []


def test_a_different_object_is_deleted_by_its_version(s3: Any, sink: S3Sink, origin: str) -> None:
    sink.etag, sink.corrupt = "kms-etag", True
    assert failure(s3, origin) == "checksum"
    assert len(sink.deleted) == 1
    assert sink.deleted[0].startswith("t1/0.mp4?")
    assert "versionId=v1" in sink.deleted[0]
    assert sink.visible() == {}


def test_a_delete_is_tried_again(s3: Any, sink: S3Sink, origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sink.etag, sink.corrupt = "kms-etag", True
    genuine, tries = s3.delete_object, []

    def flaky(**target: str) -> Any:
        tries.append(target)
        if len(tries) < 3:
            raise ClientError(
                {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "DeleteObject"
            )
        return genuine(**target)

    monkeypatch.setattr(s3, "delete_object", flaky)
    assert failure(s3, origin) == "checksum"
    assert sink.visible() == {}


def test_nothing_is_deleted_that_could_not_be_read(
    s3: Any, sink: S3Sink, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.etag = "kms-etag"

    def denied(**target: str) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "GetObject")

    monkeypatch.setattr(s3, "get_object", denied)
    assert failure(s3, origin) == "storage"
    assert sink.visible() == {"t1/0.mp4": VIDEO}
    assert sink.deleted == []


def test_a_version_that_we_wrote_is_deleted_and_no_other(moto_s3: Any, origin: str) -> None:
    moto_s3.put_bucket_versioning(Bucket="videos", VersioningConfiguration={"Status": "Enabled"})
    other, ours = boto3.client("s3", region_name="us-east-1"), []

    def spoil(parsed: dict[str, Any], **_: Any) -> None:
        ours.append(parsed["VersionId"])
        parsed["ETag"] = '"other"'
        other.put_object(Bucket="videos", Key="t1/0.mp4", Body=mp4(5000))  # somebody else's, and newer

    moto_s3.meta.events.register("after-call.s3.PutObject", spoil)
    moto_s3.meta.events.register("after-call.s3.GetObject", lambda parsed, **_: parsed.update(ContentLength=100))
    assert failure(moto_s3, origin) == "checksum"
    left = other.list_object_versions(Bucket="videos")
    assert len(left["Versions"]) == 1
    assert left["Versions"][0]["VersionId"] != ours[0]
    assert "DeleteMarkers" not in left


def test_a_put_answered_before_its_end_is_not_believed(
    s3: Any, sink: S3Sink, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "put_object", lambda **call: {"VersionId": "v7"})
    monkeypatch.setattr(
        s3,
        "get_object",
        lambda **call: (_ for _ in ()).throw(
            ClientError({"Error": {"Code": "NoSuchKey"}, "ResponseMetadata": {"HTTPStatusCode": 404}}, "GetObject")
        ),
    )
    assert failure(s3, origin) == "storage"


# Disk, limits, memory


def test_no_room_for_the_spool(s3: Any, sink: S3Sink, origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive_module.tempfile, "TemporaryFile", Full)
    assert failure(s3, origin, "/chunks") == "storage"
    assert sink.puts == []


@pytest.mark.parametrize("max_bytes", [0, -1, 5 * 1024**3 + 1])
def test_limits_that_cannot_be(max_bytes: int) -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        archive(None, bucket="b", key="k", url="https://x.example/", max_bytes=max_bytes, deadline_seconds=1)


@pytest.mark.parametrize("length", [True, False])
def test_memory_stays_flat(length: bool, sink: S3Sink, s3: Any, source: Source, origin: str) -> None:
    sink.keep = False
    megabytes = 200
    head, tail, filling = box(b"ftyp", b"isom\0\0\2\0"), box(b"moov"), bytes(1 << 20)

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        size = 16 + megabytes * len(filling)
        total = len(head) + size + len(tail)
        respond(connection, head, length=False, **({"Content_Length": str(total)} if length else {}))
        connection.sendall(b"\0\0\0\1mdat" + size.to_bytes(8))
        for _ in range(megabytes):
            connection.sendall(filling)
        connection.sendall(tail)

    source.extra["large"] = handler
    copy(s3, origin)  # warm: imports, endpoint rules
    sink.objects.clear()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        stored = copy(s3, origin, "/large", max_bytes=1 << 30, deadline_seconds=60)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stored.size > megabytes << 20
    assert peak < 12 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB
