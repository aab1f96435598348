"""Sweep once a minute: restart overdue workflows, start waiting tasks, and end tasks that waited too long."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.lifecycle import sweep
from kling_relay.observability import logger
from kling_relay.services import get_services


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    services = get_services()
    started = sweep.sweep(services, services.clock.now_ms() + context.get_remaining_time_in_millis())
    logger.info("sweep_completed", extra=started)
    return started
