"""What an operator can do. Called through IAM only; no address on the internet leads here.

{"action": "create_key", "tenant": "acme"} answers the new key, once. More, all optional: "label", "scopes" (list of
"submit", "read"), and "expires_in_days" or "expires_at" (ISO date or time; UTC where it names no zone).
{"action": "list_keys", "tenant": "acme"} answers what is known of a tenant's keys, never a key.
{"action": "revoke_key", "key_id": "..."} ends one, at once.
"""

import re
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay import auth
from kling_relay.keys import SCOPES, KeyRow
from kling_relay.observability import logger
from kling_relay.relay import Relay, current

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # it becomes part of S3 keys
_LONGEST_LABEL = 80
_MOST_DAYS = 3650
_DAY_MS = 86_400_000


def _create_key(relay: Relay, event: dict[str, Any]) -> dict[str, Any]:
    tenant, now = _tenant(event), relay.clock.now_ms()
    wanted = {"label": _label(event), "scopes": _scopes(event), "valid_until": _valid_until(event, now)}
    return asdict(auth.issue(relay.keys, relay.keyring, tenant, now, **wanted))


def _list_keys(relay: Relay, event: dict[str, Any]) -> dict[str, Any]:
    return {"keys": [_listed(key, relay.clock.now_ms()) for key in relay.keys.of(_tenant(event))]}


def _revoke_key(relay: Relay, event: dict[str, Any]) -> dict[str, Any]:
    return {"revoked": relay.keys.revoke(str(event.get("key_id", "")), relay.clock.now_ms())}


def _listed(key: KeyRow, now: int) -> dict[str, Any]:
    """Field by field: neither the hash nor anything else that is added to the row leaves here."""
    return {
        "key_id": key.key_id,
        "label": key.label,
        "scopes": list(key.scopes),
        "state": key.state(now),
        "created_at": key.created_at,
        "expires_at": key.valid_until,
    }


def _tenant(event: dict[str, Any]) -> str:
    tenant = event.get("tenant")
    if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
        raise ValueError(f"tenant: 1 to 63 of a-z, 0-9 and '-', beginning with a letter or digit; sent: {tenant!r}")
    return tenant


def _label(event: dict[str, Any]) -> str:
    label = event.get("label", "")
    if not isinstance(label, str) or len(label) > _LONGEST_LABEL or not label.isprintable():
        raise ValueError(f"label: at most {_LONGEST_LABEL} printable characters; sent: {label!r}")
    return label


def _scopes(event: dict[str, Any]) -> tuple[str, ...]:
    scopes = event.get("scopes", list(SCOPES))
    if not isinstance(scopes, list) or not scopes or any(scope not in SCOPES for scope in scopes):
        raise ValueError(f"scopes: a list of {' and '.join(SCOPES)}, or one of them; sent: {scopes!r}")
    return tuple(scope for scope in SCOPES if scope in scopes)


def _valid_until(event: dict[str, Any], now: int) -> int | None:
    days, text = event.get("expires_in_days"), event.get("expires_at")
    if days is not None and text is not None:
        raise ValueError(f"expires_at: not together with expires_in_days; sent: {text!r}, {days!r}")
    if days is not None:
        if type(days) is not int or not 1 <= days <= _MOST_DAYS:
            raise ValueError(f"expires_in_days: a whole number from 1 to {_MOST_DAYS}; sent: {days!r}")
        return now + days * _DAY_MS
    if text is None:
        return None
    try:
        given = datetime.fromisoformat(text)
        until = int((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp() * 1000)
    except (TypeError, ValueError, OverflowError):
        until = 0
    if until <= now:
        raise ValueError(f"expires_at: a date or time to come, such as 2027-01-31; sent: {text!r}")
    return until


ACTIONS: dict[str, Callable[[Relay, dict[str, Any]], dict[str, Any]]] = {
    "create_key": _create_key,
    "list_keys": _list_keys,
    "revoke_key": _revoke_key,
}


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    action = ACTIONS.get(str(event.get("action")))
    if action is None:
        raise ValueError(f"action: one of {', '.join(ACTIONS)}; sent: {event.get('action')!r}")
    logger.info("operator_action", extra={"action": event["action"]})
    return action(current(), event)
