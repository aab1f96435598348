"""Run one operator action. Callable through IAM only: no public address leads here."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.observability import logger
from kling_relay.operations.action_table import ACTIONS
from kling_relay.services import get_services


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    action = ACTIONS.get(str(event.get("action")))
    if action is None:
        raise ValueError(f"action: must be one of {', '.join(ACTIONS)} (got {event.get('action')!r})")
    logger.append_keys(task_id=event.get("task_id"))
    logger.info("operator_action_invoked", extra={"action": event["action"]})
    return action(get_services(), event)
