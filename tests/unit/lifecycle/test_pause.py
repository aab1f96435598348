"""Test the kill switch: no new POST from the next claim on, and no other change."""

from typing import Any

import pytest
from kling_relay.provider.admission import Admission, Pause
from kling_relay.tasks.task import Phase

from tests.support.stack_in_memory import BODY, START, Cloud, World

TABLE_IN_MEMORY = True


def operate(world: World, action: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = world.call("operate_tasks", {"action": action, **more})
    return answer


def sent(world: World) -> int:
    return len(world.provider.posts)


def test_what_arrives_meanwhile_waits_and_goes_on_by_itself(world: World) -> None:
    operate(world, "pause", reason="the bill")
    tasks = [world.create(tenant=tenant) for tenant in ("acme", "umbrella")]
    for task in tasks:
        assert (task.phase, task.attempt, task.waits_for) == (Phase.ACCEPTED, 0, "paused by the operator (the bill)")
        assert world.row(f"task#{task.id}")["queue"] == {"S": "waiting"}
    listed = world.http("GET", "/v1/videos/image2video", authorization=world.key())[1]["data"]
    assert [one["task_status"] for one in listed] == ["submitted"]
    world.run(3600)
    assert sent(world) == 0 and world.sweep() == {"overdue": 0, "waiting": 0, "late": 0, "notifications": 0}
    assert not [one for one in world.states.executions.values() if one.open], "nobody waits in a workflow"
    assert operate(world, "resume") == {"resumed": True, "paused": False}
    world.run(600)
    assert [world.task(task.id).phase for task in tasks] == [Phase.SUCCEEDED] * 2 and sent(world) == 2


def test_what_is_under_way_goes_on(world: World) -> None:
    """Queries, callbacks, copies, lookups of a POST in doubt; and who leaves the provider makes no room now."""
    world.provider.submit_faults = ["accept", "lost", "no_room"]
    running, doubtful, waiting = world.create(), world.create(), world.create()
    operate(world, "pause")
    started = set(world.states.executions)
    world.clock.tick(61)
    assert world.callback(running) == 200 and world.task(running.id).phase is Phase.RENDERED
    world.run(600)
    assert [world.task(task.id).phase for task in (running, doubtful)] == [Phase.SUCCEEDED] * 2
    assert world.task(waiting.id).phase is Phase.ACCEPTED and sent(world) == 3
    assert not [name for name in set(world.states.executions) - started if name.startswith(waiting.id)]


@pytest.mark.parametrize("fault", ["not_sent", "dropped"])
def test_nothing_is_sent_again_either(cloud: Cloud, fault: str) -> None:
    world = World(cloud, on_unconfirmed="retry", settle_seconds=30)
    world.provider.submit_faults = [fault]
    task = world.create()
    operate(world, "pause")
    world.run(1800)
    assert sent(world) == 1 and world.task(task.id).waits_for == "paused by the operator"
    operate(world, "resume")
    assert world.until_closed(task.id).phase is Phase.SUCCEEDED and sent(world) == 2


def test_a_workflow_that_was_started_before_holds_back(world: World) -> None:
    """The claim is what asks, not the start."""
    world.provider.submit_faults = ["no_room"]
    task = world.create()
    world.clock.tick(120)
    assert world.sweep()["waiting"] == 1
    operate(world, "pause")
    world.states.run()
    assert sent(world) == 1 and world.task(task.id).phase is Phase.ACCEPTED


def test_the_pause_is_told_to_whose_time_runs_out(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=900)
    operate(world, "pause", reason="maintenance")
    task = world.create()
    world.run(1000)
    ended = world.task(task.id)
    assert (ended.phase, sent(world)) == (Phase.FAILED, 0)
    assert ended.reason == "not sent within 900 s: paused by the operator (maintenance)"


def test_a_delete_cancels_what_waits(world: World) -> None:
    operate(world, "pause")
    task = world.create()
    path = f"/v1/videos/image2video/{task.id}"
    assert world.http("DELETE", path, authorization=world.key())[0] == 200
    operate(world, "resume")
    world.run(600)
    assert sent(world) == 0


def test_pausing_twice_and_resuming_twice(world: World) -> None:
    assert operate(world, "status") == {"paused": False}
    assert operate(world, "resume") == {"resumed": False, "paused": False}
    first = operate(world, "pause", reason="one")
    world.clock.tick(60)
    assert operate(world, "pause", reason="two") == first == {"paused": True, "since": START, "reason": "one"}
    assert operate(world, "status") == first
    operate(world, "resume")
    assert operate(world, "pause") == {"paused": True, "since": START + 60_000, "reason": ""}


@pytest.mark.parametrize("reason", ["x" * 201, "a\nb", 7, None])
def test_reasons_that_are_none(world: World, reason: Any) -> None:
    with pytest.raises(ValueError, match="reason: must have at most 200 printable characters"):
        operate(world, "pause", reason=reason)
    assert operate(world, "status") == {"paused": False}


def test_it_holds_for_the_stack_whichever_provider_it_has(world: World) -> None:
    operate(world, "pause", reason="x")
    assert (
        world.services.admissions.get("kling")
        == world.services.admissions.get("cometapi")
        == Admission(pause=Pause(START, "x"))
    )


def test_the_providers_gate_is_not_touched(world: World) -> None:
    admissions = world.services.admissions
    admissions.close("kling", admissions.get("kling"), not_before=START + 5000, reason="full")
    operate(world, "pause")
    admission = admissions.get("kling")
    assert (
        admission == Admission(START + 5000, 0, "full", crowded=1, pause=Pause(START, ""))
        and admission.closed(START) == "paused by the operator"
    )
    operate(world, "resume")
    admission = admissions.get("kling")
    assert admission.closed(START + 4999) == "room at the provider (full)" and admission.closed(START + 5000) == ""


def test_cap_and_switch_cost_a_post_no_round_trip(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[list[str]] = []
    client = world.cloud.dynamodb
    one, many = client.get_item, client.batch_get_item

    def get_item(**asked: Any) -> Any:
        reads.append([asked["Key"]["pk"]["S"].partition("#")[0]])
        assert asked["ConsistentRead"]
        return one(**asked)

    def batch_get_item(**asked: Any) -> Any:
        (table,) = asked["RequestItems"].values()
        reads.append([key["pk"]["S"].partition("#")[0] for key in table["Keys"]])
        assert table["ConsistentRead"]
        return many(**asked)

    world.key()
    monkeypatch.setattr(client, "get_item", get_item)
    monkeypatch.setattr(client, "batch_get_item", batch_get_item)
    world.create(BODY)
    del reads[-1]  # the test's own look
    assert reads == [["key"], ["cap"], ["gate", "callbacks", "suspects", "control"], ["task"]]
