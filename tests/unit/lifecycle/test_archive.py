"""Test the choice of a task's copied videos, and their keys. The tests of s3_copy.py are separate."""

import socket
from dataclasses import replace
from typing import Any

import boto3
import pytest
from kling_relay.lifecycle import archive
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.provider.client import Provider
from kling_relay.security.stored_secrets import Cached
from kling_relay.settings import SettingsError
from kling_relay.tasks.task import Phase, Task
from kling_relay.transfer.s3_copy import ArchiveError, StoredVideo, client_config

from tests.support.loopback_servers import respond, serve
from tests.support.stack_in_memory import World, client_error

KEYS = [f"videos/acme/t/{name}" for name in ("afe677844772d1dd", "234a2bf529af42ac")]


def test_keys_and_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[tuple[str, str]] = []

    def copy(_: Any, *, key: str, url: str, deadline_seconds: float, **__: Any) -> StoredVideo:
        assert deadline_seconds >= 1
        if "bad" in url:
            raise ArchiveError("truncated")
        copied.append((url, key))
        return StoredVideo(key, 7, "md5")

    monkeypatch.setattr(archive.s3_copy, "archive", copy)
    outputs = [
        {"id": "a", "url": "u0", "duration": "5", "watermark_url": "w0"},
        {"id": "b", "url": "u1", "duration": ""},
    ]
    asked = {"watermark_info": {"enabled": True}}
    task = Task("t", "acme", "image2video", Phase.RENDERED, asked, 0, 0, outputs=outputs)
    videos = archive.copy_outputs(world.services, task, seconds=0)
    assert copied == [
        ("u0", f"{KEYS[0]}.mp4"),
        ("w0", f"{KEYS[0]}-watermark.mp4"),
        ("u1", f"{KEYS[1]}.mp4"),
    ]
    assert videos[0]["watermark_key"] == f"{KEYS[0]}-watermark.mp4" and "watermark_key" not in videos[1]
    for body in ({}, {"watermark_info": {"enabled": False}}):  # a provider that sends one unasked
        copied.clear()
        plain = archive.copy_outputs(world.services, replace(task, request=body), seconds=5)
        assert [key for _, key in copied] == [f"{one}.mp4" for one in KEYS]
        assert not any("watermark_key" in video for video in plain)
    outputs[1]["url"] = "bad"
    with pytest.raises(ArchiveError):
        archive.copy_outputs(world.services, task, seconds=5)


@pytest.mark.parametrize(("found", "lines"), [(True, []), (False, ["video_track_missing"])])
def test_a_copy_without_a_video_track_is_logged(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, found: bool, lines: list[str]
) -> None:
    stored = StoredVideo("k", 7, "md5", has_video_track=found)
    monkeypatch.setattr(archive.s3_copy, "archive", lambda *_, **__: stored)
    outputs = [{"id": "a", "url": "https://cdn.example/a", "duration": "5"}]
    task = Task("t", "acme", "image2video", Phase.RENDERED, {}, 0, 0, outputs=outputs)
    assert archive.copy_outputs(world.services, task, seconds=5)[0]["size"] == 7
    assert [line for line in caplog.messages if line == "video_track_missing"] == lines


def _denied() -> str:
    raise client_error("AccessDeniedException", "GetSecretValue")


def _missing() -> str:
    raise SettingsError("no value")


@pytest.mark.enable_socket
@pytest.mark.parametrize("read", [_denied, _missing])
def test_a_file_that_needs_a_key_which_cannot_be_read_is_a_failed_copy(world: World, read: Any) -> None:
    """On AWS the role of archive_video has no right to the provider's secret, so Secrets Manager denies the read."""
    asked: list[str | None] = []

    def locked(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        asked.append(headers.get("authorization"))
        respond(connection, status=401)

    world.services.secrets.provider = Cached(read)
    world.cloud.apps["archive_video"].copy_outputs = archive.copy_outputs  # type: ignore[attr-defined]
    world.services.archive_s3 = boto3.client("s3", region_name="us-east-1", config=client_config())
    with serve(locked) as port:
        origin = f"http://127.0.0.1:{port}"
        profile = world.provider.profile = replace(world.provider.profile, base_url=origin)
        world.provider.videos = lambda sold: [{"id": "file-1", "url": f"{origin}/v.mp4", "duration": "5"}]
        real = Provider(profile, lambda refresh: world.services.secrets.provider.get(refresh))
        world.provider.authorization = real.authorization  # type: ignore[method-assign]
        task = world.create()
        world.clock.tick(100)
        assert advance(world.services, task.id, AdvanceInput("callback")).next == "archive"
        task = world.task(task.id)
        state = world.call("archive_video", {"task_id": task.id, "execution": task.execution})
    assert asked == [None]
    assert state["next"] == "wait"
    assert (world.task(task.id).phase, world.task(task.id).waits_for) == (
        Phase.RENDERED,
        "its copy to S3 (source_unauthorized)",
    )
    assert world.measured["ArchiveFailed"] == 1
