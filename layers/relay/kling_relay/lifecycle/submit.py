"""Submit a recorded task: send the paid POST at most once per claim, and record its outcome."""

import hashlib
import json
from typing import Any

from kling_relay.lifecycle import polling, provider_request, queue
from kling_relay.lifecycle.adopt import adopt
from kling_relay.lifecycle.confirm import find_at_provider, in_doubt
from kling_relay.lifecycle.step import AdvanceInput, Step, age, deadline, first_poll, in_short, ms, out_of_time, wait
from kling_relay.observability import logger
from kling_relay.provider.admission import Admission, awaited
from kling_relay.provider.client import Provider
from kling_relay.provider.http import CONNECT_SECONDS
from kling_relay.provider.outcomes import (
    Accepted,
    AccountBlocked,
    Answer,
    Exists,
    Found,
    Misconfigured,
    NotFound,
    NotSent,
    Outcome,
    QueryFailed,
    Refused,
    Throttled,
)
from kling_relay.security import callback_tokens
from kling_relay.services import Services
from kling_relay.settings import SettingsError
from kling_relay.tasks.task import SENT, Failure, Phase, Task

_LEASE_MARGIN_MS = 2_000
_SUSPECTS = 3  # different requests refused in a row without a clear reason: the account is the cause
_ADDRESS = "nothing was sent, nothing was charged: the operator has to correct KlingBaseUrl (or Provider) of the stack"


def submit(services: Services, task: Task, inputs: AdvanceInput) -> Task | Step:
    """Claim an accepted task and send its POST.

    It waits instead if the operator or the provider's admission holds it back, or if the Lambda's remaining time is too
    short for the answer. It ends if its deadline has passed.
    """
    now = services.clock.now_ms()
    if now >= deadline(services, task):
        return out_of_time(services, task)
    if task.retry_at is not None and task.retry_at > now:
        return wait(services, task, (task.retry_at - now) / 1000, scaled=False)
    if not inputs.may_send:
        return wait(services, task, 1)
    # A POST in doubt binds the task to its account: elsewhere, a repetition could be billed beside it.
    account = services.account if task.unsure_since is None else services.account_of(task)
    admission = services.admissions.get(account)
    if (held := _held_back(services, task, inputs, admission, now)) is not None:
        return held
    found = _ask_once_more(services, task, inputs)
    if isinstance(found, QueryFailed):
        return wait(services, task, services.provider_of(task).profile.denial_gap_seconds)
    if not _has_time(services, inputs.must_end_by):
        return wait(services, task, 1)
    return _claim_and_send(services, task, inputs.must_end_by, _Sender(services, account, admission, inputs), found)


def _claim_and_send(
    services: Services, task: Task, must_end_by: int, sender: "_Sender", found: Found | NotFound
) -> Task | Step:
    """Claim the task and send its POST. `found`: the provider's task, if an earlier POST was accepted after all."""
    inputs, account = sender.inputs, sender.account
    try:
        # In account trouble the key may have been replaced meanwhile.
        services.provider_at(account).prepare(refresh=sender.admission.account_trouble)
    except SettingsError as exc:
        return sender.close_gate(task, AccountBlocked(str(exc)))
    body = provider_request.upstream_body(services, task, inputs.images, account)
    body["external_task_id"] = task.id
    if sender.can_be_called:
        body["callback_url"] = callback_tokens.callback_url(services.base_url, services.keyring, task.id)
    claimed = _claim(services, task, account, must_end_by)
    if isinstance(found, Found):
        return adopt(services, claimed, found.provider_task)
    if not _has_time(services, must_end_by):  # the claim took too long; it is certain that nothing was sent
        return sender.again(claimed, 1, "its turn")
    return sender.send(claimed, body)


def _held_back(
    services: Services, task: Task, inputs: AdvanceInput, admission: Admission, now: int
) -> Task | Step | None:
    """Return the result for a task that may not be sent now; None if it may."""
    others_wait = inputs.trigger == "client" and admission.crowded and services.table.queue.waiting(1)
    closed = admission.closed(now) or ("its turn, behind others" if others_wait else "")
    # The POST of a second handler may be in doubt by now: such a task is not refused as unsent.
    refusable = inputs.trigger == "client" and task.unsure_since is None
    if closed and refusable and admission.pause is None and admission.cause == "address" and admission.not_before > now:
        return _refuse_address(services, task, admission.reason)
    return wait_in_turn(services, task, closed) if closed else None


def _refuse_address(services: Services, task: Task, reason: str) -> Task:
    """Refuse a task with the operator's error at once, for a client that waits for its answer."""
    told: dict[str, Any] = {"reason": f"{reason}; {_ADDRESS}", "refusal_code": 5000, "failure": Failure.REFUSED}
    also = () if task.phase is Phase.ACCEPTED else SENT
    return services.table.move(task, Phase.FAILED, also=also, updated_at=services.clock.now_ms(), **told)


def _has_time(services: Services, must_end_by: int) -> bool:
    """Return whether a POST that starts now ends in time, with its answer recorded."""
    seconds = CONNECT_SECONDS + services.settings.submit_timeout_seconds
    return services.clock.now_ms() + ms(seconds) + _LEASE_MARGIN_MS <= must_end_by


def _ask_once_more(services: Services, task: Task, inputs: AdvanceInput) -> Answer:
    """Look the task up right before its POST is repeated, because the denials that allow it may be old.

    A task without a POST in doubt counts as denied.
    """
    return NotFound() if task.unsure_since is None else find_at_provider(services, task, inputs)


def _claim(services: Services, task: Task, account: str, must_end_by: int) -> Task:
    """Claim the task with a lease that outlives this Lambda: after the lease, no POST under this claim can start."""
    now, lease = services.clock.now_ms(), must_end_by + _LEASE_MARGIN_MS
    in_doubt_since = task.sent_since if task.unsure_since is not None else None
    return services.table.claim(
        task,
        attempt=task.attempt + 1,
        account=account,
        claimed_at=now,
        posted_since=in_doubt_since or now,
        lease_until=lease,
        due_at=lease + ms(polling.GRACE_SECONDS),
        queue="open",
        updated_at=now,
    )


def wait_in_turn(services: Services, task: Task, waits_for: str) -> Step:
    """Put the task into the queue, which is sorted by age, and end its workflow.

    `due_at` of a waiting task is its creation time.
    """
    sent = task.phase is not Phase.ACCEPTED
    task = services.table.move(
        task,
        Phase.ACCEPTED if sent else None,
        also=SENT if sent else (),
        queue="waiting",
        due_at=task.created_at,
        retry_at=None,
        lease_until=None,
        waits_for=waits_for[:300],
        updated_at=services.clock.now_ms(),
    )
    return Step(task, "done")


class _Sender:
    """Send the one paid POST of a claim to `account`, and record its outcome.

    `admission`: as it was before the claim.
    """

    def __init__(self, services: Services, account: str, admission: Admission, inputs: AdvanceInput) -> None:
        self._services = services
        self.account = account
        self.admission = admission
        self.inputs = inputs
        self._provider: Provider = services.provider_at(account)

    @property
    def can_be_called(self) -> bool:
        """Whether a callback can reach us: not on a laptop before the real provider, which would refuse the URL."""
        return self._services.base_url.startswith("https://") or self._provider.profile.base_url.startswith("http://")

    def send(self, claimed: Task, body: dict[str, Any]) -> Task | Step:
        services, admission = self._services, self.admission
        outcome = self._provider.submit(claimed.kind, body, read_seconds=services.settings.submit_timeout_seconds)
        bought = outcome.provider_task.upstream_id if isinstance(outcome, Accepted) else None  # to be found in the log
        told = {"task_id": claimed.id, "attempt": claimed.attempt}
        logger.info("submit_attempted", extra={**told, "outcome": type(outcome).__name__, "upstream_id": bought})
        outcome = self._weighed(claimed, body, outcome)
        step = self._record(claimed, outcome)
        if admission.crowded and isinstance(outcome, Accepted):
            queue.on_slot_found(services, claimed.tenant, admission)
        if admission.crowded and isinstance(outcome, Refused):  # the slot that it was started for is the next one's
            queue.on_slot_freed(services)
        return step

    def _weighed(self, task: Task, body: dict[str, Any], outcome: Outcome) -> Outcome:
        """Blame the request for an unclear refusal, until different requests are refused so in a row."""
        admissions, admission = self._services.admissions, self.admission
        if isinstance(outcome, Accepted):
            admissions.suspect(self.account, admission, ())
        if not isinstance(outcome, Refused) or not outcome.unclear:
            return outcome
        suspects = admission.suspected(_fingerprint(body))
        admissions.suspect(self.account, admission, suspects[-_SUSPECTS:])
        return outcome if len(suspects) < _SUSPECTS else AccountBlocked(f"refused in a row: {outcome.error.message}")

    def _record(self, task: Task, outcome: Outcome) -> Task | Step:
        services, inputs = self._services, self.inputs
        if isinstance(outcome, Accepted):
            adopted = adopt(services, task, outcome.provider_task)
            times = polling.CALLED_BACK if self.admission.calls_back and self.can_be_called else 1
            return wait(services, adopted, times * first_poll(services, adopted) - age(services, adopted))
        if isinstance(outcome, Exists):
            return in_doubt(services, task, outcome.reason, look_at_once=True, proved=True)
        if isinstance(outcome, Refused) and task.unsure_since is None:
            return _fail(services, task, outcome)
        if isinstance(outcome, NotSent):
            why = f"the provider cannot be reached ({outcome.reason})"
            return self.again(task, polling.backoff(task.attempt, first=2, maximum=300), why)
        if isinstance(outcome, Throttled) and outcome.too_fast and task.retry_at is None and inputs.trigger != "client":
            # Its slot may still be free: one early retry saves it another turn in the queue.
            return self.again(task, polling.backoff(1, first=4, maximum=4), awaited("room", in_short(outcome.reason)))
        if isinstance(outcome, Throttled | AccountBlocked | Misconfigured):
            return self.close_gate(task, outcome)
        # In doubt. Also a refusal of a second POST under the same reference: it may mean that the first was accepted.
        if isinstance(outcome, Refused):
            return in_doubt(services, task, "refused after a POST in doubt", refusal=outcome.error.message)
        return in_doubt(services, task, outcome.reason)

    def again(self, task: Task, pause: float, waits_for: str) -> Step:
        """Return the task to accepted after a POST that was certainly not accepted, and retry in `pause` seconds."""
        services = self._services
        now = services.clock.now_ms()
        retry_at = now + services.settings.scaled_ms(pause)
        told: dict[str, Any] = {"waits_for": waits_for[:300], "retry_at": retry_at, "lease_until": None}
        return wait(services, services.table.move(task, Phase.ACCEPTED, also=SENT, updated_at=now, **told), pause)

    def close_gate(self, task: Task, outcome: Throttled | AccountBlocked | Misconfigured) -> Task | Step:
        """Close admission after a POST that was certainly not accepted, if the next one would fail too.

        The task waits its turn.
        """
        services, admission = self._services, self.admission
        cause, pause = _pause(outcome, admission.failures + 1 if admission.troubled else 1)
        reason = in_short(outcome.reason)
        until = services.clock.now_ms() + services.settings.scaled_ms(pause)
        services.admissions.close(self.account, admission, not_before=until, reason=reason, cause=cause)
        if not isinstance(outcome, Throttled):
            logger.error("provider_account_blocked", extra={"task_id": task.id, "cause": cause, "reason": reason})
        if isinstance(outcome, Misconfigured) and self.inputs.trigger == "client" and task.unsure_since is None:
            return _refuse_address(services, task, reason)
        return wait_in_turn(services, task, awaited(cause, reason))


def _pause(outcome: Throttled | AccountBlocked | Misconfigured, failures: int) -> tuple[str, float]:
    """Return why admission is closed, and for how long (s)."""
    if isinstance(outcome, Throttled) and not outcome.maintenance:
        return "room", polling.NO_ROOM_SECONDS
    if isinstance(outcome, Throttled):
        return "maintenance", polling.backoff(failures, first=20, maximum=120)
    cause = "address" if isinstance(outcome, Misconfigured) else "account"
    return cause, polling.backoff(failures, first=60, maximum=600)


def _fail(services: Services, task: Task, refused: Refused) -> Task:
    code, said = refused.error.code, refused.error.message
    failure = Failure.of(said, code, otherwise=Failure.REFUSED)
    told: dict[str, Any] = {"reason": said, "refusal_code": code, "failure": failure}
    return services.table.move(task, Phase.FAILED, also=SENT, updated_at=services.clock.now_ms(), **told)


def _fingerprint(body: dict[str, Any]) -> str:
    """Return a short hash of the provider's view of a request: equal for equal requests."""
    same = {name: given for name, given in body.items() if name not in ("external_task_id", "callback_url")}
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:12]
