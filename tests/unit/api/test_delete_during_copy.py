"""Test DELETE of a task during its copy: in any order, and with any death, no copy stays in the bucket.

Document (AWS): S3 reads and lists are consistent after each write, and Lambda kills a function at its timeout. Guess: a
copier may pause between any two of its calls for as long as it lives.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from kling_relay.dynamodb import ConflictError
from kling_relay.lifecycle import late_copies, polling
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.tasks.task import Phase, Task
from kling_relay.transfer.s3_copy import ArchiveError

from tests.support.counted_effects import DEATHS, Crash
from tests.support.stack_in_memory import Cloud, World, template
from tests.unit.api.test_delete import delete, objects
from tests.unit.operations.test_widget_views import drawn

pytestmark = pytest.mark.slow

TABLE_IN_MEMORY = True
DEADLINE = 600
COPIERS_GONE = polling.COPY_SECONDS + polling.GRACE_SECONDS


@pytest.fixture
def world(cloud: Cloud) -> World:
    return World(cloud, deadline_seconds=DEADLINE)


def rendered(world: World) -> Task:
    """A task that waits for its copy, in a workflow that this test plays."""
    task = world.create()
    world.states.kill()
    world.clock.tick(100)
    assert advance(world.services, task.id, AdvanceInput("callback")).next == "archive"
    return world.task(task.id)


def copy(world: World, task: Task) -> None:
    """A copier, from its start to its end or its death."""
    with suppress(Crash, ConflictError):
        world.call("archive_video", {"task_id": task.id, "execution": task.execution})


def expire_and_delete(world: World, task: Task) -> None:
    world.clock.tick(DEADLINE)
    assert advance(world.services, task.id, AdvanceInput("callback")).task.phase is Phase.EXPIRED
    assert delete(world, task.id)[0] == 200


def succeed_and_delete(world: World, task: Task) -> None:
    """A second copier comes first."""
    copy(world, task)
    assert world.task(task.id).phase is Phase.SUCCEEDED
    assert delete(world, task.id)[0] == 200


WAYS = (expire_and_delete, succeed_and_delete)
Meanwhile = Callable[[World, Task], None]


def at_effect(world: World, number: int, call: Callable[[], None]) -> None:
    """`call` happens once, before the `number`-th effect from here."""
    wanted = len(world.effects.names) + number

    def pause(name: str) -> None:
        if len(world.effects.names) + 1 == wanted:
            world.effects.pause = lambda _: None
            call()

    world.effects.pause = pause


def settled(world: World, task: Task) -> None:
    """Nothing is left, of the videos or for the sweeper, and the task stays as it was deleted."""
    before = world.task(task.id)
    world.effects.plan.clear()
    world.run(COPIERS_GONE + 300)
    after = world.task(task.id)
    assert objects(world, task.id) == []
    assert (after.due_at, after.phase, after.deleted_at) == (None, before.phase, before.deleted_at)
    assert not any(one.open for one in world.states.executions.values())
    swept = len(world.states.executions)
    world.run(7200)
    assert len(world.states.executions) == swept


def effects_of_a_copy(world: World) -> int:
    task = rendered(world)
    begun = len(world.effects.names)
    copy(world, task)
    assert world.task(task.id).phase is Phase.SUCCEEDED
    return len(world.effects.names) - begun


@pytest.mark.parametrize("meanwhile", WAYS)
def test_a_copy_that_is_stored_after_a_removal_goes_at_once(world: World, meanwhile: Meanwhile) -> None:
    assert effects_of_a_copy(world) == 3  # start_copy_attempt, the copy, its end
    task = rendered(world)
    at_effect(world, 2, lambda: meanwhile(world, task))
    copy(world, task)
    assert world.task(task.id).deleted_at is not None and objects(world, task.id) == []
    settled(world, task)


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("meanwhile", WAYS)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_nothing_stays_whoever_dies(
    world: World, monkeypatch: pytest.MonkeyPatch, meanwhile: Meanwhile, number: int, failing: bool
) -> None:
    """DELETE comes before the n-th effect of a copier, which dies before or after each of its own later effects."""
    if failing:
        monkeypatch.setattr(world.cloud.apps["archive_video"], "copy_outputs", fails_after_the_first(world))
    for later in range(3):
        for death in DEATHS:
            world.copy_faults.clear()
            task = rendered(world)

            def interfere(task: Task = task, death: str = death, later: int = later) -> None:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(world.cloud.apps["archive_video"], "copy_outputs", world._copy)
                    meanwhile(world, task)
                world.effects.after(later + 1, death)

            at_effect(world, number, interfere)
            copy(world, task)
            world.effects.pause = lambda _: None
            if world.task(task.id).deleted_at is None:  # the copier had nothing left to do
                world.effects.plan.clear()
                assert delete(world, task.id)[0] == 200
            settled(world, task)


def fails_after_the_first(world: World) -> Callable[..., Any]:
    """A copier of several videos that stores one and fails at the next."""

    def copies(*given: Any, **more: Any) -> Any:
        world._copy(*given, **more)
        raise ArchiveError("truncated")

    return copies


def test_a_copier_that_dies_as_soon_as_it_has_stored_is_swept_after(world: World) -> None:
    task = rendered(world)

    def interfere() -> None:
        expire_and_delete(world, task)
        world.effects.after(1, "dies after")  # the copy itself

    at_effect(world, 2, interfere)
    copy(world, task)
    deleted = world.task(task.id)
    assert len(objects(world, task.id)) == 1, "this test has to leave a copy behind"
    assert deleted.due_at == (deleted.deleted_at or 0) + COPIERS_GONE * 1000
    world.run(COPIERS_GONE - 60)
    assert len(objects(world, task.id)) == 1  # copiers may still be at work: once is enough
    settled(world, task)


def test_operators_do_not_read_that_a_deleted_task_waits(world: World) -> None:
    done = world.until_closed(world.create().id)
    delete(world, done.id)
    assert world.task(done.id).due_at is not None
    assert "waits for" not in drawn(world, "task", task=done.id).text


@pytest.mark.parametrize("death", DEATHS)
def test_a_delete_that_dies_before_it_removes_is_swept_after(world: World, death: str) -> None:
    done = world.until_closed(world.create().id)
    world.effects.after(2, death)  # the mark comes first
    with pytest.raises(Crash):
        delete(world, done.id)
    assert world.effects.fired == [f"{death}: delete_objects ({len(world.effects.names)})"]
    settled(world, done)


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("effect", [1, 2])
def test_a_sweep_that_dies_is_followed_by_the_next(world: World, death: str, effect: int) -> None:
    task = rendered(world)
    at_effect(world, 2, lambda: (expire_and_delete(world, task), world.effects.after(1, "dies after"))[0])
    copy(world, task)
    world.clock.tick(COPIERS_GONE)
    assert world.sweep()["overdue"] == 1
    world.effects.after(effect, death)  # the removal, or the end of the sweep for this row
    world.states.run()
    assert len(world.effects.fired) == 2
    settled(world, task)


def test_an_execution_that_has_been_replaced_leaves_the_row_due(world: World) -> None:
    done = world.until_closed(world.create().id)
    delete(world, done.id)
    stale = world.task(done.id)
    world.clock.tick(COPIERS_GONE)
    taken = world.table.take_over(stale, f"{done.id}-r1", world.clock.now + 90_000)
    late_copies.remove_late_copies(world.services, stale)
    assert world.task(done.id).due_at == taken.due_at
    late_copies.remove_late_copies(world.services, taken)
    assert world.task(done.id).due_at is None


@pytest.mark.parametrize(("early", "following"), [(1, "done"), (0, "archive")])
def test_the_row_is_taken_up_to_the_millisecond(world: World, early: int, following: str) -> None:
    done = world.until_closed(world.create().id)
    delete(world, done.id)
    world.clock.now = (world.task(done.id).due_at or 0) - early
    step = advance(world.services, done.id, AdvanceInput("callback"))
    assert step.next == following
    event = {"task_id": done.id, "execution": step.task.execution}
    assert world.call("archive_video", event)["next"] == ("advance" if early else "done")
    assert (world.task(done.id).due_at is None) is not bool(early)


def test_a_task_that_never_had_a_video_is_not_swept_after(world: World) -> None:
    world.provider.end = "failed"
    done = world.until_closed(world.create().id)
    delete(world, done.id)
    assert world.task(done.id).due_at is None


def test_a_copier_lives_no_longer_than_the_sweep_waits() -> None:
    assert template()["Resources"]["ArchiveVideoFunction"]["Properties"]["Timeout"] == polling.COPY_SECONDS
