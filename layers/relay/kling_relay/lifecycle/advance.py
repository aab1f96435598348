"""advance(task): the one function that moves a task forward. API, callback, workflow and archive all call this one."""

from collections.abc import Callable

from kling_relay.dynamodb import LostRace
from kling_relay.lifecycle import (
    confirm,
    late_copies,
    queue,
    submit,
)
from kling_relay.lifecycle.archive import on_rendered
from kling_relay.lifecycle.poll import on_expired, on_running
from kling_relay.lifecycle.step import NOTHING, Facts, Step
from kling_relay.notifications import deliver
from kling_relay.services import Relay
from kling_relay.tasks.task import AT_THE_PROVIDER, Phase, Task

_MOST_MOVES = 20  # a task has nine phases: more than this in one call means that somebody is fighting with us


class NoSuchTask(Exception):
    """There is no row of that id."""


def advance(
    relay: Relay, task_id: str, facts: Facts = NOTHING, *, execution: str | None = None, known: Task | None = None
) -> Step:
    """Move the task as far as it goes now, and say what comes next.

    `execution`: the name of the workflow that asks; one that has been replaced is told to end. `known`: the row as the
    caller has just read or written it, which spares reading it again. Raises NoSuchTask;
    errors of AWS pass through (the caller retries: everything here can be repeated). Trouble at the provider is no
    error.
    """
    step = _advance(relay, task_id, facts, execution, known)
    deliver.hand_over(relay, step.task)
    return step


def _advance(relay: Relay, task_id: str, facts: Facts, execution: str | None, task: Task | None) -> Step:
    for _ in range(_MOST_MOVES):
        if task is None:
            task = relay.table.get(task_id)
        if task is None:
            raise NoSuchTask(task_id)
        if execution is not None and task.execution != execution:
            return Step(task, "done")
        try:
            after = _MOVERS[task.phase](relay, task, facts)
        except LostRace:
            task = None
            continue
        moved = after.task if isinstance(after, Step) else after
        if task.phase in AT_THE_PROVIDER and moved.phase not in AT_THE_PROVIDER:
            queue.room_was_made(relay)
        if isinstance(after, Step):
            return after
        task = after
    raise RuntimeError(f"task {task_id} did not come to rest in {_MOST_MOVES} moves")


def _end(relay: Relay, task: Task, facts: Facts) -> Step:
    return Step(task, "archive" if late_copies.awaits_late_copies(relay, task) else "done")


_MOVERS: dict[Phase, Callable[[Relay, Task, Facts], Task | Step]] = {
    Phase.ACCEPTED: submit.submit,
    Phase.SUBMITTING: confirm.lease_over,
    Phase.UNCONFIRMED: confirm.look_up,
    Phase.SUBMITTED: on_running,
    Phase.PROCESSING: on_running,
    Phase.RENDERED: on_rendered,
    Phase.SUCCEEDED: _end,
    Phase.FAILED: _end,
    Phase.EXPIRED: on_expired,
}
