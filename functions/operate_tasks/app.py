"""What an operator can do. Called through IAM only; no address on the internet leads here.

{"action": "create_key", "tenant": "acme"} answers the new key, once; {"action": "revoke_key", "key_id": "..."} ends
one.
"""

import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay import auth
from kling_relay.observability import logger
from kling_relay.relay import Relay, current

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # it becomes part of S3 keys


def _create_key(relay: Relay, event: dict[str, Any]) -> dict[str, Any]:
    tenant = event.get("tenant")
    if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
        raise ValueError(f"tenant: 1 to 63 of a-z, 0-9 and '-', beginning with a letter or digit; sent: {tenant!r}")
    return asdict(auth.issue(relay.table, relay.keyring, tenant, relay.clock.now_ms()))


def _revoke_key(relay: Relay, event: dict[str, Any]) -> dict[str, Any]:
    return {"revoked": relay.table.revoke_key(str(event.get("key_id", "")))}


ACTIONS: dict[str, Callable[[Relay, dict[str, Any]], dict[str, Any]]] = {
    "create_key": _create_key,
    "revoke_key": _revoke_key,
}


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    action = ACTIONS.get(str(event.get("action")))
    if action is None:
        raise ValueError(f"action: one of {', '.join(ACTIONS)}; sent: {event.get('action')!r}")
    logger.info("operator_action", extra={"action": event["action"]})
    return action(current(), event)
