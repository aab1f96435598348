"""Test the result files of dropped files: they are correct after any loss, delay, overwrite or delete."""

from typing import Any

import pytest
from kling_relay.notifications import result_file as results_module
from kling_relay.tasks.task import Phase

from tests.support.image_files import jpeg
from tests.support.s3_inbox import Queue, drop, empty, result, results, task_of
from tests.support.stack_in_memory import Cloud, World, client_error

TABLE_IN_MEMORY = True
MODEL = {"default_model_image2video": "kling-v1-6"}


@pytest.fixture
def world(cloud: Cloud) -> World:
    world = World(cloud, **MODEL, intake_prompt="the stack's", intake_duration="5")
    empty(world)
    return world


def test_what_could_not_be_handled_goes_to_the_dead_letters_and_says_so(
    world: World, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = world.cloud.s3.head_object

    def broken(**asked: Any) -> Any:
        if asked["Key"] == "inbox/3.jpg" and "VersionId" in asked:
            raise client_error("SlowDown", ResponseMetadata={"HTTPStatusCode": 503})
        return real(**asked)

    monkeypatch.setattr(world.cloud.s3, "head_object", broken)
    queue.put(*[drop(world, f"inbox/{n}.jpg", jpeg()) for n in range(5)])
    queue.run()
    assert len(world.tasks()) == 4 and len(queue.dead) == 1
    told = result(world, "inbox/3.jpg")
    assert (told["task_status"], told["code"]) == ("failed", 5000) and "ClientError" in told["task_status_msg"]
    monkeypatch.undo()
    again, queue.dead = queue.dead, []
    for one in again:  # redriven
        one["attributes"]["ApproximateReceiveCount"] = "0"
    queue.messages = again
    queue.run()
    assert result(world, "inbox/3.jpg")["task_status"] == "submitted" and len(world.tasks()) == 5


def test_a_version_is_read_although_it_was_overwritten(world: World, queue: Queue) -> None:
    old = drop(world, "inbox/a.jpg", jpeg())
    drop(world, "inbox/a.jpg", b"newer, and broken")
    queue.put(old)
    queue.run()
    assert task_of(world, old).phase is Phase.SUBMITTED
    assert results(world) == {f"results/inbox/a.jpg.{old['detail']['object']['version-id']}.json"}


def test_what_becomes_no_task_is_counted_once(world: World, queue: Queue) -> None:
    """However often S3 tells of it; and a line like a file."""
    lines = b'{"kind": "text2video", "prompt": "p"}\n{"kind": "none"}\nno json\n'
    dropped = [
        drop(world, "inbox/a.txt", b"?"),
        drop(world, "inbox/b.jpg", b"?"),
        drop(world, "inbox/c.tasks.jsonl", lines),
    ]
    queue.put(*dropped, *dropped)
    queue.run()
    assert len(world.tasks()) == 1
    assert (world.measured["FilesRejected"], world.measured["Accepted"], world.measured["Rejected"]) == (4, 1, 0)


def test_a_deleted_object(world: World, queue: Queue) -> None:
    marked, gone = drop(world, "inbox/a.jpg", jpeg()), drop(world, "inbox/b.jpg", jpeg())
    world.cloud.s3.delete_object(Bucket="inputs", Key="inbox/a.jpg")  # a delete marker: the version is there
    world.cloud.s3.delete_object(Bucket="inputs", Key="inbox/b.jpg", VersionId=gone["detail"]["object"]["version-id"])
    queue.put(marked, gone)
    queue.run()
    assert result(world, "inbox/a.jpg")["task_status"] == "submitted"
    assert "deleted" in result(world, "inbox/b.jpg")["task_status_msg"] and queue.dead == []


def test_the_providers_refusal_stands_in_the_result(world: World, queue: Queue) -> None:
    world.provider.submit_faults = ["refused"]
    dropped = drop(world, "inbox/a.jpg", jpeg())
    queue.put(dropped, dropped)
    queue.run()
    task, told = task_of(world, dropped), result(world, "inbox/a.jpg")
    assert task.phase is Phase.FAILED and task.refusal is not None
    assert (told["task_id"], told["task_status"]) == (task.id, "failed")
    assert (told["code"], told["task_status_msg"]) == (task.refusal.code, task.refusal.message)


def test_delete_leaves_the_dropped_file_and_a_result_without_a_video(world: World, queue: Queue) -> None:
    dropped = drop(world, "inbox/a.jpg", jpeg())
    queue.put(dropped)
    queue.run()
    task = world.until_closed(task_of(world, dropped).id)
    results_module.write(world.services, task)
    status, _ = world.http("DELETE", f"/v1/videos/image2video/{task.id}", authorization=world.key("inbox"))
    assert status == 200
    told = result(world, "inbox/a.jpg")
    assert (told["task_status"], told["videos"]) == ("succeed", []) and told["deleted_at"]
    kept = world.cloud.s3.list_object_versions(Bucket="inputs", Prefix="in")["Versions"]
    assert [one["Key"] for one in kept] == ["inbox/a.jpg"]
    queue.put(dropped)  # the event once more: no second task
    queue.run()
    assert len(world.tasks()) == 1 and len(world.provider.posts) == 1


def test_results_never_go_back(world: World, queue: Queue) -> None:
    dropped = drop(world, "inbox/a.jpg", jpeg())
    queue.put(dropped)
    queue.run()
    early = task_of(world, dropped)
    late = world.until_closed(early.id)
    for task in (late, early, late):
        results_module.write(world.services, task)
        assert result(world, "inbox/a.jpg")["task_status"] == "succeed"


def test_an_end_that_could_not_be_written_is_written_by_the_next_sweep(
    world: World, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = drop(world, "inbox/a.jpg", jpeg())
    queue.put(dropped)
    queue.run()
    real = world.cloud.s3.put_object

    def broken(**given: Any) -> Any:
        if given["Key"].startswith("results/"):
            raise client_error("SlowDown", ResponseMetadata={"HTTPStatusCode": 503})
        return real(**given)

    monkeypatch.setattr(world.cloud.s3, "put_object", broken)
    task = world.until_closed(task_of(world, dropped).id)
    world.run_notifier()
    assert task.phase is Phase.SUCCEEDED and result(world, "inbox/a.jpg")["task_status"] == "submitted"
    assert "Kling Task Succeeded" not in [kind for kind, _ in world.events], "the event waits for the result"
    monkeypatch.undo()
    world.run(121)
    world.run_notifier()
    assert result(world, "inbox/a.jpg")["task_status"] == "succeed"
    assert "Kling Task Succeeded" in [kind for kind, _ in world.events]


def test_the_same_external_id_twice_makes_one_task(world: World, queue: Queue) -> None:
    first = drop(world, "inbox/a.jpg", jpeg(), **{"external-task-id": "order-1"})
    second = drop(world, "inbox/b.jpg", jpeg(), **{"external-task-id": "order-1"})
    queue.put(first, second, first)
    queue.run()
    assert len(world.tasks()) == 1 and result(world, "inbox/a.jpg")["task_status"] == "submitted"
    told = result(world, "inbox/b.jpg")
    assert told["task_status"] == "failed" and "external_task_id" in told["task_status_msg"]
