"""Test DELETE: it cancels, refuses or removes, and leaves the documented remains of a task."""

import json
from typing import Any

import pytest
from kling_relay.api import delete as removal
from kling_relay.dynamodb import ConflictError
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.tasks.task import CLOSED, Phase, Task
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from tests.support.stack_in_memory import BODY, Cloud, World
from tests.unit.api.test_create import b64, png
from tests.unit.api.test_uploads import upload

pytestmark = pytest.mark.slow

TABLE_IN_MEMORY = True
RUNNING = set(Phase) - CLOSED - {Phase.ACCEPTED}


def delete(world: World, reference: str, *, tenant: str = "acme", path: str = "/kling/v1/videos/image2video") -> Any:
    return world.http("DELETE", f"{path}/{reference}", authorization=world.key(tenant))


def get(world: World, reference: str) -> dict[str, Any]:
    data: dict[str, Any] = world.http("GET", f"/v1/videos/image2video/{reference}", authorization=world.key())[1][
        "data"
    ]
    return data


def objects(world: World, part: str) -> list[str]:
    """Every version and marker of every object whose key contains `part`."""
    found = [(bucket, world.cloud.s3.list_object_versions(Bucket=bucket)) for bucket in ("inputs", "videos")]
    kinds = ("Versions", "DeleteMarkers")
    return [one["Key"] for _, page in found for kind in kinds for one in page.get(kind, []) if part in one["Key"]]


@pytest.fixture
def versioned(cloud: Cloud) -> None:
    for bucket in ("inputs", "videos"):
        cloud.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def waiting(world: World, **extra: Any) -> Task:
    """A task that found no room upstream."""
    world.provider.submit_faults = ["no_room"]
    return world.create({**BODY, **extra})


# -- what nothing was paid for


def test_a_waiting_task_is_cancelled(world: World) -> None:
    task = waiting(world, image=b64(png()), external_task_id="order-1")
    assert task.phase is Phase.ACCEPTED and objects(world, task.id)
    status, answer = delete(world, "order-1")
    assert (status, answer["code"]) == (200, 0)
    assert answer["data"]["task_id"] == task.id and answer["data"]["task_status"] == "failed"
    assert (
        "cancelled" in answer["data"]["task_status_msg"] and "nothing was charged" in answer["data"]["task_status_msg"]
    )
    assert objects(world, task.id) == []
    sent = len(world.provider.posts)
    world.run(7200)
    assert len(world.provider.posts) == sent and world.provider.billed(task.id) == 0
    assert delete(world, task.id)[1] == answer and get(world, task.id) == answer["data"]


def test_a_task_whose_submission_is_in_doubt_is_none_of_them(world: World) -> None:
    task = waiting(world)
    world.table.move(task, Phase.SUBMITTING, attempt=task.attempt + 1, updated_at=1, queue="open", due_at=1)
    task = world.task(task.id)
    world.table.move(task, Phase.UNCONFIRMED, unsure_since=1, updated_at=1)
    world.table.move(world.task(task.id), Phase.ACCEPTED, updated_at=1)
    status, answer = delete(world, task.id)
    assert (status, answer["code"]) == (409, 1201) and world.task(task.id).phase is Phase.ACCEPTED


def test_a_claim_that_comes_first_wins(world: World) -> None:
    stale = waiting(world)
    world.clock.tick(120)
    advance(world.services, stale.id, AdvanceInput("poll", must_end_by=world.clock.now + 28_000))
    assert world.task(stale.id).phase is Phase.SUBMITTED
    with pytest.raises(Exception, match="running") as refused:
        removal.remove(world.services, stale)
    assert refused.value.http == 409 and world.task(stale.id).deleted_at is None
    assert world.until_closed(stale.id).phase is Phase.SUCCEEDED


def test_a_claim_that_comes_second_sends_nothing(world: World) -> None:
    task = waiting(world)
    delete(world, task.id)
    with pytest.raises(ConflictError):
        world.table.move(task, Phase.SUBMITTING, attempt=task.attempt + 1, updated_at=1)
    world.clock.tick(120)
    assert advance(world.services, task.id, AdvanceInput("poll", must_end_by=world.clock.now + 28_000)).next == "done"


def test_a_task_that_ends_meanwhile_is_removed(world: World) -> None:
    stale = waiting(world)
    world.table.move(stale, Phase.FAILED, reason="not sent in time", updated_at=world.clock.now)
    removed = removal.remove(world.services, stale)
    assert (removed.reason, removed.request) == ("not sent in time", {}) and removed.deleted_at is not None


def test_two_deletes_at_once_are_one(world: World) -> None:
    task = waiting(world)
    first = removal.remove(world.services, task)
    assert removal.remove(world.services, task) == first


# -- what is running


@pytest.mark.parametrize("phase", sorted(RUNNING))
def test_a_running_task_stays(world: World, phase: Phase) -> None:
    task = world.create()
    world.table.rows.update_if(f"task#{task.id}", "SET #phase = :phase", "attribute_exists(#pk)", phase=phase)
    before = world.row(f"task#{task.id}")
    status, answer = delete(world, task.id)
    assert (status, answer["code"]) == (409, 1201) and "running" in answer["message"] and "data" not in answer
    assert world.row(f"task#{task.id}") == before


# -- what has ended


def test_an_ended_task_leaves_its_frame_only(world: World, versioned: None) -> None:
    reference = upload(world)
    body = {"image": reference, "image_tail": b64(png()), "prompt": "canary-prompt", "negative_prompt": "canary-no"}
    secret = {"external_task_id": "order-1", "callback_url": "https://client.example/canary-hook"}
    task = world.until_closed(world.create({**body, **secret}).id)
    for _ in range(2):  # older versions, and a marker on top of them
        world.cloud.s3.put_object(Bucket="videos", Key=task.videos[0]["key"], Body=b"again")
    world.cloud.s3.delete_object(Bucket="videos", Key=task.videos[0]["key"])
    before = get(world, task.id)
    assert before.pop("callback")
    assert len(objects(world, task.id)) == 6 and objects(world, reference.rpartition("/")[2])

    status, answer = delete(world, task.id)
    assert (status, answer["code"]) == (200, 0)
    assert answer["data"] == {**before, "task_result": {"videos": []}}
    assert objects(world, task.id) == [] == objects(world, reference.rpartition("/")[2])
    row = world.row(f"task#{task.id}")
    assert row.pop("account")["S"] == world.services.account  # the operator's, and no word of the client
    assert set(row) & {"outputs", "videos", "callback_url", "task_token"} == set() and row["request"]["S"] == "{}"
    assert [word for word in ("canary", "s3", "http", "cat.png") if word in json.dumps(row)] == []
    after = world.task(task.id)
    for name in ("id", "tenant", "kind", "phase", "created_at", "updated_at", "external_task_id", "units"):
        assert getattr(after, name) == getattr(task, name), name
    assert after.deleted_at == world.clock.now
    for path in ("/v1/videos/image2video", "/kling/v1/videos/multi-image2video"):
        assert delete(world, "order-1", path=path) == (status, answer)
    assert get(world, "order-1") == answer["data"]
    listed = world.http("GET", "/v1/videos/image2video", authorization=world.key())[1]["data"]
    assert listed == [answer["data"]]


def test_the_reason_of_a_failed_task_is_kept(world: World) -> None:
    world.provider.submit_faults = ["refused"]
    world.post({**BODY, "image": b64(png())})
    (task,) = world.tasks()
    assert task.phase is Phase.FAILED and objects(world, task.id)
    _, answer = delete(world, task.id)
    assert answer["data"]["task_status_msg"] == task.reason != "" and objects(world, task.id) == []


def test_an_expired_task_is_watched_no_more(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=600)
    world.provider.query_faults = ["trouble"] * 200
    task = world.until_closed(world.create().id)
    assert task.phase is Phase.EXPIRED and task.due_at is not None
    before = get(world, task.id)
    _, answer = delete(world, task.id)
    assert answer["data"] == before
    world.provider.query_faults = []
    asked = len(world.provider.queries)
    world.callback(task)
    world.run(86_400, step=3600)
    after = world.task(task.id)
    assert after.phase is Phase.FAILED and len(world.provider.queries) == asked and objects(world, task.id) == []


def test_only_this_task_goes(world: World) -> None:
    ours, other, theirs = (world.create(tenant=tenant) for tenant in ("acme", "acme", "umbrella"))
    for task in (ours, other, theirs):
        world.until_closed(task.id)
    delete(world, ours.id)
    assert objects(world, ours.id) == [] and len(objects(world, other.id)) == len(objects(world, theirs.id)) == 1


@pytest.mark.parametrize("reference", ["theirs", "f" * 32, "order-9", "x" * 3000])
def test_foreign_and_missing_ones(world: World, reference: str) -> None:
    task = world.until_closed(world.create({**BODY, "external_task_id": "order-9"}, tenant="umbrella").id)
    before = world.row(f"task#{task.id}")
    status, answer = delete(world, task.id if reference == "theirs" else reference)
    assert (status, answer["code"], answer["message"]) == (404, 1203, "task not found")
    assert world.row(f"task#{task.id}") == before and objects(world, task.id)
    assert delete(world, task.id, path="/v1/videos/nonsense")[1]["code"] == 1202


# -- trouble on the way


def test_a_removal_that_breaks_off_is_finished_by_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = upload(world)
    task = world.until_closed(world.create({**BODY, "image": reference}).id)
    real, calls = world.cloud.s3.delete_objects, []

    def breaking(**asked: Any) -> Any:
        calls.append(asked)
        if len(calls) == 2:
            return {"Errors": [{"Key": "k", "Code": "InternalError", "Message": "m"}]}
        if len(calls) == 4:
            raise ConnectionError("away")
        return real(**asked)

    monkeypatch.setattr(world.cloud.s3, "delete_objects", breaking)
    for _ in range(2):
        status, answer = delete(world, task.id)
        assert (status, answer["code"]) == (503, 5001)
        assert get(world, task.id)["task_status"] == "succeed"
    assert delete(world, task.id)[0] == 200
    assert objects(world, task.id) == [] == objects(world, reference.rpartition("/")[2])


def test_more_versions_than_one_page_holds(world: World, versioned: None) -> None:
    task = world.until_closed(world.create().id)
    stored = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]  # past the SDK's door, which takes most of the time
    for number in range(1010):
        stored.put_object("videos", f"videos/acme/{task.id}/{number % 3}.mp4", b"")
    assert len(world.cloud.s3.list_object_versions(Bucket="videos", MaxKeys=1000)["Versions"]) == 1000
    delete(world, task.id)
    assert objects(world, task.id) == []
