"""The provider's webhook: a valid token makes us ask the provider; the body is not believed.

Where the operator has stored the provider's webhook secret, a callback that carries a signature has to prove it; one
without is taken unless the stack requires signatures, since relays pass callbacks on unsigned.
"""

import base64
import json
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.lifecycle.advance import HintNotKept, on_callback
from kling_relay.observability import Metric, logger
from kling_relay.provider.responses import Snapshot, read
from kling_relay.security.callback_tokens import PROBE, SIGNATURE_HEADERS, is_callback_token, is_signed
from kling_relay.services import Relay, current
from kling_relay.tasks.task import is_task_id

_MAX_BODY_BYTES = 65_536
# Constant, so that nobody learns from it whether a task exists.
_NOT_FOUND = {
    "statusCode": 404,
    "headers": {"Content-Type": "application/json"},
    "body": '{"code":1202,"message":"no such method or path","request_id":""}',
}
_AGAIN = {**_NOT_FOUND, "statusCode": 503, "body": '{"code":5001,"message":"try again","request_id":""}'}
_DONE = {**_NOT_FOUND, "statusCode": 200, "body": '{"code":0,"message":"SUCCEED","request_id":""}'}


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    relay = current()
    place = event.get("pathParameters") or {}
    task_id, token = str(place.get("task_id", "")), str(place.get("token", ""))
    if is_task_id(task_id):
        logger.append_keys(task_id=task_id)
    if not is_callback_token(relay.keyring, task_id, token):
        return _rejected(relay, "token")
    body = _body(event)
    try:
        if not _may_pass(relay, event.get("headers") or {}, body):
            return _rejected(relay, "signature")
        if task_id != PROBE:
            on_callback(relay, task_id, _claim(body))
    except HintNotKept:
        logger.exception("callback_not_kept")
        return _AGAIN
    except Exception as exc:  # the poll finds out as well: an error would only make the provider repeat itself
        logger.exception("callback_not_used", extra={"error": type(exc).__name__})
    return _DONE


def _rejected(relay: Relay, why: str) -> dict[str, Any]:
    logger.warning("callback_rejected", extra={"reason": why})
    relay.measure({Metric.CALLBACKS_REJECTED: 1})
    return _NOT_FOUND


def _body(event: dict[str, Any]) -> bytes | None:
    """The bytes as they were sent, or None where the gateway's encoding of them is broken."""
    body = event.get("body") or ""
    try:
        return base64.b64decode(body) if event.get("isBase64Encoded") else body.encode("utf-8", "surrogatepass")
    except ValueError:
        return None


def _may_pass(relay: Relay, headers: dict[str, str], body: bytes | None) -> bool:
    """Whether the signature is right, or there need be none."""
    given = {name.lower(): text for name, text in headers.items()}
    required = relay.settings.require_webhook_signature == "on"
    if not required and not given.keys() & set(SIGNATURE_HEADERS):
        return True
    secrets, now = relay.webhook_secrets(), relay.clock.now_ms() / 1000
    if not secrets and not required:
        return True  # signed with the secret of a relay in between, which we cannot know
    if body is None:
        return False
    return is_signed(secrets, given, body, now) or is_signed(relay.webhook_secrets(refresh=True), given, body, now)


def _claim(body: bytes | None) -> Snapshot | None:
    """What the body says of the task, in any dialect, or None where it says nothing that can be read."""
    try:
        return read(json.loads(body)) if body is not None and len(body) <= _MAX_BODY_BYTES else None
    except (ValueError, RecursionError):
        return None
