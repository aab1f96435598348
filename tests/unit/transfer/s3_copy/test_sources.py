"""Test failing sources, and the limits of a copy: bytes, time, disk, memory."""

import resource
import socket
import tracemalloc
from typing import Any

import pytest
from kling_relay.transfer import fetch
from kling_relay.transfer import s3_copy as archive_module
from kling_relay.transfer.s3_copy import ArchiveError, archive

from tests.support.loopback_servers import S3Sink, box, respond
from tests.support.timed_servers import Deadlines, SlowServer, byte_by_byte
from tests.unit.transfer.s3_copy.copies import STORED, VIDEO, Source, copy, failure

pytestmark = pytest.mark.enable_socket


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_expired_source(status: int, s3: Any, sink: S3Sink, origin: str) -> None:
    assert failure(s3, origin, f"/status/{status}") == "source_expired"
    assert sink.puts == []


def test_a_source_that_wants_a_key(s3: Any, sink: S3Sink, origin: str) -> None:
    assert failure(s3, origin, "/status/401") == "source_unauthorized"
    assert failure(s3, origin, "/status/401", authorization=lambda: "") == "source_unauthorized"
    assert failure(s3, origin, "/status/401", authorization=lambda: "Bearer wrong") == "source_unauthorized"
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
        archive(s3, bucket="videos", key="k", url=url, max_bytes=100, deadline_seconds=60)
    assert sink.puts == []


@pytest.mark.parametrize("path", ["/whole", "/chunks", "/close"])
def test_a_video_over_the_limit(path: str, s3: Any, sink: S3Sink, origin: str) -> None:
    assert failure(s3, origin, path, max_bytes=len(VIDEO) - 1) == "too_large"
    assert sink.visible() == {}
    assert copy(s3, origin, path, max_bytes=len(VIDEO)) == STORED


@pytest.mark.parametrize("length", [True, False])
def test_a_source_that_drips_is_left(
    length: bool, s3: Any, sink: S3Sink, source: Source, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines = Deadlines()
    monkeypatch.setattr(fetch, "Deadline", deadlines)
    slow = SlowServer(lambda: deadlines.let_pass(0))
    head = b"HTTP/1.1 200 OK\r\n%b\r\n" % (b"Content-Length: %d\r\n" % len(VIDEO) if length else b"")
    source.extra["drip"] = slow.handler(lambda path: byte_by_byte(head + VIDEO[:2000], VIDEO[2000:2500]))
    assert failure(s3, origin, "/drip", deadline_seconds=300) == "source_unreachable"
    assert slow.was_left() and deadlines.asked == [300]
    assert sink.visible() == {}


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
    head, tail, filling = box(b"ftyp", b"isom\0\0\2\0"), box(b"moov", b"m"), bytes(1 << 20)

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
