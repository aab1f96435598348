"""Test that a copy ends while its function has time to report: the deadline follows from Lambda's remaining time."""

import socket
import threading
from dataclasses import replace
from typing import Any

import boto3
import pytest
from kling_relay.lifecycle import archive
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.tasks.task import Phase, Task
from kling_relay.transfer.s3_copy import StoredVideo, client_config

from tests.support.fake_provider import Sold
from tests.support.loopback_servers import mp4, respond, serve
from tests.support.stack_in_memory import World

VIDEO = mp4(3000)
PATIENCE = 400  # bytes, one each 50 ms: 20 s, in which every bounded copy has ended, however slow the machine
SLOWNESS = 0.05


def rendered(world: World) -> Task:
    task = world.create()
    world.clock.tick(100)
    assert advance(world.services, task.id, AdvanceInput("callback")).next == "archive"
    return world.task(task.id)


@pytest.mark.enable_socket
@pytest.mark.parametrize("announced", [True, False])
def test_a_source_that_drips_does_not_outlive_the_function(world: World, announced: bool) -> None:
    """No clock is read here. A copy without an upper bound brings the whole video after 20 s, and then fails this
    test."""
    gone = threading.Event()

    def drip(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        length = {"Content_Length": str(len(VIDEO))} if announced else {}
        respond(connection, VIDEO[:1000], length=False, **length)
        for at in range(1000, 1000 + PATIENCE):
            if gone.wait(SLOWNESS):
                return
            connection.sendall(VIDEO[at : at + 1])
        connection.sendall(VIDEO[1000 + PATIENCE :])

    with serve(drip) as port:
        origin = f"http://127.0.0.1:{port}"
        world.cloud.apps["archive_video"].copy_outputs = archive.copy_outputs  # type: ignore[attr-defined]
        world.services.archive_s3 = boto3.client("s3", region_name="us-east-1", config=client_config())
        world.provider.profile = replace(world.provider.profile, base_url=origin)
        world.provider.videos = listed(f"{origin}/v.mp4")
        task = rendered(world)
        event = {"task_id": task.id, "execution": task.execution}
        state = world.call("archive_video", event, left_ms=11_000)
        gone.set()
    assert state["next"] == "wait"
    after = world.task(task.id)
    assert (after.phase, after.waits_for) == (Phase.RENDERED, "its copy to S3 (source_unreachable)")
    assert world.cloud.s3.list_objects_v2(Bucket="videos", Prefix=f"videos/acme/{task.id}/")["KeyCount"] == 0


def listed(url: str) -> Any:
    def videos(sold: Sold) -> list[dict[str, str]]:
        return [{"id": "file-1", "url": url, "duration": "5"}]

    return videos


def test_the_function_keeps_ten_seconds_to_report(world: World) -> None:
    given: list[float] = []

    def copy(services: Any, task: Task, *, seconds: float) -> Any:
        given.append(seconds)
        return world._copy(services, task, seconds=seconds)

    world.cloud.apps["archive_video"].copy_outputs = copy  # type: ignore[attr-defined]
    task = rendered(world)
    world.call("archive_video", {"task_id": task.id, "execution": task.execution}, left_ms=900_000)
    assert given == [890]


def test_all_videos_of_a_task_share_one_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now, given = [100.0], []

    def copy(_: Any, *, key: str, deadline_seconds: float, **__: Any) -> StoredVideo:
        given.append(deadline_seconds)
        now[0] += 4
        return StoredVideo(key, 7, "md5")

    monkeypatch.setattr(archive.s3_copy, "archive", copy)
    monkeypatch.setattr(archive.time, "monotonic", lambda: now[0])
    outputs = [
        {"id": f"file-{name}", "url": f"u{name}", "watermark_url": f"w{name}", "duration": "5"} for name in "abc"
    ]
    asked = {"watermark_info": {"enabled": True}}
    task = Task("t", "acme", "image2video", Phase.RENDERED, asked, 0, 0, outputs=outputs)
    archive.copy_outputs(world.services, task, seconds=10)
    assert given == [10, 6, 2, 1, 1, 1]  # at least a second: a copy that lies there already is found in that time
