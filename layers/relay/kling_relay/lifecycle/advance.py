"""Advance a task: the only code that moves one. API, callback, workflow and archive all call it."""

from collections.abc import Callable

from kling_relay.dynamodb import ConflictError
from kling_relay.lifecycle import confirm, late_copies, queue, submit
from kling_relay.lifecycle.archive import on_rendered
from kling_relay.lifecycle.poll import on_expired, on_running
from kling_relay.lifecycle.step import AdvanceInput, Step
from kling_relay.notifications import deliver
from kling_relay.services import Services
from kling_relay.tasks.task import AT_THE_PROVIDER, Phase, Task

_MAX_MOVES = 20  # a task has nine phases: more moves in one call mean that another writer interferes


class TaskNotFoundError(Exception):
    """No row has that id."""


def advance(
    services: Services,
    task_id: str,
    inputs: AdvanceInput,
    *,
    execution: str | None = None,
    known: Task | None = None,
) -> Step:
    """Move the task as far as possible now, and return the next step.

    `execution`: the name of the calling workflow; a replaced one gets "done". `known`: the row as the caller has just
    read or written it, which saves a read. Raises TaskNotFoundError; errors of AWS are raised too, and the caller
    retries: every step is repeatable. A failure at the provider is not an error.
    """
    step = _advance(services, task_id, inputs, execution, known)
    deliver.invoke_notifier(services, step.task)
    return step


def _advance(services: Services, task_id: str, inputs: AdvanceInput, execution: str | None, task: Task | None) -> Step:
    for _ in range(_MAX_MOVES):
        if task is None:
            task = services.table.get(task_id)
        if task is None:
            raise TaskNotFoundError(task_id)
        if execution is not None and task.execution != execution:
            return Step(task, "done")
        try:
            after = _HANDLERS[task.phase](services, task, inputs)
        except ConflictError:
            task = None
            continue
        moved = after.task if isinstance(after, Step) else after
        if task.phase in AT_THE_PROVIDER and moved.phase not in AT_THE_PROVIDER:
            queue.on_slot_freed(services)
        if isinstance(after, Step):
            return after
        task = after
    raise RuntimeError(f"task {task_id} did not come to rest in {_MAX_MOVES} moves")


def _end(services: Services, task: Task, inputs: AdvanceInput) -> Step:
    return Step(task, "archive" if late_copies.awaits_late_copies(services, task) else "done")


_HANDLERS: dict[Phase, Callable[[Services, Task, AdvanceInput], Task | Step]] = {
    Phase.ACCEPTED: submit.submit,
    Phase.SUBMITTING: confirm.on_submitting,
    Phase.UNCONFIRMED: confirm.on_unconfirmed,
    Phase.SUBMITTED: on_running,
    Phase.PROCESSING: on_running,
    Phase.RENDERED: on_rendered,
    Phase.SUCCEEDED: _end,
    Phase.FAILED: _end,
    Phase.EXPIRED: on_expired,
}
