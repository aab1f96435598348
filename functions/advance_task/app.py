"""Advance one task by one step and return the workflow's next state."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.lifecycle.advance import TaskNotFoundError, advance
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.observability import logger
from kling_relay.services import get_services


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    services = get_services()
    logger.append_keys(task_id=event["task_id"])
    must_end_by = services.clock.now_ms() + context.get_remaining_time_in_millis()
    try:
        step = advance(
            services, event["task_id"], AdvanceInput("poll", must_end_by=must_end_by), execution=event["execution"]
        )
    except TaskNotFoundError:
        logger.warning("task_not_found")
        return {"task_id": event["task_id"], "next": "done"}
    return step.as_state()
