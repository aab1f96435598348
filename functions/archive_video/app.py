"""Copy the provider's videos into the video bucket and pass the result to advance()."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.lifecycle import late_copies
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.archive import copy_outputs, start_copy_attempt
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.observability import Metric, logger
from kling_relay.services import get_services
from kling_relay.transfer.s3_copy import ArchiveError


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    services, task_id, left_ms = get_services(), event["task_id"], context.get_remaining_time_in_millis()
    logger.append_keys(task_id=task_id)
    task = start_copy_attempt(services, task_id, event["execution"], left_ms)
    if isinstance(task, str):
        return {"task_id": task_id, "next": task}
    try:
        videos = copy_outputs(services, task, seconds=left_ms / 1000 - 10)
        inputs = AdvanceInput("archive", copied=videos)
        logger.info("videos_copied", extra={"videos": len(videos), "bytes": sum(video["size"] for video in videos)})
    except ArchiveError as exc:
        inputs = AdvanceInput("archive", copy_failed=exc.reason)
        logger.warning("copy_failed", extra={"reason": exc.reason, "copy_attempts": task.copies})
        services.measure({Metric.ARCHIVE_FAILED: 1})
    task = services.table.get(task_id) or task
    if task.deleted_at is not None:
        late_copies.undo_copy(services, task)
        return {"task_id": task_id, "next": "done"}
    # A failed copy raises no error: that sets off FunctionErrorsAlarm, and the usual cause is the provider.
    return advance(services, task_id, inputs, known=task).as_state()
