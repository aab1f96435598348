"""Test a task at the provider and afterwards: polling, deadline, watch, copy."""

import json
import re
from typing import Any

import pytest
from kling_relay.dynamodb import ConflictError
from kling_relay.lifecycle.advance import TaskNotFoundError, advance
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.tasks.task import MOVES, Phase, Task

from tests.support.stack_in_memory import Cloud, World

IN_MEMORY = True

DAY = 86_400
RANK = {Phase.SUBMITTED: 2, Phase.PROCESSING: 3, Phase.RENDERED: 4, Phase.EXPIRED: 5, Phase.SUCCEEDED: 5}


def rendered(world: World) -> Task:
    task = world.create()
    world.clock.tick(100)
    assert advance(world.services, task.id, AdvanceInput("callback")).next == "archive"
    return world.task(task.id)


def test_happy_path(world: World) -> None:
    task = world.create()
    assert task.phase is Phase.SUBMITTED and task.upstream_id == "up-1"
    done = world.until_closed(task.id)
    assert done.phase is Phase.SUCCEEDED and done.units == "1.5"
    assert re.fullmatch(f"videos/acme/{task.id}/[0-9a-f]{{16}}\\.mp4", done.videos[0]["key"])
    assert done.outputs == [], "the provider's addresses are not kept"
    assert world.provider.billed(task.id) == 1
    assert len(world.states.executions) == 1 and not any(one.open for one in world.states.executions.values())


def test_no_such_task(world: World) -> None:
    with pytest.raises(TaskNotFoundError):
        advance(world.services, "none", AdvanceInput("callback"))


def test_a_replaced_workflow_is_told_to_end(world: World) -> None:
    task = world.create()
    before = len(world.provider.queries)
    assert advance(world.services, task.id, AdvanceInput("poll"), execution="older").next == "done"
    assert len(world.provider.queries) == before


@pytest.mark.parametrize("odd", ["odd", "no_url", "foreign", "trouble", "unknown"])
def test_what_the_provider_cannot_mean_is_no_success_and_no_failure(world: World, odd: str) -> None:
    task = world.create()
    world.clock.tick(100)
    world.provider.query_faults = [odd]
    step = advance(world.services, task.id, AdvanceInput("callback"))
    assert step.next == "wait" and step.task.phase in (Phase.SUBMITTED, Phase.PROCESSING)
    assert advance(world.services, task.id, AdvanceInput("callback")).next == "archive"


@pytest.mark.parametrize("odd", ["odd", "no_url", "foreign", "trouble", "unknown"])
@pytest.mark.slow
def test_a_provider_that_never_makes_sense_ends_as_expired_and_then_for_good(cloud: Cloud, odd: str) -> None:
    world = World(cloud, deadline_seconds=600)
    task = world.create()
    world.provider.query_faults = [odd] * 10_000
    assert world.until_closed(task.id).phase is Phase.EXPIRED
    world.run(31 * DAY, step=DAY / 4)
    last = world.task(task.id)
    assert last.phase is Phase.EXPIRED and last.due_at is None


def test_a_failure_carries_the_providers_words(world: World) -> None:
    world.provider.end = "failed"
    task = world.until_closed(world.create().id)
    assert (task.phase, task.reason) == (Phase.FAILED, "the picture is blocked")


def test_late_video_is_delivered(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=600)
    world.provider.seconds = 3 * 3600
    task = world.until_closed(world.create().id)
    assert task.phase is Phase.EXPIRED and "still watched" in task.reason
    assert world.clock.now - task.created_at < 700_000
    world.run(7 * 3600)
    assert world.task(task.id).phase is Phase.SUCCEEDED
    assert world.provider.billed(task.id) == 1


def test_expiring_asks_the_provider_once(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=600)
    world.provider.seconds = 10_000
    task = world.create()
    world.clock.tick(601)
    before = len(world.provider.queries)
    assert advance(world.services, task.id, AdvanceInput("callback")).next == "done"
    assert world.task(task.id).phase is Phase.EXPIRED and len(world.provider.queries) == before + 1


def test_the_watch_ends_where_the_provider_failed(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=600)
    world.provider.seconds, world.provider.end = 3600, "failed"
    task = world.until_closed(world.create().id)
    assert task.phase is Phase.EXPIRED and task.due_at is not None
    world.run(7 * 3600)
    last = world.task(task.id)
    assert last.phase is Phase.EXPIRED and last.due_at is None and "provider did not finish" in last.reason


@pytest.mark.slow
def test_the_watch_ends_after_30_days(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=600)
    world.provider.seconds = 60 * DAY
    task = world.create()
    world.run(29 * DAY, step=DAY / 4)
    assert world.task(task.id).due_at is not None
    world.run(2 * DAY, step=DAY / 4)
    over = world.task(task.id)
    assert over.due_at is None
    asked = len(world.provider.queries)
    world.run(30 * DAY, step=DAY)
    world.callback(over)
    assert len(world.provider.queries) == asked
    assert world.task(task.id).phase is Phase.EXPIRED


@pytest.mark.slow
def test_polls_are_even_and_not_many(world: World) -> None:
    world.provider.seconds = 10 * 3600
    world.create()
    world.run(9 * 3600)
    assert len(world.provider.queries) < 400
    assert len(world.states.executions) == 1, "the sweeper has nothing to do beside a healthy workflow"


def test_two_advances_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one moves the row while the first one is asking: the first finds out and agrees."""
    task = world.create()
    world.clock.tick(100)
    real, inner = world.provider.query, []

    def meanwhile(kind: str, upstream_id: str) -> object:
        monkeypatch.setattr(world.provider, "query", real)
        inner.append(advance(world.services, task.id, AdvanceInput("callback")))
        return real(kind, upstream_id)

    monkeypatch.setattr(world.provider, "query", meanwhile)
    assert advance(world.services, task.id, AdvanceInput("callback")).next == "archive" == inner[0].next
    assert world.task(task.id).wake_seq == 1


def test_a_copy_that_fails_waits_longer_and_asks_for_a_fresh_address(world: World) -> None:
    world.copy_faults = ["source_expired"] * 6
    task = world.until_closed(world.create().id)
    assert task.phase is Phase.SUCCEEDED and task.copies == 7
    asked = [one for one in world.provider.queries if one == "up-1"]
    assert len(asked) >= 7, "each new try begins with a query"
    assert world.provider.billed(task.id) == 1


def test_the_wait_begins_when_the_copy_has_failed(world: World) -> None:
    """A copy may take longer than its whole wait; the next one must not follow at once."""
    task = rendered(world)
    world.copy_faults = ["source_unreachable"]
    real = world._copy

    def slow(services: object, task: Task, *, seconds: float) -> object:
        world.clock.tick(800)
        return real(services, task, seconds=seconds)  # type: ignore[arg-type]

    world.cloud.apps["archive_video"].copy_outputs = slow  # type: ignore[attr-defined]
    state = world.call("archive_video", {"task_id": task.id, "execution": task.execution}, left_ms=900_000)
    assert state["next"] == "wait"  # and no error of the function, which would call an operator
    step = advance(world.services, task.id, AdvanceInput("callback"))
    assert step.next == "wait" and "source_unreachable" in step.task.waits_for


@pytest.mark.slow
def test_a_copy_that_never_works_expires_and_moves_once_more_only(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=3600)
    world.copy_faults = ["too_large"] * 10_000
    task = world.create()
    seen = []
    for hours in [1] * 10 + [12] * 62:
        world.run(hours * 3600, step=min(hours, 3) * 3600)
        phase = world.task(task.id).phase
        if not seen or seen[-1] is not phase:
            seen.append(phase)
    assert seen == [Phase.RENDERED, Phase.EXPIRED, Phase.RENDERED, Phase.EXPIRED]
    last = world.task(task.id)
    assert last.due_at is None and last.copies < 1000
    assert "too_large" in last.reason


@pytest.mark.slow
def test_a_copy_that_works_again_after_days_is_delivered(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=3600)
    world.copy_faults = ["storage"] * 10_000
    task = world.until_closed(world.create().id, maximum=8000)
    assert task.phase is Phase.EXPIRED
    world.run(3 * DAY, step=3600)
    world.copy_faults.clear()
    world.run(7 * 3600)
    assert world.task(task.id).phase is Phase.SUCCEEDED


def test_a_copy_that_never_reports_back_is_tried_again(world: World) -> None:
    task = rendered(world)

    def dies(*_: object, **__: object) -> None:
        raise MemoryError

    world.cloud.apps["archive_video"].copy_outputs = dies  # type: ignore[attr-defined]
    with pytest.raises(MemoryError):
        world.call("archive_video", {"task_id": task.id, "execution": task.execution})
    step = advance(world.services, task.id, AdvanceInput("callback"))
    assert step.next == "wait" and step.task.copies == 1


def test_nothing_copied_is_no_success(world: World) -> None:
    task = rendered(world)
    assert advance(world.services, task.id, AdvanceInput("archive", copied=[])).next == "archive"


def test_a_copy_that_ends_after_the_deadline_still_counts(world: World) -> None:
    task = rendered(world)
    world.clock.tick(2 * DAY)
    assert advance(world.services, task.id, AdvanceInput("callback")).task.phase is Phase.EXPIRED
    videos = [{"id": "1", "duration": "5", "key": "k", "size": 1, "md5": "m"}]
    assert advance(world.services, task.id, AdvanceInput("archive", copied=videos)).task.phase is Phase.SUCCEEDED


def test_an_archive_step_of_a_replaced_workflow_copies_nothing(world: World) -> None:
    task = rendered(world)
    state = world.call("archive_video", {"task_id": task.id, "execution": "older"})
    assert state["next"] == "advance" and world.task(task.id).copies == 0


def test_waits_shrink_with_wait_scale_and_stay_whole(cloud: Cloud) -> None:
    world = World(cloud, wait_scale=0.01)
    task = world.create()
    sleeper = world.states.executions[task.id]
    assert sleeper.state["wait_seconds"] == 1 and json.dumps(sleeper.state)
    world.provider.submit_faults = ["not_sent"]
    second = world.create()
    step = advance(world.services, second.id, AdvanceInput("callback"))
    assert step.next == "wait" and step.wait_seconds == 1


def test_a_wait_until_a_stored_time_is_not_scaled_twice(cloud: Cloud) -> None:
    world = World(cloud, wait_scale=0.5)
    world.provider.submit_faults = ["not_sent"] * 8
    task = world.create()
    for _ in range(7):
        world.clock.tick(300)
        advance(world.services, task.id, AdvanceInput("poll", must_end_by=world.clock.now + 60_000))
    stored = world.task(task.id).retry_at or 0
    left = (stored - world.clock.now) / 1000
    assert left > 10
    assert left <= advance(world.services, task.id, AdvanceInput("callback")).wait_seconds <= left + 1


def test_the_table_of_moves_never_leads_back_but_for_the_late_move() -> None:
    for to, froms in MOVES.items():
        for at in froms:
            if at in RANK and to in RANK and RANK[to] < RANK[at]:
                assert (at, to) == (Phase.EXPIRED, Phase.RENDERED)


def test_somebody_who_always_wins_is_not_fought_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    task = world.create()
    reads: list[str] = []
    real = world.table.get

    def lost(*_: Any, **__: Any) -> Any:
        raise ConflictError

    monkeypatch.setattr(world.table, "move", lost)
    monkeypatch.setattr(world.table, "get", lambda task_id: (reads.append(task_id), real(task_id))[1])
    world.clock.tick(600)
    with pytest.raises(RuntimeError, match="did not come to rest in 20 moves"):
        advance(world.services, task.id, AdvanceInput("callback"))
    assert len(reads) == 20


def test_a_finished_render_is_missed_when_its_copy_does_not_begin(world: World) -> None:
    task = world.create()
    world.clock.tick(61)
    world.callback(task)
    rendered = world.task(task.id)
    assert (rendered.phase, rendered.due_at) == (Phase.RENDERED, world.clock.now + 90_000)


@pytest.mark.parametrize(
    ("fault", "line"), [("", ""), ("odd", "provider_response_unexpected"), ("no_url", "result_url_missing")]
)
def test_odd_answers_are_told_to_the_operator(
    world: World, caplog: pytest.LogCaptureFixture, fault: str, line: str
) -> None:
    task = world.create()
    world.clock.tick(61)
    world.provider.query_faults = [fault]
    world.callback(task)
    assert {"provider_response_unexpected", "result_url_missing"} & set(caplog.messages) == ({line} if line else set())
    assert world.measured["ResultHostNotListed"] == (fault == "no_url")
    phases = {"": Phase.RENDERED, "odd": Phase.SUBMITTED, "no_url": Phase.PROCESSING}
    assert world.task(task.id).phase is phases[fault]


def test_a_success_without_an_address_expires_with_the_reason_and_may_still_come(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=600)
    task = world.create()
    world.provider.query_faults = ["no_url"] * 10_000
    assert "gave no address of the finished video" in world.until_closed(task.id).reason
    world.provider.query_faults = []
    world.run(DAY / 2)
    assert world.task(task.id).phase is Phase.SUCCEEDED
