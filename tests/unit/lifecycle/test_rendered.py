"""Test a finished render, real or claimed: its row, the time limit of its copy, and the wake-up."""

from typing import Any

import pytest
from kling_relay.lifecycle import step_functions
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.archive import start_copy_attempt
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.tasks.output_names import names
from kling_relay.tasks.task import Phase, Task

from tests.support.fake_provider import VIDEO_URL
from tests.support.stack_in_memory import Cloud, World

IN_MEMORY = True


def asked_at(world: World, seconds: float) -> Task:
    """A task as it is after a look `seconds` after its submission."""
    task = world.create()
    world.clock.tick(seconds)
    advance(world.services, task.id, AdvanceInput("callback"))
    return world.task(task.id)


def test_the_row_says_when_and_what_it_waits_for(world: World) -> None:
    task, now = asked_at(world, 100), world.clock.now
    assert (task.phase, task.rendered_at, task.updated_at) == (Phase.RENDERED, now, now)
    assert (task.retry_at, task.copies, task.units) == (None, 0, "1.5")
    assert (task.due_at, task.waits_for) == (now + 90_000, "its copy to S3")


def test_the_time_for_a_copy_begins_with_the_end_of_the_render(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=600)
    world.provider.seconds = 500
    task = asked_at(world, 590)
    world.clock.tick(590)
    waiting = advance(world.services, task.id, AdvanceInput("archive", copy_failed="storage")).task
    assert (waiting.phase, waiting.waits_for) == (Phase.RENDERED, "its copy to S3 (storage)")
    world.clock.tick(10)
    ended = advance(world.services, task.id, AdvanceInput("callback")).task
    assert ended.phase is Phase.EXPIRED
    assert ended.reason.startswith("rendered, but the copy to S3 (storage) did not succeed within 0.166667 h; still")


def test_a_wait_for_the_next_copy_is_as_long_as_the_row_says(cloud: Cloud) -> None:
    world = World(cloud, wait_scale=0.1)
    task = asked_at(world, 100)
    world.services.table.move(task, None, retry_at=world.clock.now + 1_800_000, updated_at=world.clock.now)
    assert advance(world.services, task.id, AdvanceInput("callback")).wait_seconds == 1800
    world.clock.tick(1800)
    assert advance(world.services, task.id, AdvanceInput("callback")).next == "archive"


def test_a_late_copy_begins_at_once_whatever_the_last_one_waited_for(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=600)
    task = asked_at(world, 100)
    world.services.table.move(task, None, copies=7, retry_at=world.clock.now + 1_800_000, updated_at=world.clock.now)
    world.clock.tick(601)
    assert advance(world.services, task.id, AdvanceInput("callback")).task.phase is Phase.EXPIRED
    step = advance(world.services, task.id, AdvanceInput("callback"))
    assert (step.next, step.task.phase, step.task.copies) == ("archive", Phase.RENDERED, 0)


@pytest.mark.parametrize(
    ("copies", "expired", "maximum"), [(0, False, 5), (1, False, 10), (40, False, 1800), (40, True, 21_600)]
)
def test_each_copy_waits_longer_up_to_half_an_hour_or_a_watch(
    world: World, monkeypatch: pytest.MonkeyPatch, copies: int, expired: bool, maximum: int
) -> None:
    monkeypatch.setattr("kling_relay.lifecycle.polling.random.random", lambda: 1.0)  # the longest that chance allows
    task, now = asked_at(world, 100), world.clock.now
    at = now if expired else None
    task = world.services.table.move(task, None, copies=copies, expired_at=at, updated_at=now)
    begun = start_copy_attempt(world.services, task.id, task.execution, 7000)
    assert isinstance(begun, Task)
    assert (begun.copies, begun.due_at, begun.updated_at) == (copies + 1, now + 97_000, now)
    assert begun.retry_at == now + maximum * 1000


def test_a_copier_that_comes_too_late_is_no_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two executions copy one task. The slower one has read the row before the other one ended it."""
    seen = asked_at(world, 61)
    assert seen.phase is Phase.RENDERED
    world.archive(seen)
    assert world.task(seen.id).phase is Phase.SUCCEEDED
    monkeypatch.setattr(world.table, "get", lambda task_id: seen)
    answer = world.call("archive_video", {"task_id": seen.id, "execution": seen.execution})
    assert answer == {"task_id": seen.id, "next": "advance"}


def test_a_second_copy_takes_what_the_provider_says_then(world: World) -> None:
    task = asked_at(world, 100)
    stale = [{**task.outputs[0], "url": "https://old.example/"}]
    world.services.table.move(task, None, copies=1, outputs=stale, units=None, updated_at=world.clock.now)
    world.clock.tick(5)
    step = advance(world.services, task.id, AdvanceInput("callback"))
    assert (step.next, step.task.outputs, step.task.units) == ("archive", task.outputs, "1.5")
    assert step.task.updated_at == world.clock.now


@pytest.mark.parametrize("late", [False, True])
def test_a_video_keeps_the_name_of_its_copy_if_its_provider_stops_giving_ids(world: World, late: bool) -> None:
    task = asked_at(world, 100)
    (name,) = names(task.outputs)
    task = world.services.table.move(task, None, copies=1, updated_at=world.clock.now)
    if late:
        world.services.table.move(task, Phase.EXPIRED, expired_at=world.clock.now, updated_at=world.clock.now)
    unnamed = {"id": "0", "url": f"{VIDEO_URL}-of-another-day", "duration": "5"}
    world.provider.videos = lambda sold: [unnamed]
    step = advance(world.services, task.id, AdvanceInput("callback"))
    assert (step.next, step.task.outputs) == ("archive", [{**unnamed, "name": name}])


@pytest.mark.parametrize(("early", "asked"), [(1, 1), (0, 0)])
def test_the_watch_ends_after_30_days_to_the_millisecond(cloud: Cloud, early: int, asked: int) -> None:
    world = World(cloud, deadline_seconds=600)
    world.provider.seconds = 10**7
    task = asked_at(world, 601)
    assert task.phase is Phase.EXPIRED
    world.clock.now, before = task.created_at + 30 * 86_400_000 - early, len(world.provider.queries)
    step = advance(world.services, task.id, AdvanceInput("callback"))
    assert (step.next, step.task.phase, step.task.due_at is None) == ("done", Phase.EXPIRED, not asked)
    assert len(world.provider.queries) == before + asked
    assert advance(world.services, task.id, AdvanceInput("callback")).next == "done"


@pytest.mark.parametrize("odd", ["odd", "no_url", "foreign", "trouble", "unknown"])
def test_a_second_copy_goes_on_with_the_old_address_where_there_is_no_fresh_one(world: World, odd: str) -> None:
    task = asked_at(world, 100)
    task = world.services.table.move(task, None, copies=1, updated_at=world.clock.now)
    world.provider.query_faults = [odd]
    step = advance(world.services, task.id, AdvanceInput("callback"))
    assert (step.next, step.task.outputs, step.task.units) == ("archive", task.outputs, "1.5")
    assert len(world.provider.queries) == 2


@pytest.mark.parametrize(
    ("said", "asked"), [("submitted", 0), ("processing", 1), ("succeed", 1), ("odd", 1), (None, 1)]
)
def test_only_a_claim_that_tells_less_than_the_row_is_not_worth_a_question(
    world: World, said: str | None, asked: int
) -> None:
    task = world.create()
    world.clock.tick(10)
    world.callback(task, {"task_id": "up-1", "task_status": said})
    assert len(world.provider.queries) == asked


@pytest.mark.parametrize(("seconds", "woken"), [(10, []), (100, ["archive"])])
def test_nobody_is_woken_for_a_claim_that_is_not_true(
    world: World, monkeypatch: pytest.MonkeyPatch, seconds: float, woken: list[str]
) -> None:
    task, steps = world.create(), list[Any]()
    world.clock.tick(seconds)
    monkeypatch.setattr(step_functions, "wake", lambda services, step: steps.append(step.next))
    world.callback(task, {"task_id": "up-1", "task_status": "succeed"})
    assert steps == woken


@pytest.mark.parametrize(("said", "sooner"), [("processing", False), ("succeed", True), (None, True)])
def test_inside_the_gap_only_a_claim_of_an_end_brings_the_next_look_forward(
    world: World, said: str | None, sooner: bool
) -> None:
    task = world.create()
    world.clock.tick(1)
    world.provider.query_faults = ["odd"]
    world.callback(task, {"task_id": "up-1", "task_status": "processing"})
    world.callback(task, {"task_id": "up-1", "task_status": said})
    after = world.task(task.id)
    assert after.phase is Phase.SUBMITTED and len(world.provider.queries) == 1
    assert after.due_at == (world.clock.now + 5000 if sooner else task.due_at)


def test_what_a_running_task_is_said_to_have_been_is_not_worth_a_question(world: World) -> None:
    task = asked_at(world, 10)
    assert task.phase is Phase.PROCESSING and len(world.provider.queries) == 1
    world.clock.tick(10)
    world.callback(task, {"task_id": "up-1", "task_status": "submitted"})
    assert len(world.provider.queries) == 1


@pytest.mark.parametrize(("early", "phase"), [(1, Phase.PROCESSING), (0, Phase.EXPIRED)])
def test_the_deadline_is_kept_to_the_millisecond(cloud: Cloud, early: int, phase: Phase) -> None:
    world = World(cloud, deadline_seconds=600)
    world.provider.seconds = 10**7
    task = world.create()
    world.clock.now = task.created_at + 600_000 - early
    assert advance(world.services, task.id, AdvanceInput("callback")).task.phase is phase


def test_an_expired_submission_in_doubt_is_looked_up_again_in_six_hours(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=600)
    world.provider.submit_faults = ["dropped"]
    task = world.until_closed(world.create().id)
    assert task.phase is Phase.EXPIRED and task.upstream_id is None
    step, now = advance(world.services, task.id, AdvanceInput("callback")), world.clock.now
    assert (step.next, step.task.phase, step.task.due_at) == ("done", Phase.EXPIRED, now + 6 * 3_600_000)


@pytest.mark.parametrize(("early", "phase"), [(1, Phase.RENDERED), (0, Phase.EXPIRED)])
def test_a_late_copy_has_until_the_end_of_the_watch(world: World, early: int, phase: Phase) -> None:
    task = asked_at(world, 100)
    world.services.table.move(task, None, expired_at=world.clock.now)
    world.clock.now = task.created_at + 30 * 86_400_000 - early
    assert advance(world.services, task.id, AdvanceInput("callback")).task.phase is phase


def test_a_video_that_comes_when_nobody_watched_any_more_is_looked_after(world: World) -> None:
    task = world.create()
    expired = world.services.table.move(task, Phase.EXPIRED, updated_at=world.clock.now)
    world.services.table.move(expired, None, due_at=None, updated_at=world.clock.now)
    world.clock.tick(100)
    step = advance(world.services, task.id, AdvanceInput("callback"))
    assert step.task.phase is Phase.RENDERED and world.row(f"task#{task.id}")["queue"] == {"S": "open"}


@pytest.mark.parametrize(
    ("end", "fault", "found"),
    [("succeed", "", 1), ("failed", "", 1), ("succeed", "no_url", 0), ("succeed", "odd", 0), ("succeed", "trouble", 0)],
)
def test_a_poll_that_finds_an_end_is_counted(world: World, end: Any, fault: str, found: int) -> None:
    world.provider.end = end
    task = world.create()
    world.clock.tick(100)
    world.provider.query_faults = [fault]
    advance(world.services, task.id, AdvanceInput("poll", must_end_by=world.clock.now + 60_000))
    assert (world.measured["PollsMade"], world.measured["PollsFoundEnd"]) == (1, found)


@pytest.mark.parametrize("settings", [{}, {"monthly_cap_units": 100}])
def test_what_costs_its_estimate_or_has_none_is_not_dear(
    cloud: Cloud, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    world = World(cloud, **settings)
    task = world.create()
    assert (task.reserved is None) is not bool(settings)
    world.provider.units = str((task.reserved or 9000) / 1000)
    world.clock.tick(100)
    rendered = advance(world.services, task.id, AdvanceInput("callback")).task
    assert rendered.phase is Phase.RENDERED and rendered.settled == task.reserved
    assert "cost_above_estimate" not in caplog.messages


def test_a_failure_without_words(world: World) -> None:
    world.provider.end, world.provider.words = "failed", ""
    assert asked_at(world, 100).reason == "the provider gave no reason"
