"""A client's POST, or a dropped file: record the task, then take its first step."""

from kling_relay.api import create as intake
from kling_relay.api.request import Request
from kling_relay.lifecycle import step_functions
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.facts import Facts
from kling_relay.observability import logger
from kling_relay.services import Relay
from kling_relay.tasks.s3_source import Source
from kling_relay.tasks.task import Phase, Task


def create(
    relay: Relay,
    tenant: str,
    asked: Request,
    idempotency_key: str | None,
    left_ms: int,
    source: Source | None = None,
) -> Task:
    """The recorded and, if all goes well, submitted task. Raises KlingError where it is refused."""
    must_end_by = relay.clock.now_ms() + left_ms
    task = intake.record(relay, tenant, asked, idempotency_key, source)
    logger.append_keys(task_id=task.id)
    if asked.notes:
        logger.warning("request_noted", extra={"notes": asked.notes})
    if task.phase is Phase.ACCEPTED and task.attempt == 0 and not task.waits_for:  # nothing has happened to it yet
        task = _submit(relay, task, Facts(must_end_by=must_end_by, fresh=True, images=asked.images))
    if task.refusal is not None:  # now, or when the same request came before
        raise task.refusal
    return task


def _submit(relay: Relay, task: Task, facts: Facts) -> Task:
    """From here on the task is on record: whatever goes wrong now, the sweeper carries on with it, so the client gets
    its id and never an error that makes it pay twice."""
    try:
        step = advance(relay, task.id, facts, known=task)
        if step.next != "done":
            step_functions.start(relay, step)
    except Exception as exc:
        logger.exception("left_to_the_sweeper", extra={"error": type(exc).__name__})
        return task
    return step.task
