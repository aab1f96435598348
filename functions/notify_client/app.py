"""Deliver a task's notifications, an event on the stack's bus and a client's webhook. Invoked asynchronously."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.notifications import deliver
from kling_relay.observability import logger
from kling_relay.services import get_services


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    services, task_id = get_services(), event["task_id"]
    logger.append_keys(task_id=task_id)
    deliver.tell(services, task_id, services.clock.now_ms() + context.get_remaining_time_in_millis())
