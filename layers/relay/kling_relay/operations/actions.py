"""Perform an operator's actions, one function for each: keys, caps, the kill switch. Bad input raises ValueError."""

import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from kling_relay.dynamodb import ConflictError
from kling_relay.lifecycle import step_functions
from kling_relay.notifications import deliver, webhook_retry
from kling_relay.security import auth, callback_tokens
from kling_relay.security.api_keys import SCOPES, KeyRow
from kling_relay.services import Services
from kling_relay.tasks.spend_cap import MAX_UNITS, month_of
from kling_relay.tasks.task import Phase, copy_can_be_repeated

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # it becomes part of S3 keys
_LONGEST_LABEL = 80
_LONGEST_REASON = 200
_MAX_DAYS = 3650
_DAY_MS = 86_400_000
_MAX_TURNS = 5


def create_key(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """Create an API key of a tenant. The key is returned once, here."""
    tenant, now = _tenant(event), services.clock.now_ms()
    label, scopes, until = _label(event), _scopes(event), _valid_until(event, now)
    issued = auth.issue(services.keys, services.keyring, tenant, now, label=label, scopes=scopes, valid_until=until)
    return asdict(issued)


def list_keys(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """List a tenant's keys: their stored data, never a key."""
    return {"keys": [_listed(key, services.clock.now_ms()) for key in services.keys.of(_tenant(event))]}


def revoke_key(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """Revoke a key at once. `revoked`: whether it exists."""
    return {"revoked": services.keys.revoke(str(event.get("key_id", "")), services.clock.now_ms())}


def probe_path(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """Return the path, below the API's address, that accepts a test callback and does nothing."""
    return {"path": callback_tokens.callback_url("", services.keyring, callback_tokens.PROBE)}


def signing_secret(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """Return the secret that signs a tenant's webhooks. `change` rotates it: the old one keeps signing for a week."""
    tenant, now = _tenant(event), services.clock.now_ms()
    if event.get("change"):
        services.signing.change(tenant, now)
    return {"tenant": tenant, "secret": services.signing.secrets(services.keyring, tenant, now)[0]}


def replay_notice(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """Send a task's webhooks again, or the one of `sequence`; they keep their ids.

    A webhook that its receiver has refused for good (410) is sent too. Raises ValueError if there is none.
    """
    task_id, wanted = event.get("task_id"), event.get("sequence")
    for _ in range(_MAX_TURNS):
        task = services.table.get(str(task_id))
        if task is None:
            raise ValueError(f"task_id: task not found (got {task_id!r})")
        now, sent = services.clock.now_ms(), 0
        try:
            for notice in task.notices:
                if notice.webhook != "none" and wanted in (None, notice.number):
                    task = services.outbox.note(task, webhook_retry.restarted(notice, now))
                    sent += 1
        except ConflictError:
            continue
        if not sent:
            got = "none" if wanted is None else repr(wanted)
            raise ValueError(f"sequence: must be a webhook of the task (got {got})")
        deliver.invoke_notifier(services, task)
        return {"task_id": task.id, "webhooks": sent}
    raise RuntimeError("the task is being updated concurrently; retry")


def retry_archive(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """Copy the video of a rendered task again now, or poll again for that of a task that expired without a copy.

    `begun`: whether its workflow was woken, or a new one started; otherwise a copy is running. Raises ValueError.
    """
    task_id = event.get("task_id")
    for _ in range(_MAX_TURNS):
        task = services.table.get(str(task_id))
        if task is None:
            raise ValueError(f"task_id: task not found (got {task_id!r})")
        if not copy_can_be_repeated(task):
            raise ValueError(f"task_id: must have a failed copy (got {task.id}, which is {task.phase})")
        try:
            if task.phase is Phase.EXPIRED or (task.due_at or 0) <= services.clock.now_ms():  # no workflow handles it
                return {"task_id": task.id, "begun": step_functions.replace(services, task)}
            # Only its own workflow may start a copy: two concurrent ones would both pay for the transfer.
            return {"task_id": task.id, "begun": step_functions.rouse(services, services.table.retry_copy_now(task))}
        except ConflictError:
            continue
    raise RuntimeError("the task is being updated concurrently; retry")


def set_cap(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """Set a tenant's own monthly cap: whole units, 0 for none; null for the stack's parameter again."""
    tenant, units = _tenant(event), event.get("units")
    if units is not None and (type(units) is not int or not 0 <= units <= MAX_UNITS):
        raise ValueError(
            f"units: must be a whole number from 0 (no cap) to {MAX_UNITS}, or null for the default (got {units!r})"
        )
    services.spending.set_cap(tenant, None if units is None else units * 1000)
    return spend(services, event)


def spend(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """Return a tenant's cap and its commitment in this month (UTC), in units."""
    tenant, month = _tenant(event), month_of(services.clock.now_ms())
    cap, own = services.spending.cap(tenant)
    committed = services.spending.committed(tenant, month)
    return {"month": month, "cap_units": cap / 1000, "own_cap": own, "committed_units": committed / 1000}


def pause(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """Stop new paid POSTs at once; running tasks continue. An earlier pause stays unchanged."""
    reason = event.get("reason", "")
    if not isinstance(reason, str) or len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise ValueError(f"reason: must have at most {_LONGEST_REASON} printable characters (got {reason!r})")
    services.admissions.stop(services.clock.now_ms(), reason)
    return status(services, event)


def resume(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """End the pause: the sweeper starts the waiting tasks. `resumed`: whether there was a pause."""
    return {"resumed": services.admissions.resume(), **status(services, event)}


def status(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """Return whether sending is paused, since when (ms) and why."""
    stop = services.admissions.stopped()
    return {"paused": stop is not None, **({} if stop is None else {"since": stop.since, "reason": stop.reason})}


def _listed(key: KeyRow, now: int) -> dict[str, Any]:
    """List a key field by field: neither the hash nor any later column of the row is returned."""
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
        raise ValueError(f"tenant: must be 1 to 63 of a-z, 0-9 and '-', and not start with '-' (got {tenant!r})")
    return tenant


def _label(event: dict[str, Any]) -> str:
    label = event.get("label", "")
    if not isinstance(label, str) or len(label) > _LONGEST_LABEL or not label.isprintable():
        raise ValueError(f"label: must have at most {_LONGEST_LABEL} printable characters (got {label!r})")
    return label


def _scopes(event: dict[str, Any]) -> tuple[str, ...]:
    scopes = event.get("scopes", list(SCOPES))
    if not isinstance(scopes, list) or not scopes or any(scope not in SCOPES for scope in scopes):
        raise ValueError(f"scopes: must be a list of {' and '.join(SCOPES)}, or of one of them (got {scopes!r})")
    return tuple(scope for scope in SCOPES if scope in scopes)


def _valid_until(event: dict[str, Any], now: int) -> int | None:
    days, text = event.get("expires_in_days"), event.get("expires_at")
    if days is not None and text is not None:
        raise ValueError(f"expires_at: must not be sent with expires_in_days (got {text!r} and {days!r})")
    if days is not None:
        if type(days) is not int or not 1 <= days <= _MAX_DAYS:
            raise ValueError(f"expires_in_days: must be a whole number from 1 to {_MAX_DAYS} (got {days!r})")
        return now + days * _DAY_MS
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
        until = int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)
    except (TypeError, ValueError, OverflowError):
        until = 0
    if until <= now:
        raise ValueError(f"expires_at: must be a future date or time, such as 2027-01-31 (got {text!r})")
    return until
