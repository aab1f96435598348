"""Test the sweeper: overdue tasks get a new workflow, waiting tasks get their turn, and a bad row stops no other."""

from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from kling_relay.dynamodb import ConflictError
from kling_relay.lifecycle import queue, step_functions
from kling_relay.provider.admission import Admission
from kling_relay.tasks.task import Failure, Phase, Task
from kling_relay.tasks.task_row import new_item

from tests.support.stack_in_memory import Cloud, World, client_error

IN_MEMORY = True


def waiting_tasks(world: World, *tenants: str) -> list[Task]:
    """One task of each tenant in this order, all of them waiting for room."""
    world.provider.submit_faults = ["no_room"]
    tasks = []
    for tenant in tenants:
        tasks.append(world.create(tenant=tenant))
        world.clock.tick(0.1)
    return tasks


def test_nothing_to_do(world: World) -> None:
    assert world.sweep() == {"overdue": 0, "waiting": 0, "late": 0, "notifications": 0}


def test_a_killed_workflow_is_replaced(world: World) -> None:
    task = world.create()
    world.states.run()
    world.states.kill()
    world.run(400)
    done = world.task(task.id)
    assert done.phase is Phase.SUCCEEDED and done.execution == f"{task.id}-r1"


def test_killed_again_and_again(world: World) -> None:
    world.provider.seconds = 1200
    task = world.create()
    for _ in range(5):
        world.run(300)
        world.states.kill()
    done = world.until_closed(task.id)
    assert done.phase is Phase.SUCCEEDED and int(done.execution.rpartition("-r")[2]) >= 3


def test_a_start_that_fails_comes_up_again(world: World) -> None:
    world.states.fail_starts = 2
    task = world.create()
    assert task.phase is Phase.SUBMITTED and world.states.executions == {}
    assert world.until_closed(task.id).phase is Phase.SUCCEEDED


def test_one_bad_row_stops_nobody(in_moto: World) -> None:
    in_moto.dynamodb.put_item(
        TableName=in_moto.table.rows.name,
        Item={"pk": {"S": "task#bad"}, "tenant": {"S": "x"}, "queue": {"S": "open"}, "due_at": {"N": "1"}},
    )
    in_moto.states.fail_starts = 1
    task = in_moto.create()
    in_moto.clock.tick(3600)
    assert in_moto.sweep()["overdue"] == 1
    in_moto.states.run()
    assert in_moto.task(task.id).phase is Phase.SUCCEEDED
    in_moto.dynamodb.delete_item(TableName=in_moto.table.rows.name, Key={"pk": {"S": "task#bad"}})


def test_a_healthy_task_is_left_alone(world: World) -> None:
    task = world.create()
    world.states.run()
    assert world.sweep() == {"overdue": 0, "waiting": 0, "late": 0, "notifications": 0}
    assert queue.restart(world.services, task.id) is False, "the index may be behind; the row decides"
    assert queue.restart(world.services, "none") is False


def test_two_sweeps_at_once_start_one_workflow(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    task = world.create()
    world.clock.tick(3600)
    stale = world.task(task.id)
    assert step_functions.replace(world.services, stale)
    assert not step_functions.replace(world.services, stale)
    assert [name for name in world.states.executions if "-r" in name] == [f"{task.id}-r1"]


def test_in_turn() -> None:
    waiting = [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c"), ("b2", "b")]
    assert queue.fair_order(waiting) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert queue.fair_order(waiting, "a") == ["b1", "c1", "a1", "b2", "a2", "a3"]
    assert queue.fair_order(waiting, "b") == ["c1", "a1", "b1", "a2", "b2", "a3"]
    assert queue.fair_order(waiting, "c") == queue.fair_order(waiting, "zoo") == queue.fair_order(waiting)
    assert queue.fair_order([]) == []


def test_who_sent_first_does_not_go_first_for_ever(world: World) -> None:
    """One place at a time, each given up to the next: the tenants take turns, although all of acme's are older."""
    tasks = waiting_tasks(world, "acme", "acme", "acme", "umbrella", "umbrella")
    world.provider.slots = 1
    world.clock.tick(60)
    world.sweep()
    for turn in range(5):
        world.states.run()
        assert len(world.provider.sold) == turn + 1
        world.clock.tick(61)
        world.callback(world.task(world.provider.sold[-1].reference))
    tenants = {task.id: task.tenant for task in tasks}
    order = [tenants[sold.reference] for sold in world.provider.sold]
    assert order == ["acme", "umbrella", "acme", "umbrella", "acme"]


def test_a_refused_probe_has_not_had_its_turn(world: World) -> None:
    tasks = waiting_tasks(world, "acme", "umbrella")
    world.provider.submit_faults = ["no_room"]
    for _ in range(2):
        world.clock.tick(60)
        assert world.sweep()["waiting"] == 1
        world.states.run()
    sent = [post["external_task_id"] for post in world.provider.posts]
    acme, umbrella = (task.id for task in tasks)
    assert sent == [acme, acme, acme, umbrella]


def test_a_closed_gate_starts_nobody_and_a_probe_that_finds_room_brings_the_others(world: World) -> None:
    tasks = waiting_tasks(world, "acme", "acme", "acme", "acme", "acme")
    assert world.sweep()["waiting"] == 0
    world.provider.slots = 4
    world.clock.tick(60)
    assert world.sweep()["waiting"] == 1
    world.states.run()
    phases = [world.task(task.id).phase for task in tasks]
    assert phases == [Phase.SUBMITTED] * 4 + [Phase.ACCEPTED]
    assert len(world.provider.posts) == 1 + 4 + 1


def test_a_place_that_was_made_is_one_place_until_a_probe_finds_more(world: World) -> None:
    world.provider.slots, world.provider.seconds = 1, 60.0
    tasks = [world.create() for _ in range(4)]
    world.clock.tick(60)
    world.provider.slots = 3
    world.callback(tasks[0])
    world.states.run()
    assert len(world.provider.sold) == 2, "one for one: nothing is known of the two new slots"
    world.sweep()
    world.states.run()
    assert len(world.provider.sold) == 4


def test_a_task_that_somebody_else_started_costs_no_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = waiting_tasks(world, "acme", "acme", "acme")
    world.clock.tick(60)
    stale = world.table.queue.waiting(10)
    assert queue.start_waiting(world.services, 1) == 1
    monkeypatch.setattr(queue, "_candidates", lambda *_: stale)
    assert queue.start_waiting(world.services, 1) == 1
    assert set(world.states.executions) == {f"{task.id}-r1" for task in tasks[:2]}


def test_a_refused_task_gives_its_place_to_the_next(world: World) -> None:
    tasks = waiting_tasks(world, "acme", "umbrella")
    world.provider.submit_faults = ["refused"]
    world.clock.tick(60)
    world.sweep()
    world.states.run()
    assert [world.task(task.id).phase for task in tasks] == [Phase.FAILED, Phase.SUBMITTED]


def test_room_opens_no_gate_that_the_account_has_closed(world: World) -> None:
    running = world.create()
    world.provider.submit_faults = ["arrears"]
    waiting = world.create()
    admission = world.services.admissions.get(world.services.account)
    world.clock.tick(29)
    world.provider.end = "failed"
    world.provider.sold[0].seconds = 1
    world.callback(running)
    world.states.run()
    assert world.task(running.id).phase is not Phase.SUBMITTED
    assert (
        replace(world.services.admissions.get(world.services.account), calls_back=0) == admission
        and world.task(waiting.id).attempt == 1
    )


def test_who_leaves_the_provider_makes_room(world: World) -> None:
    world.provider.slots = 1
    first, second = world.create(), world.create()
    world.states.run()
    world.clock.tick(60)
    world.callback(first)
    world.states.run()
    assert world.task(first.id).phase is Phase.SUCCEEDED
    assert world.task(second.id).phase is Phase.SUBMITTED, "without waiting for the sweeper"


def test_room_is_made_by_the_end_of_the_render_not_of_the_copy(world: World) -> None:
    world.provider.slots = 1
    first, second = world.create(), world.create()
    world.states.run()
    world.clock.tick(60)
    world.callback(first)
    assert world.task(first.id).phase is Phase.RENDERED and f"{second.id}-r1" in world.states.executions


def test_trouble_with_room_is_not_the_ended_tasks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: int) -> Any:
        raise client_error("ThrottlingException")

    monkeypatch.setattr(world.table.queue, "waiting", broken)
    task = world.create()
    world.clock.tick(100)
    world.callback(task)
    assert world.task(task.id).phase is Phase.RENDERED


def test_tasks_past_their_deadline_go_even_without_room(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=900)
    (task,) = waiting_tasks(world, "acme")
    world.clock.tick(901)
    world.services.admissions.close(
        world.services.account, Admission(), not_before=world.clock.now + 10**6, reason="full"
    )
    assert world.sweep()["late"] == 1
    failed = world.task(task.id)
    assert (failed.phase, failed.failure) == (Phase.FAILED, Failure.EXPIRED)
    assert failed.reason == "not sent within 900 s: room at the provider (HTTP 429, code 1303)"
    assert len(world.provider.posts) == 1 and f"{task.id}-r1" not in world.states.executions
    world.clock.tick(60)
    assert world.sweep() == {"overdue": 0, "waiting": 0, "late": 0, "notifications": 1}, "its client is told"


def late_and_young(cloud: Cloud, late: int, **settings: int) -> tuple[World, list[str], Task]:
    """`late` tasks of acme and one of umbrella, which all waited through a pause; only the last one is in time."""
    world = World(cloud, deadline_seconds=3600, **settings)
    world.call("operate_tasks", {"action": "pause", "reason": "maintenance"})
    ids = [world.create().id for _ in range(late)]
    world.clock.tick(3600)
    young = world.create(tenant="umbrella")
    world.call("operate_tasks", {"action": "resume"})
    return world, ids, young


@pytest.mark.slow
def test_tasks_past_their_deadline_take_nobodys_turn_and_end_in_one_sweep(cloud: Cloud) -> None:
    world, late, young = late_and_young(cloud, 450)
    assert world.sweep()["late"] == 450
    world.states.run()
    assert {world.task(one).phase for one in late} == {Phase.FAILED}
    assert world.task(young.id).phase is Phase.SUBMITTED and len(world.provider.posts) == 1


def test_late_tasks_end_as_far_as_there_is_time(cloud: Cloud) -> None:
    """The function keeps 15 s for all else. Each end takes a second here."""
    world, late, _ = late_and_young(cloud, 30)
    began = world.clock.now
    world.effects.pause = lambda name: world.clock.tick(name == "update_item")
    assert 5 < world.call("sweep_tasks", {}, left_ms=28_000)["late"] <= 13
    assert world.clock.now <= began + 14_000
    assert world.call("sweep_tasks", {}, left_ms=15_000)["late"] == 0
    world.effects.pause = lambda name: None
    world.sweep()
    assert {world.task(one).phase for one in late} == {Phase.FAILED}


def test_a_late_task_that_somebody_else_moves_or_that_is_in_trouble_stops_nobody(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, late, _ = late_and_young(cloud, 4)
    world.table.move(world.task(late[0]), Phase.FAILED, updated_at=world.clock.now)
    stale, real = world.table.read(late), world.table.move

    def move(task: Task, *given: Any, **changes: Any) -> Task:
        if task.id == late[1]:
            raise ConflictError
        if task.id == late[2]:
            raise client_error("ThrottlingException")
        return real(task, *given, **changes)

    monkeypatch.setattr(world.table.queue, "late", lambda until: [late])
    monkeypatch.setattr(world.table, "move", move)
    assert world.sweep()["late"] == 1
    assert [task.phase for task in stale] == [Phase.FAILED] + [Phase.ACCEPTED] * 3
    assert world.task(late[3]).phase is Phase.FAILED


def test_what_the_index_shows_as_late_may_be_under_way(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(cloud, deadline_seconds=900)
    sent = world.create()
    (young,) = waiting_tasks(world, "acme")
    monkeypatch.setattr(world.table.queue, "late", lambda until: [[sent.id, young.id, "gone"]])
    assert world.sweep()["late"] == 0
    assert [world.task(task.id).phase for task in (sent, young)] == [Phase.SUBMITTED, Phase.ACCEPTED]


@pytest.mark.slow
def test_ten_thousand_lines_of_one_tenant_keep_nobody_else_waiting(cloud: Cloud) -> None:
    """One task each of the other tenants is started in the first round of turns."""
    world = World(cloud)
    world.call("operate_tasks", {"action": "pause", "reason": "a long list"})
    first = world.create(tenant="globex")
    template = world.row(f"task#{first.id}")
    for number in range(1, 10_000):
        task = replace(world.task(first.id), id=f"{number:032x}", execution=f"{number:032x}")
        row = {**new_item(task), "queue": template["queue"], "due_at": template["due_at"]}
        world.dynamodb.put_item(TableName=world.table.rows.name, Item=row)
    world.clock.tick(60)
    others = [world.create(tenant=name) for name in ("acme", "initech", "umbrella")]
    world.call("operate_tasks", {"action": "resume"})
    world.provider.slots = 4
    world.sweep()
    world.states.run()
    assert [world.task(task.id).phase for task in others] == [Phase.SUBMITTED] * 3
    assert len(world.provider.sold) == 4


@pytest.mark.slow
def test_waiting_rows_of_an_older_version_get_their_turns(cloud: Cloud) -> None:
    """Rows of c90a538 have no `turn`."""
    world = World(cloud)
    old = waiting_tasks(world, "acme", *["globex"] * 40, "acme")
    for task in old:
        row = world.row(f"task#{task.id}")
        world.dynamodb.put_item(TableName=world.table.rows.name, Item={k: v for k, v in row.items() if k != "turn"})
    new = waiting_tasks(world, "globex", "umbrella")
    world.run(7200)
    assert {world.task(task.id).phase for task in [*old, *new]} == {Phase.SUCCEEDED}


@pytest.mark.parametrize("code", ["ValidationException", "ResourceNotFoundException"])
def test_turns_go_by_age_as_long_as_the_index_is_not_there(
    world: World, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """An update creates by_turn and does not wait for it (CloudFormation's reference of GlobalSecondaryIndexes)."""
    tasks = waiting_tasks(world, "acme", "acme", "umbrella")
    real = world.dynamodb.query

    def query(**options: Any) -> Any:
        if options["IndexName"] == "by_turn":
            raise client_error(code, "Query")
        return real(**options)

    monkeypatch.setattr(world.dynamodb, "query", query)
    world.clock.tick(60)
    world.sweep()
    world.states.run()
    assert {world.task(task.id).phase for task in tasks} == {Phase.SUBMITTED}
    code = "ThrottlingException"
    with pytest.raises(ClientError, match="Throttling"):
        queue.start_waiting(world.services, 1)


@pytest.mark.parametrize("code", ["TaskTimedOut", "TaskDoesNotExist", "InvalidToken"])
def test_nobody_to_wake_is_no_error(world: World, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(**_: Any) -> Any:
        raise client_error(code)

    task = world.create()
    world.states.run()
    monkeypatch.setattr(world.states, "send_task_success", gone)
    from kling_relay.lifecycle.step import Step

    step_functions.wake(world.services, Step(world.task(task.id), "archive"))
    monkeypatch.setattr(world.states, "send_task_success", lambda **_: (_ for _ in ()).throw(client_error("NoRoom")))
    with pytest.raises(Exception, match="NoRoom"):
        step_functions.wake(world.services, Step(world.task(task.id), "archive"))


def test_a_workflow_that_exists_is_no_error(world: World) -> None:
    from kling_relay.lifecycle.step import Step

    task = world.create()
    step_functions.start(world.services, Step(task, "wait"))
    world.states.fail_starts = 1
    with pytest.raises(Exception, match="Throttling"):
        step_functions.start(world.services, Step(task, "wait"))
