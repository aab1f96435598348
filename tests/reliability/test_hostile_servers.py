"""Test hostile servers behind an image and behind a finished video: real sockets, real TLS, short deadlines.

The client hangs up at the deadline, before the limit of bytes, in bounded memory, and stores nothing in the bucket.
"""

import random
import resource
import socket
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from kling_relay.api import preflight
from kling_relay.transfer.s3_copy import ArchiveError, archive, client_config

from tests.reliability import hostile_servers
from tests.reliability.campaign import Campaign
from tests.reliability.hostile_servers import KINDS, hostile
from tests.reliability.internet import PUBLIC, Internet
from tests.support.loopback_servers import Authority, S3Sink, serve

pytestmark = pytest.mark.enable_socket

URL = "https://cdn.example.com/x"
DEADLINE = 0.3
IMAGE_BYTES, VIDEO_BYTES, OVER = 64 * 1024, 1 << 20, 1 << 16
MEMORY = 8 << 20  # bytes that Python holds at most for one fetch
RSS = 64 << 10  # KiB that the process grows by, over all of them


class Meter:
    """Bytes that came out of sockets, counted where http.client reads them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        readinto = socket.SocketIO.readinto

        def counted(file: socket.SocketIO, buffer: Any) -> int | None:
            got = readinto(file, buffer)
            if getattr(file._sock, "server_hostname", None):  # the hostile side, and not the bucket's
                self.bytes += got or 0
            return got

        monkeypatch.setattr(socket.SocketIO, "readinto", counted)


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    return Meter(monkeypatch)


@pytest.fixture
def sink() -> S3Sink:
    return S3Sink()


@pytest.fixture
def bucket(sink: S3Sink, internet: Internet) -> Iterator[Any]:
    with serve(sink) as port:
        internet.ours.add(port)
        path = {"addressing_style": "path", "payload_signing_enabled": False}
        config = client_config().merge(Config(s3=path, proxies={}))  # the environment's proxy would keep all out
        yield boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", config=config)


def copy_result(s3: Any) -> str:
    with pytest.raises(ArchiveError) as caught:
        archive(s3, bucket="videos", key="k.mp4", url=URL, max_bytes=VIDEO_BYTES, deadline_seconds=DEADLINE)
    return caught.value.reason


def test_hostile_servers(
    campaign: Campaign, internet: Internet, authority: Authority, meter: Meter, bucket: Any, sink: S3Sink
) -> None:
    longest = maximum = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def meet(case: tuple[str, str], dice: random.Random) -> None:
        nonlocal longest, maximum
        kind, what = case
        with hostile(kind, dice, authority) as port:
            internet.ports[PUBLIC[0]] = port
            internet.ours.add(port)
            internet.forget()
            hostile_servers.outlasted.clear()
            meter.bytes, began = 0, time.monotonic()
            tracemalloc.start()
            try:
                if what == "image":
                    preflight._probe(URL, began + DEADLINE)
                else:
                    copy_result(bucket)
                took, held = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        limit = (IMAGE_BYTES if what == "image" else VIDEO_BYTES) + OVER
        assert hostile_servers.outlasted == [], f"the server was not left in {took:.1f} s"
        assert all(0 < seconds <= DEADLINE for seconds in internet.patience), (
            f"{internet.connected}: {internet.patience}"
        )
        assert meter.bytes <= limit + 1, f"{meter.bytes} bytes"
        assert held < MEMORY, f"{held} bytes of memory"
        assert sink.objects == {}, "an object is visible"
        longest, maximum = max(longest, took), max(maximum, held)

    times = campaign.size(2, 20)
    campaign.run([(kind, what) for kind in KINDS * times for what in ("image", "video")], meet)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < RSS, f"{grown} KiB"
    campaign.figures["kinds"] = len(KINDS)
    campaign.figures["ms over the deadline at most"] = max(0, int((longest - DEADLINE) * 1000))
    campaign.figures["KiB held at most"] = int(maximum) >> 10
