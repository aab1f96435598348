"""From "recorded" to "the provider has it": at most one paid POST a claim, and what its outcome means."""

import hashlib
import json
from typing import Any

from kling_relay import intake, schedule, sweeper, webhooks
from kling_relay.confirm import ask_for, in_doubt
from kling_relay.facts import Facts
from kling_relay.gate import Gate, awaited
from kling_relay.observability import logger
from kling_relay.provider import (
    Accepted,
    AccountTrouble,
    Exists,
    Misconfigured,
    NoRoom,
    NotSent,
    Outcome,
    Provider,
    Refused,
)
from kling_relay.relay import Relay
from kling_relay.settings import SettingsError
from kling_relay.snapshot import Snapshot
from kling_relay.steps import adopt, age, deadline, first_poll, in_short, ms, out_of_time, wait
from kling_relay.task import SENT, Failure, Phase, Step, Task
from kling_relay.wire import CONNECT_SECONDS

_LEASE_MARGIN_MS = 2_000
_SUSPECTS = 3  # different requests refused in a row without a clear reason: it is the account
_ADDRESS = "nothing was sent, nothing was charged: the operator has to correct KlingBaseUrl (or Provider) of the stack"


def submit(relay: Relay, task: Task, facts: Facts) -> Task | Step:
    """An accepted task: claim it and POST, unless its deadline has passed, the operator or the provider's gate holds it
    back, or the time that this Lambda has left is too short to see the answer."""
    now = relay.clock.now_ms()
    if now >= deadline(relay, task):
        return out_of_time(relay, task)
    if task.retry_at is not None and task.retry_at > now:
        return wait(relay, task, (task.retry_at - now) / 1000, scaled=False)
    if facts.must_end_by is None:  # a callback or a copy: neither may send anything
        return wait(relay, task, 1)
    # A POST in doubt binds the task to its account: elsewhere, a repetition could be billed beside it.
    account = relay.account if task.unsure_since is None else relay.account_of(task)
    gate = relay.gates.get(account)
    if (held := _held_back(relay, task, facts, gate, now)) is not None:
        return held
    found = _ask_once_more(relay, task, facts)
    if not found:
        return wait(relay, task, relay.provider_of(task).profile.denial_gap_seconds)
    if not _has_time(relay, facts.must_end_by):
        return wait(relay, task, 1)
    return _claim_and_send(relay, task, facts.must_end_by, _Sender(relay, account, gate, facts), found)


def _claim_and_send(
    relay: Relay, task: Task, must_end_by: int, sender: "_Sender", found: Snapshot | str
) -> Task | Step:
    """`found`: the provider's task, if an earlier POST was taken after all."""
    facts, account = sender.facts, sender.account
    try:
        relay.provider_at(account).prepare(refresh=sender.gate.account_trouble)  # it may have been replaced meanwhile
    except SettingsError as exc:
        return sender.close_gate(task, AccountTrouble(str(exc)))
    body = intake.upstream_body(relay, task, facts.images, account)
    body["external_task_id"] = task.id
    if sender.can_be_called:
        body["callback_url"] = webhooks.callback_url(relay.base_url, relay.keyring, task.id)
    claimed = _claim(relay, task, account, must_end_by)
    if isinstance(found, Snapshot):
        return adopt(relay, claimed, found)
    if not _has_time(relay, must_end_by):  # the claim took its time; it is certain that nothing was sent
        return sender.again(claimed, 1, "its turn")
    return sender.send(claimed, body)


def _held_back(relay: Relay, task: Task, facts: Facts, gate: Gate, now: int) -> Task | Step | None:
    """What becomes of a task that may not be sent now; None if it may."""
    others_wait = facts.fresh and gate.crowded and relay.table.waiting(1)
    closed = gate.closed(now) or ("its turn, behind others" if others_wait else "")
    refusable = facts.fresh and task.unsure_since is None  # the POST of a second handler may be in doubt by now
    if closed and refusable and gate.pause is None and gate.cause == "address" and gate.not_before > now:
        return _refuse_address(relay, task, gate.reason)
    return wait_in_turn(relay, task, closed) if closed else None


def _refuse_address(relay: Relay, task: Task, reason: str) -> Task:
    """A client that waits for its answer gets the operator's error at once."""
    told: dict[str, Any] = {"reason": f"{reason}; {_ADDRESS}", "refusal_code": 5000, "failure": Failure.REFUSED}
    also = () if task.phase is Phase.ACCEPTED else SENT
    return relay.table.move(task, Phase.FAILED, also=also, updated_at=relay.clock.now_ms(), **told)


def _has_time(relay: Relay, must_end_by: int) -> bool:
    """Whether a POST that begins now ends in time, with its answer recorded."""
    seconds = CONNECT_SECONDS + relay.settings.submit_timeout_seconds
    return relay.clock.now_ms() + ms(seconds) + _LEASE_MARGIN_MS <= must_end_by


def _ask_once_more(relay: Relay, task: Task, facts: Facts) -> Snapshot | str:
    """As `ask_for`, for a task whose POST is to be repeated: the denials that allow it may be old by now, where the one
    that was to send it died, or found no room. A task without a POST in doubt counts as denied."""
    return "denied" if task.unsure_since is None else ask_for(relay, task, facts)


def _claim(relay: Relay, task: Task, account: str, must_end_by: int) -> Task:
    """The claim's lease outlives this Lambda: when it is over, no POST under this claim can still begin."""
    now, lease = relay.clock.now_ms(), must_end_by + _LEASE_MARGIN_MS
    in_doubt_since = task.sent_since if task.unsure_since is not None else None
    return relay.table.claim(
        task,
        attempt=task.attempt + 1,
        account=account,
        claimed_at=now,
        posted_since=in_doubt_since or now,
        lease_until=lease,
        due_at=lease + ms(schedule.GRACE_SECONDS),
        queue="open",
        updated_at=now,
    )


def wait_in_turn(relay: Relay, task: Task, waits_for: str) -> Step:
    """Into the queue, which is sorted by age: `due_at` of a waiting task is its birth. Its workflow ends here."""
    sent = task.phase is not Phase.ACCEPTED
    task = relay.table.move(
        task,
        Phase.ACCEPTED if sent else None,
        also=SENT if sent else (),
        queue="waiting",
        due_at=task.created_at,
        retry_at=None,
        lease_until=None,
        waits_for=waits_for[:300],
        updated_at=relay.clock.now_ms(),
    )
    return Step(task, "done")


class _Sender:
    """The one paid POST of a claim to `account`, and its outcome. `gate`: as it was before the claim."""

    def __init__(self, relay: Relay, account: str, gate: Gate, facts: Facts) -> None:
        self._relay = relay
        self.account = account
        self.gate = gate
        self.facts = facts
        self._provider: Provider = relay.provider_at(account)

    @property
    def can_be_called(self) -> bool:
        """Whether a callback can reach us: not on a laptop before the real provider, which would refuse the address."""
        return self._relay.base_url.startswith("https://") or self._provider.profile.base_url.startswith("http://")

    def send(self, claimed: Task, body: dict[str, Any]) -> Task | Step:
        relay, gate = self._relay, self.gate
        outcome = self._provider.submit(claimed.kind, body, read_seconds=relay.settings.submit_timeout_seconds)
        bought = outcome.snapshot.upstream_id if isinstance(outcome, Accepted) else None  # to be found in the log
        told = {"task_id": claimed.id, "attempt": claimed.attempt}
        logger.info("submitted", extra={**told, "outcome": type(outcome).__name__, "upstream_id": bought})
        outcome = self._weighed(claimed, body, outcome)
        step = self._record(claimed, outcome)
        if gate.crowded and isinstance(outcome, Accepted):
            sweeper.room_was_found(relay, claimed.tenant, gate)
        if gate.crowded and isinstance(outcome, Refused):  # the place that it was started for is the next one's
            sweeper.room_was_made(relay)
        return step

    def _weighed(self, task: Task, body: dict[str, Any], outcome: Outcome) -> Outcome:
        """A refusal for no clear reason is the request's fault, until different requests are refused so in a row."""
        gates, gate = self._relay.gates, self.gate
        if isinstance(outcome, Accepted):
            gates.suspect(self.account, gate, ())
        if not isinstance(outcome, Refused) or not outcome.unclear:
            return outcome
        suspects = gate.suspected(_fingerprint(body))
        gates.suspect(self.account, gate, suspects[-_SUSPECTS:])
        return outcome if len(suspects) < _SUSPECTS else AccountTrouble(f"refused in a row: {outcome.error.message}")

    def _record(self, task: Task, outcome: Outcome) -> Task | Step:
        relay, facts = self._relay, self.facts
        if isinstance(outcome, Accepted):
            adopted = adopt(relay, task, outcome.snapshot)
            times = schedule.CALLED_BACK if self.gate.calls_back and self.can_be_called else 1
            return wait(relay, adopted, times * first_poll(relay, adopted) - age(relay, adopted))
        if isinstance(outcome, Exists):
            return in_doubt(relay, task, outcome.reason, look_at_once=True, proved=True)
        if isinstance(outcome, Refused) and task.unsure_since is None:
            return _fail(relay, task, outcome)
        if isinstance(outcome, NotSent):
            why = f"the provider cannot be reached ({outcome.reason})"
            return self.again(task, schedule.backoff(task.attempt, first=2, most=300), why)
        if isinstance(outcome, NoRoom) and outcome.too_fast and task.retry_at is None and not facts.fresh:
            # Its place is still there: asked for a little later, and once, it need not wait for another turn.
            return self.again(task, schedule.backoff(1, first=4, most=4), awaited("room", in_short(outcome.reason)))
        if isinstance(outcome, NoRoom | AccountTrouble | Misconfigured):
            return self.close_gate(task, outcome)
        # In doubt. Also a refusal of a second POST under the same reference: it may mean that the first was accepted.
        if isinstance(outcome, Refused):
            return in_doubt(relay, task, "refused after a POST in doubt", refusal=outcome.error.message)
        return in_doubt(relay, task, outcome.reason)

    def again(self, task: Task, pause: float, waits_for: str) -> Step:
        """Surely not accepted, and worth another try in `pause` seconds."""
        relay = self._relay
        now = relay.clock.now_ms()
        retry_at = now + relay.settings.scaled_ms(pause)
        told: dict[str, Any] = {"waits_for": waits_for[:300], "retry_at": retry_at, "lease_until": None}
        return wait(relay, relay.table.move(task, Phase.ACCEPTED, also=SENT, updated_at=now, **told), pause)

    def close_gate(self, task: Task, outcome: NoRoom | AccountTrouble | Misconfigured) -> Task | Step:
        """Surely not accepted, and the next one would not be either: pause, and let this task wait its turn."""
        relay, gate = self._relay, self.gate
        cause, pause = _pause(outcome, gate.failures + 1 if gate.troubled else 1)
        reason = in_short(outcome.reason)
        until = relay.clock.now_ms() + relay.settings.scaled_ms(pause)
        relay.gates.close(self.account, gate, not_before=until, reason=reason, cause=cause)
        if not isinstance(outcome, NoRoom):
            logger.error("provider_account_trouble", extra={"task_id": task.id, "cause": cause, "reason": reason})
        if isinstance(outcome, Misconfigured) and self.facts.fresh and task.unsure_since is None:
            return _refuse_address(relay, task, reason)
        return wait_in_turn(relay, task, awaited(cause, reason))


def _pause(outcome: NoRoom | AccountTrouble | Misconfigured, failures: int) -> tuple[str, float]:
    """Why the gate is closed, and for how long (s)."""
    if isinstance(outcome, NoRoom) and not outcome.maintenance:
        return "room", schedule.NO_ROOM_SECONDS
    if isinstance(outcome, NoRoom):
        return "maintenance", schedule.backoff(failures, first=20, most=120)
    cause = "address" if isinstance(outcome, Misconfigured) else "account"
    return cause, schedule.backoff(failures, first=60, most=600)


def _fail(relay: Relay, task: Task, refused: Refused) -> Task:
    code, said = refused.error.code, refused.error.message
    failure = Failure.of(said, code, otherwise=Failure.REFUSED)
    told: dict[str, Any] = {"reason": said, "refusal_code": code, "failure": failure}
    return relay.table.move(task, Phase.FAILED, also=SENT, updated_at=relay.clock.now_ms(), **told)


def _fingerprint(body: dict[str, Any]) -> str:
    """What makes two requests the same to the provider, in short."""
    same = {name: given for name, given in body.items() if name not in ("external_task_id", "callback_url")}
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:12]
