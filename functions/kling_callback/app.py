"""The provider's webhook: a valid token makes us ask the provider; the body is not believed."""

import base64
import json
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.advance import on_callback
from kling_relay.observability import logger
from kling_relay.relay import current
from kling_relay.snapshot import Snapshot, read
from kling_relay.webhooks import is_callback_token

_MAX_BODY_BYTES = 65_536
# Constant, so that nobody learns from it whether a task exists.
_NOT_FOUND = {
    "statusCode": 404,
    "headers": {"Content-Type": "application/json"},
    "body": '{"code":1202,"message":"no such method or path","request_id":""}',
}
_DONE = {**_NOT_FOUND, "statusCode": 200, "body": '{"code":0,"message":"SUCCEED","request_id":""}'}


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    relay = current()
    place = event.get("pathParameters") or {}
    task_id, token = str(place.get("task_id", "")), str(place.get("token", ""))
    if not is_callback_token(relay.keyring, task_id, token):
        return _NOT_FOUND
    logger.append_keys(task_id=task_id)
    try:
        on_callback(relay, task_id, _claim(event))
    except Exception as exc:  # the poll finds out as well: an error would only make the provider repeat itself
        logger.exception("callback_not_used", extra={"error": type(exc).__name__})
    return _DONE


def _claim(event: dict[str, Any]) -> Snapshot | None:
    """What the body says of the task, in any dialect, or None where it says nothing that can be read."""
    body = event.get("body") or ""
    try:
        text = base64.b64decode(body) if event.get("isBase64Encoded") else body
        return read(json.loads(text)) if len(text) <= _MAX_BODY_BYTES else None
    except (ValueError, RecursionError):
        return None
