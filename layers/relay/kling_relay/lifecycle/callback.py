"""Handle a callback of the provider: a valid token triggers a query of the provider; the body is not trusted.

If the operator has stored the provider's webhook secret, the signature of a signed callback must be valid. An unsigned
callback is accepted unless the stack requires signatures: relays pass callbacks on unsigned.
"""

import json
from collections.abc import Callable
from enum import StrEnum

from kling_relay.lifecycle import polling, step_functions
from kling_relay.lifecycle.adopt import note_second_id
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.observability import Metric, logger
from kling_relay.provider.outcomes import Found
from kling_relay.provider.responses import ProviderTask, read
from kling_relay.security.callback_tokens import PROBE, is_callback_token
from kling_relay.security.standard_webhooks import SIGNATURE_HEADERS, is_signed
from kling_relay.services import Services
from kling_relay.tasks.task import AT_THE_PROVIDER, ENDED, TASK_STATUS, Phase, Task

_MAX_BODY_BYTES = 65_536

RequestReader = Callable[[], tuple[dict[str, str], bytes | None]]
"""Returns the headers and the bytes as they were sent; None if the gateway's encoding of the bytes is broken."""


class Decision(StrEnum):
    """A callback leads to a query, or it is only counted, under the metric of that name."""

    QUERY = "query"
    IGNORE = "ignore"
    LATE = Metric.CALLBACKS_LATE.value
    DUPLICATE = Metric.CALLBACKS_DUPLICATE.value


class HintNotStoredError(Exception):
    """A callback's task id, perhaps the only copy, could not be stored: the callback must be repeated."""


def receive(services: Services, task_id: str, token: str, read_request: RequestReader) -> int:
    """Return the HTTP status for a callback: 200, 404 if it proves nothing, 503 if it must be repeated.

    The request is read only after its token is verified.
    """
    if not is_callback_token(services.keyring, task_id, token):
        return _rejected(services, "token")
    try:
        headers, body = read_request()
        if not _may_pass(services, headers, body):
            return _rejected(services, "signature")
        if task_id != PROBE:
            on_callback(services, task_id, _claim(body))
    except HintNotStoredError:
        logger.exception("callback_write_failed")
        return 503
    except Exception as exc:  # the poll finds it too: an error would only make the provider repeat the callback
        logger.exception("callback_failed", extra={"error": type(exc).__name__})
    return 200


def _rejected(services: Services, why: str) -> int:
    logger.warning("callback_rejected", extra={"reason": why})
    services.measure({Metric.CALLBACKS_REJECTED: 1})
    return 404


def _may_pass(services: Services, headers: dict[str, str], body: bytes | None) -> bool:
    """Return whether the signature is valid, or none is required."""
    given = {name.lower(): text for name, text in headers.items()}
    required = services.settings.require_webhook_signature == "on"
    if not required and not given.keys() & set(SIGNATURE_HEADERS):
        return True
    secrets, now = services.webhook_secrets(), services.clock.now_ms() / 1000
    if not secrets and not required:
        return True  # signed with the secret of a relay in between, which we do not have
    if body is None:
        return False
    return is_signed(secrets, given, body, now) or is_signed(services.webhook_secrets(refresh=True), given, body, now)


def _claim(body: bytes | None) -> ProviderTask | None:
    """Return the body's claim about the task, in any dialect, or None if it has no readable one."""
    try:
        return read(json.loads(body)) if body is not None and len(body) <= _MAX_BODY_BYTES else None
    except (ValueError, RecursionError):
        return None


def on_callback(services: Services, task_id: str, claim: ProviderTask | None) -> None:
    """Handle a callback with a valid token: query the provider, and wake the workflow if the task has ended there.

    `claim` is the content of the body. It is never trusted, only used to save queries: at most one query per task in a
    few seconds, for any sender with the URL, and none for a claim with less than the row. A claim of an end that
    arrives sooner brings `due_at` forward; one of mere progress does not.
    """
    task = services.table.get(task_id)
    if task is not None and claim is not None:
        _keep_claim(services, task, claim)
    decision = _decide(services, task, claim)
    logger.info("callback_received", extra={"task_id": task_id, "decision": decision})
    counted = {Metric(decision): 1} if decision in (Decision.LATE, Decision.DUPLICATE) else {}
    services.measure({Metric.CALLBACKS_RECEIVED: 1, **counted})
    if decision is not Decision.QUERY:
        return
    step = advance(services, task_id, AdvanceInput("callback", hint=None if claim is None else claim.upstream_id))
    if step.next != "wait":
        step_functions.wake(services, step)
        services.admissions.record_completion(services.account_of(step.task), called_back=True)


def _keep_claim(services: Services, task: Task, claim: ProviderTask) -> None:
    """Store a callback's id for the next look-up, because it may be the only copy of it. It is not trusted beyond that.

    An id beside the known one may be a second purchase. The provider is queried before the alarm is raised, and only if
    its references are unique: a relay's callbacks contain Kling's id, and its answers its own.
    """
    if task.upstream_id is None:
        try:
            services.table.keep_hint(task, claim.upstream_id)
        except Exception as exc:
            raise HintNotStoredError from exc
        return
    provider = services.provider_of(task)
    ours_elsewhere = claim.reference == task.id and not claim.is_about(task.upstream_id)
    if ours_elsewhere and provider.profile.unique_reference and _may_ask(services, task):
        answer = provider.query(task.kind, claim.upstream_id)
        if isinstance(answer, Found) and answer.provider_task.reference == task.id:
            note_second_id(services, task, answer.provider_task)


def _may_ask(services: Services, task: Task) -> bool:
    gap_ms = services.settings.scaled_ms(polling.CALLBACK_GAP_SECONDS)
    return services.table.claim_callback_slot(task, services.clock.now_ms(), gap_ms, urgent=False)


def _decide(services: Services, task: Task | None, claim: ProviderTask | None) -> Decision:
    """Decide whether a callback triggers a query."""
    if task is None or task.phase in ENDED:
        return Decision.LATE
    if task.phase is Phase.RENDERED:
        return Decision.DUPLICATE
    if task.phase is Phase.ACCEPTED:
        return Decision.IGNORE  # the provider has nothing to report now
    if task.phase is Phase.SUBMITTING and (task.lease_until or 0) > services.clock.now_ms():
        return Decision.IGNORE  # the sender is still running, and its workflow will query
    progress = claim is not None and claim.status in ("submitted", "processing") and task.phase in AT_THE_PROVIDER
    if progress and claim is not None and claim.status in ("submitted", TASK_STATUS[task.phase]):
        return Decision.DUPLICATE
    gap_ms = services.settings.scaled_ms(polling.CALLBACK_GAP_SECONDS)
    asks = services.table.claim_callback_slot(task, services.clock.now_ms(), gap_ms, urgent=not progress)
    return Decision.QUERY if asks else Decision.DUPLICATE
