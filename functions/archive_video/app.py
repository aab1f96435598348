"""Workflow step: the provider's videos into our bucket, then tell advance() how it went."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.dynamodb import ConflictError
from kling_relay.lifecycle import late_copies
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.archive import copy_outputs, start_copy_attempt
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.observability import Metric, logger
from kling_relay.services import get_services
from kling_relay.tasks.task import Phase
from kling_relay.transfer.s3_copy import ArchiveError


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    services, task_id = get_services(), event["task_id"]
    logger.append_keys(task_id=task_id)
    task = services.table.get(task_id)
    if task is None or task.execution != event["execution"]:
        return {"task_id": task_id, "next": "advance"}  # replaced
    if late_copies.awaits_late_copies(services, task):
        late_copies.remove_late_copies(services, task)
        return {"task_id": task_id, "next": "done"}
    if task.phase is not Phase.RENDERED:
        return {"task_id": task_id, "next": "advance"}  # moved meanwhile: the row decides
    left_ms = context.get_remaining_time_in_millis()
    try:
        task = start_copy_attempt(services, task, services.clock.now_ms() + left_ms)
    except ConflictError:  # another copier has ended it: an error would ring FunctionErrorsAlarm
        return {"task_id": task_id, "next": "advance"}
    try:
        videos = copy_outputs(services, task, seconds=left_ms / 1000 - 10)
        inputs = AdvanceInput(copied=videos)
        logger.info("videos_copied", extra={"videos": len(videos), "bytes": sum(video["size"] for video in videos)})
    except ArchiveError as exc:
        inputs = AdvanceInput(copy_failed=exc.reason)
        logger.warning("copy_failed", extra={"reason": exc.reason, "copy_attempts": task.copies})
        services.measure({Metric.ARCHIVE_FAILED: 1})
    task = services.table.get(task_id) or task
    if task.deleted_at is not None:
        late_copies.undo_copy(services, task)
        return {"task_id": task_id, "next": "done"}
    # A failed copy is no error of the function: that rings FunctionErrorsAlarm, and mostly the provider is the cause.
    return advance(services, task_id, inputs, known=task).as_state()
