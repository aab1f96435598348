"""Receive the provider's webhook. lifecycle/callback.py holds the rules."""

import base64
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.lifecycle import callback
from kling_relay.observability import logger
from kling_relay.services import get_services
from kling_relay.tasks.task import is_task_id

_RESPONSES = {  # constant: an answer does not reveal whether a task exists
    200: '{"code":0,"message":"SUCCEED","request_id":""}',
    404: '{"code":1202,"message":"method or path not found","request_id":""}',
    503: '{"code":5001,"message":"try again","request_id":""}',
}


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    path = event.get("pathParameters") or {}
    task_id, token = str(path.get("task_id", "")), str(path.get("token", ""))
    if is_task_id(task_id):
        logger.append_keys(task_id=task_id)
    status = callback.receive(get_services(), task_id, token, lambda: (event.get("headers") or {}, _body(event)))
    headers = {"Content-Type": "application/json"}
    return {"statusCode": status, "headers": headers, "body": _RESPONSES[status]}


def _body(event: dict[str, Any]) -> bytes | None:
    body = event.get("body") or ""
    try:
        return base64.b64decode(body) if event.get("isBase64Encoded") else body.encode("utf-8", "surrogatepass")
    except ValueError:
        return None
