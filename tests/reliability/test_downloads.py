"""Test a finished video on its way into the bucket: truncated, replaced, copied twice at once, or a death at each step.

The only object that ever becomes visible is the whole video.
"""

import hashlib
import io
import random
import socket
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from kling_relay.lifecycle import archive as archive_step
from kling_relay.tasks.task import Phase
from kling_relay.transfer import s3_copy
from kling_relay.transfer.fetch import Download
from kling_relay.transfer.s3_copy import ArchiveError, StoredVideo, archive, client_config
from moto.s3.models import S3Backend

from tests.reliability.campaign import Campaign
from tests.support import fake_provider
from tests.support.fake_cloud import MemoryCloud
from tests.support.loopback_servers import box, edges, mp4, respond, serve
from tests.support.stack_in_memory import Cloud, Crash, World

pytestmark = pytest.mark.enable_socket

VIDEO = mp4(30_000)
EDGES = edges(VIDEO)
KEY = "t1/0.mp4"
MD5 = hashlib.md5(VIDEO).hexdigest()
STORED = StoredVideo(KEY, len(VIDEO), MD5)
FTYP, MOOV = box(b"ftyp", b"isom\0\0\2\0"), box(b"moov", b"m" * 200)


def _zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archived:
        archived.writestr("video.mp4", VIDEO[:2000])
    return packed.getvalue()


WRONG: dict[str, bytes] = {
    "empty": b"",
    "HTML": b"<!DOCTYPE html><html><body>sorry</body></html>",
    "HTML, long": b"<html>" + b" " * 50_000,
    "JSON": b'{"code":1200,"message":"expired"}',
    "JSON list": b"[]",
    "XML": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "text": b"Not Found",
    "blank": b"\n",
    "zeros": bytes(5000),
    "ones": b"\xff" * 5000,
    "PNG": b"\x89PNG\r\n\x1a\n" + bytes(5000),
    "JPEG": b"\xff\xd8\xff\xe0" + bytes(5000),
    "GIF": b"GIF89a" + bytes(500),
    "WebP": b"RIFF\0\0\0\0WEBP" + bytes(99),
    "AVI": b"RIFF\0\0\0\0AVI LIST" + bytes(99),
    "Matroska": b"\x1aE\xdf\xa3" + bytes(5000),
    "MPEG-TS": (b"G" + bytes(187)) * 20,
    "Ogg": b"OggS" + bytes(500),
    "gzip": b"\x1f\x8b\x08" + bytes(5000),
    "zip": _zip(),
    "PDF": b"%PDF-1.7",
    "playlist": b"#EXTM3U\n",
    "MP4 without pictures": FTYP + MOOV + box(b"free", bytes(3000)),
    "MP4 without index": FTYP + box(b"mdat", bytes(3000)),
    "MP4 with an empty index": FTYP + box(b"moov") + box(b"mdat", bytes(3000)),
    "MP4 with room for pictures only": FTYP + MOOV + box(b"mdat"),
    "MP4 that begins late": b"\n" + VIDEO,
    "MP4 with a tail": VIDEO + b"<!-- served by -->",
    "MP4 whose last box is cut": VIDEO[:-1],
    "MP4 with a box too large": FTYP + MOOV + (5000).to_bytes(4) + b"mdat" + bytes(100),
    "MP4 with a box of nothing": FTYP + MOOV + b"\0\0\0\7mdat" + bytes(3000),
    "MP4 with its index first": MOOV + FTYP + box(b"mdat", bytes(3000)),
}


class Source:
    """Where the provider keeps the video. `body` and `framing` say how it answers: with the right length of what it
    sends ("length"), with the length of the whole ("lost"), in chunks, chunks that break off, or until it closes."""

    def __init__(self) -> None:
        self.body, self.framing, self.status = VIDEO, "length", 200

    def __call__(self, connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        body = self.body
        if self.framing in ("length", "close"):
            return respond(connection, body, status=self.status, length=self.framing == "length")
        if self.framing == "lost":
            return respond(connection, body, length=False, Content_Length=str(max(len(VIDEO), len(body) + 1)))
        respond(connection, length=False, Transfer_Encoding="chunked")
        for at in range(0, len(body), 7000):
            piece = body[at : at + 7000]
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        return connection.sendall(b"0\r\n\r\n" if self.framing == "chunks" else b"")


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def origin(source: Source) -> Iterator[str]:
    with serve(source) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def visible(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """Every object that becomes visible in moto's S3, at the moment that it does."""
    seen: list[tuple[str, bytes]] = []
    put = S3Backend.put_object

    def noted(backend: S3Backend, bucket: str, key: str, value: bytes, *args: Any, **more: Any) -> Any:
        done = put(backend, bucket, key, value, *args, **more)
        seen.append((key, value))
        return done

    monkeypatch.setattr(S3Backend, "put_object", noted)
    return seen


@pytest.fixture
def s3(cloud: Cloud) -> Iterator[Any]:
    made = boto3.client("s3", region_name="us-east-1", config=client_config())
    made.delete_object(Bucket="videos", Key=KEY)
    yield made
    made.delete_object(Bucket="videos", Key=KEY)


def copy(s3: Any, origin: str) -> StoredVideo:
    return archive(
        s3, bucket="videos", key=KEY, url=origin + "/v", max_bytes=1 << 20, deadline_seconds=10, trusted_origin=origin
    )


def _offsets(dice: random.Random, count: int) -> list[int]:
    """Where to cut: at, before and after every edge of a box, inside every header, and anywhere."""
    near = {at for edge in EDGES for at in (*range(edge - 2, edge + 17), edge + 100)}
    near |= {dice.randrange(1, len(VIDEO)) for _ in range(count)}
    return sorted(at for at in near if 0 <= at < len(VIDEO))


def test_cut_downloads(
    campaign: Campaign, s3: Any, source: Source, origin: str, visible: list[tuple[str, bytes]]
) -> None:
    offsets = _offsets(random.Random(str(campaign.name)), campaign.size(150, 3_000))
    framings = ["length", "lost", "close", "chunks", "broken chunks"]

    def cut(case: tuple[int, str], dice: random.Random) -> None:
        at, source.framing = case
        source.body = VIDEO[:at]
        with pytest.raises(ArchiveError) as caught:
            copy(s3, origin)
        assert caught.value.reason in ("truncated", "not_a_video"), caught.value.reason
        assert visible == [], f"{len(visible[0][1])} bytes became visible"

    cases = [(at, framing) for at in offsets for framing in framings if at in EDGES or framing == framings[at % 5]]
    campaign.run(cases, cut)
    assert len(offsets) >= 200 and set(EDGES[:-1]) <= set(offsets)
    campaign.figures["offsets"] = len(offsets)


def test_wrong_types(
    campaign: Campaign, s3: Any, source: Source, origin: str, visible: list[tuple[str, bytes]]
) -> None:
    def swap(case: tuple[str, str], dice: random.Random) -> None:
        name, source.framing = case
        source.body = WRONG[name]
        with pytest.raises(ArchiveError) as caught:
            copy(s3, origin)
        assert caught.value.reason in ("truncated", "not_a_video"), caught.value.reason
        assert visible == [], name

    campaign.run([(name, framing) for name in WRONG for framing in ("length", "close", "chunks", "lost")], swap)
    campaign.figures["types"] = len(WRONG)


class Steps:
    """Everything that a copier does, one step after the other; `at` the n-th something else happens first, or after."""

    def __init__(self) -> None:
        self.count, self.at, self.after = 0, 0, False
        self.then: Callable[[], object] = lambda: None

    def around(self, call: Callable[[], Any]) -> Any:
        self.count += 1
        here = self.count == self.at
        if here and not self.after:
            self.then()
        done = call()
        if here and self.after:
            self.then()
        return done


class _Stepping:
    def __init__(self, s3: Any, steps: Steps) -> None:
        self._s3, self._steps = s3, steps

    def __getattr__(self, name: str) -> Any:
        return lambda **call: self._steps.around(lambda: getattr(self._s3, name)(**call))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Small parts, and each of them a step."""
    made, read = Steps(), Download.read
    monkeypatch.setattr(s3_copy, "CHUNK", 4096)
    monkeypatch.setattr(Download, "read", lambda download, size=4096: made.around(lambda: read(download, size)))
    return made


def _die() -> None:
    raise Crash("the copier is gone")


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_death_or_a_second_copier_at_each_part(
    campaign: Campaign, s3: Any, source: Source, origin: str, visible: Any, steps: Steps, framing: str
) -> None:
    source.framing = framing
    first = _Stepping(s3, steps)
    assert copy(first, origin) == STORED
    parts = steps.count
    assert parts >= 9

    def start(at: int, after: bool, then: Callable[[], object]) -> StoredVideo | None:
        s3.delete_object(Bucket="videos", Key=KEY)
        visible.clear()
        steps.count, steps.at, steps.after, steps.then = 0, at, after, then
        try:
            return copy(first, origin)
        except Crash:
            return None
        finally:
            steps.at = 0

    def live(case: tuple[int, bool, str], dice: random.Random) -> None:
        at, after, what = case
        others: list[StoredVideo | None] = []
        if what == "death":
            done = start(at, after, _die)
            assert done is None, "the death did not come"
        else:
            done = start(at, after, lambda: others.append(copy(s3, origin)))
            assert done == STORED and others == [STORED]
        assert visible in ([], [(KEY, VIDEO)]), "a part is visible, or a second object"
        assert copy(s3, origin) == STORED, "the next one finds it or brings it"
        assert visible == [(KEY, VIDEO)], f"{len(visible)} objects"
        campaign.figures[what] += 1

    cases = [(at, after, what) for at in range(1, parts + 1) for after in (False, True) for what in ("death", "second")]
    campaign.run(cases, live)


def test_failing_copies_never_make_a_second_generation(
    campaign: Campaign, s3: Any, source: Source, origin: str, visible: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole lives with the real copier: everything above happens to one task, and then its source recovers."""
    troubles = [*WRONG, "cut", "lost", "expired", "away"]
    monkeypatch.setattr(fake_provider, "VIDEO_URL", f"{origin}/v?canary-signature")

    def trouble(name: str, dice: random.Random) -> None:
        source.status = {"expired": 403, "away": 503}.get(name, 200)
        source.framing = "lost" if name == "lost" else dice.choice(["length", "close", "chunks"])
        source.body = WRONG.get(name, VIDEO[: dice.randrange(len(VIDEO))])

    def live(number: int, dice: random.Random) -> None:
        visible.clear()
        world = World(MemoryCloud())
        world.cloud.apps["archive_video"].copy_outputs = archive_step.copy_outputs  # type: ignore[attr-defined]
        world.services.archive_s3 = s3
        world.provider.profile = replace(world.provider.profile, base_url=origin)
        task = world.create()
        for name in dice.sample(troubles, 3):
            trouble(name, dice)
            world.run(dice.choice([70, 200]), step=1000)
            assert world.task(task.id).phase in (Phase.SUBMITTED, Phase.PROCESSING, Phase.RENDERED), name
            assert visible == [], name
        source.body, source.framing, source.status = VIDEO, "length", 200
        world.run(4000, step=1000)
        done = world.task(task.id)
        assert done.phase is Phase.SUCCEEDED and done.videos[0]["md5"] == MD5
        assert [value for key, value in visible if key.endswith(".mp4")] == [VIDEO]
        campaign.figures["copies"] += done.copies
        assert len(world.provider.posts) == 1 and world.provider.billed(task.id) == 1

    campaign.run(range(campaign.size(20, 400)), live)
