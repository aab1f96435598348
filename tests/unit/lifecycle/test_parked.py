"""Test parked tasks: nothing proves whether the provider has the task.

It is visible, raises an alarm, is still adopted by a late callback, is never sent again, and ends with a clear message.
"""

import json
from typing import Any

import pytest
from kling_relay.tasks.task import Phase, Task

from tests.support.printed_metrics import published_metrics
from tests.support.stack_in_memory import Cloud, World
from tests.unit.lifecycle.test_submit import lost

IN_MEMORY = True


def blind(cloud: Cloud, **settings: Any) -> World:
    """Before a relay that cannot be asked by our reference: what OnUnconfirmed=park is for."""
    return World(cloud, profile={"ask_by_reference": False, "hides_reference": True}, **settings)


def parked(world: World) -> Task:
    task = lost(world, "lost")
    world.run(300)
    task = world.task(task.id)
    assert task.phase is Phase.UNCONFIRMED and task.parked_at is not None
    return task


def measured(world: World, capsys: pytest.CaptureFixture[str]) -> dict[str, list[float]]:
    capsys.readouterr()
    world.sweep()
    return published_metrics(capsys)


@pytest.mark.parametrize("asked", [True, False])
def test_it_is_seen_once_the_settle_window_is_over(
    cloud: Cloud, asked: bool, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """With two denials, and where the provider cannot be asked at all."""
    world = World(cloud) if asked else blind(cloud)
    task = lost(world, "dropped" if asked else "lost")
    world.run(110)
    assert world.task(task.id).parked_at is None and measured(world, capsys)["ParkedTasks"] == [0]
    world.run(600)
    row = world.task(task.id)
    assert row.parked_at is not None and row.created_at + 120_000 <= row.parked_at <= row.created_at + 180_000
    assert row.waits_for.startswith("proof of its submission (") and row.waits_for.endswith("; parked")
    assert "canary-words" not in row.waits_for
    assert measured(world, capsys)["ParkedTasks"] == [1]
    lines = [record for record in caplog.records if record.message == "task_parked"]
    assert [record.task_id for record in lines] == [task.id], "one line a task, not one a look"
    assert len(world.provider.posts) == 1


def test_it_is_open_as_well(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    world = blind(cloud)
    task = parked(world)
    assert world.services.backlog.oldest() == task.created_at
    assert measured(world, capsys)["OldestOpenTask"] == [(world.clock.now - task.created_at) / 1000]


def test_a_replaced_workflow_leaves_it_parked(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    world = blind(cloud)
    task = parked(world)
    world.states.kill()
    world.clock.tick(600)
    assert world.sweep()["overdue"] == 1
    assert measured(world, capsys)["ParkedTasks"] == [1]
    assert world.task(task.id).parked_at == task.parked_at


@pytest.mark.parametrize("rendered", [True, False])
def test_a_late_callback_adopts_it(cloud: Cloud, rendered: bool, capsys: pytest.CaptureFixture[str]) -> None:
    world = blind(cloud)
    world.provider.seconds = 60 if rendered else 1200
    task = parked(world)
    assert world.callback(task, {"task_id": "up-1", "task_status": "succeed"}) == 200
    after = world.task(task.id)
    assert after.upstream_id == "up-1" and after.parked_at is None
    assert after.phase is (Phase.RENDERED if rendered else Phase.PROCESSING)
    assert measured(world, capsys)["ParkedTasks"] == [0]
    assert world.until_closed(task.id).phase is Phase.SUCCEEDED
    assert world.provider.billed(task.id) == 1 and len(world.provider.posts) == 1


def test_a_provider_that_finds_it_after_all(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    task = lost(world, "lost:900")
    world.run(300)
    assert world.task(task.id).parked_at is not None
    assert world.until_closed(task.id).phase is Phase.SUCCEEDED
    assert measured(world, capsys)["ParkedTasks"] == [0] and len(world.provider.posts) == 1


def test_its_time_ends_with_words_and_it_is_not_counted_any_more(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    world = blind(cloud, deadline_seconds=900)
    task = parked(world)
    world.run(900)
    status, answer = world.http("GET", f"/v1/videos/image2video/{task.id}", authorization=world.key())
    assert (status, answer["data"]["task_status"]) == (200, "failed")
    assert answer["data"]["task_status_msg"] == (
        "submission unconfirmed; it was not repeated, to avoid a double charge; "
        "still watched: a late video will be delivered"
    )
    found = measured(world, capsys)
    assert (found["ParkedTasks"], found["OldestOpenTask"]) == ([0], [0])
    world.callback(task, {"task_id": "up-1"})
    world.run(180)
    assert world.task(task.id).phase is Phase.SUCCEEDED, "adopted even then: it was paid for"
    assert len(world.provider.posts) == 1 and world.services.backlog.oldest() is None


def test_who_retries_is_not_parked(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(cloud, on_unconfirmed="retry")
    task = lost(world)
    assert world.until_closed(task.id).phase is Phase.SUCCEEDED
    assert "task_parked" not in capsys.readouterr().out


def test_rows_from_before_there_was_an_index_are_counted_from_their_next_move(cloud: Cloud) -> None:
    world = blind(cloud)
    task = lost(world, "lost")
    key = {"pk": {"S": f"task#{task.id}"}}
    world.dynamodb.update_item(TableName=world.table.rows.name, Key=key, UpdateExpression="REMOVE standing")
    assert world.services.backlog.oldest() is None
    world.run(300)
    assert (
        world.services.backlog.parked() == 1
        and json.dumps(world.row(f"task#{task.id}")["standing"]) == '{"S": "parked"}'
    )
