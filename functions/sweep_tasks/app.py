"""Every minute: new workflows for tasks that are overdue, and a turn for tasks that wait for room."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay import sweeper
from kling_relay.observability import logger
from kling_relay.relay import current


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    started = sweeper.sweep(current())
    logger.info("swept", extra=started)
    return started
