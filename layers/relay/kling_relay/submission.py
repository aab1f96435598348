"""From "recorded" to "the provider has it": at most one paid POST, and looking up what became of one in doubt."""

from typing import Any

from kling_relay import intake, schedule, sweeper, webhooks
from kling_relay.catalogue import render_p5_seconds
from kling_relay.facts import Facts
from kling_relay.gate import Gate, awaited
from kling_relay.observability import logger
from kling_relay.provider import (
    Accepted,
    AccountTrouble,
    Found,
    NoRoom,
    NotSent,
    Outcome,
    Refused,
    Unknown,
)
from kling_relay.relay import Relay
from kling_relay.schema import default_mode
from kling_relay.settings import SettingsError
from kling_relay.snapshot import Snapshot
from kling_relay.task import Failure, Phase, Step, Task
from kling_relay.wire import CONNECT_SECONDS

_LEASE_MARGIN_MS = 2_000
_UNCONFIRMED_END = "submission unconfirmed; it was not repeated, to avoid a double charge"


def submit(relay: Relay, task: Task, facts: Facts) -> Task | Step:
    """An accepted task: claim it and POST, unless its deadline has passed, the operator or the provider's gate holds it
    back, or the time that this Lambda has left is too short to see the answer."""
    now = relay.clock.now_ms()
    if now >= deadline(relay, task):
        return sweeper.out_of_time(relay, task)
    if task.retry_at is not None and task.retry_at > now:
        return wait(relay, task, (task.retry_at - now) / 1000, scaled=False)
    must_end_by = facts.must_end_by
    if must_end_by is None:  # a callback or a copy: neither may send anything
        return wait(relay, task, 1)
    gate = relay.gates.get(relay.settings.provider)
    others_wait = facts.fresh and gate.crowded and relay.table.waiting(1)
    if closed := gate.closed(now) or ("its turn, behind others" if others_wait else ""):
        return _wait_in_turn(relay, task, closed)
    found = _ask_once_more(relay, task, facts)
    if not found:
        return wait(relay, task, schedule.DENIAL_GAP_SECONDS)
    now = relay.clock.now_ms()
    if now + (CONNECT_SECONDS + relay.settings.submit_timeout_seconds) * 1000 + _LEASE_MARGIN_MS > must_end_by:
        return wait(relay, task, 1)
    try:
        relay.provider.prepare(refresh=gate.account_trouble)  # it may have been replaced meanwhile
    except SettingsError as exc:
        return _close_gate(relay, task, AccountTrouble(str(exc)))
    body = intake.upstream_body(relay, task, facts.images)
    body["external_task_id"] = task.id
    if _can_be_called(relay):
        body["callback_url"] = webhooks.callback_url(relay.base_url, relay.keyring, task.id)
    # The lease outlives this Lambda: when it is over, no POST under this claim can still begin.
    lease = must_end_by + _LEASE_MARGIN_MS
    due_at = lease + _ms(schedule.GRACE_SECONDS)
    claimed = relay.table.move(
        task,
        Phase.SUBMITTING,
        attempt=task.attempt + 1,
        claimed_at=now,
        lease_until=lease,
        due_at=due_at,
        queue="open",
        updated_at=now,
    )
    if isinstance(found, Snapshot):
        return adopt(relay, claimed, found)
    return _send(relay, claimed, body, gate, facts)


def _send(relay: Relay, claimed: Task, body: dict[str, Any], gate: Gate, facts: Facts) -> Task | Step:
    """The one paid POST of a claim, and its outcome into the row. `gate`: as it was before the claim."""
    outcome = relay.provider.submit(claimed.kind, body, read_seconds=relay.settings.submit_timeout_seconds)
    bought = outcome.snapshot.upstream_id if isinstance(outcome, Accepted) else None  # to be found, whatever comes now
    told = {"task_id": claimed.id, "attempt": claimed.attempt}
    logger.info("submitted", extra={**told, "outcome": type(outcome).__name__, "upstream_id": bought})
    step = _record(relay, claimed, outcome, facts, gate)
    if gate.crowded and isinstance(outcome, Accepted):
        sweeper.room_was_found(relay, claimed.tenant, gate)
    if gate.crowded and isinstance(outcome, Refused):  # the place that it was started for is the next one's
        sweeper.room_was_made(relay)
    return step


def _ask_once_more(relay: Relay, task: Task, facts: Facts) -> Snapshot | str:
    """As `ask_for`, for a task whose POST is to be repeated: the denials that allow it may be old by now, where the one
    that was to send it died, or found no room. A task without a POST in doubt counts as denied."""
    return "denied" if task.unsure_since is None else ask_for(relay, task, facts)


def _can_be_called(relay: Relay) -> bool:
    """Whether a callback can reach us: not on a laptop before the real provider, which would refuse the address."""
    return relay.base_url.startswith("https://") or relay.provider.profile.base_url.startswith("http://")


def _record(relay: Relay, task: Task, outcome: Outcome, facts: Facts, gate: Gate) -> Task | Step:
    now = relay.clock.now_ms()
    if isinstance(outcome, Accepted):
        adopted = adopt(relay, task, outcome.snapshot)
        times = schedule.CALLED_BACK if gate.calls_back and _can_be_called(relay) else 1
        return wait(relay, adopted, times * first_poll(relay, adopted) - age(relay, adopted))
    if isinstance(outcome, Refused) and task.unsure_since is None:
        code, said = outcome.error.code, outcome.error.message
        failure = Failure.of(said, code, otherwise=Failure.REFUSED)
        return relay.table.move(task, Phase.FAILED, reason=said, refusal_code=code, failure=failure, updated_at=now)
    if isinstance(outcome, NotSent):
        why = f"the provider cannot be reached ({outcome.reason})"
        return _again(relay, task, schedule.backoff(task.attempt, first=2, most=300), why)
    if isinstance(outcome, NoRoom) and outcome.too_fast and task.retry_at is None and not facts.fresh:
        # Its place is still there: asked for a little later, and once, it need not wait for another turn.
        return _again(relay, task, schedule.backoff(1, first=4, most=4), awaited("room", _in_short(outcome.reason)))
    if isinstance(outcome, NoRoom | AccountTrouble):
        return _close_gate(relay, task, outcome)
    # In doubt. Also a refusal of a second POST under the same reference: it may say that the first one was accepted.
    if isinstance(outcome, Refused):
        return _in_doubt(relay, task, "refused after a POST in doubt", refusal=outcome.error.message)
    return _in_doubt(relay, task, outcome.reason)


def _again(relay: Relay, task: Task, pause: float, waits_for: str) -> Step:
    """Surely not accepted, and worth another try in `pause` seconds."""
    now = relay.clock.now_ms()
    retry_at = now + relay.settings.scaled_ms(pause)
    task = relay.table.move(
        task, Phase.ACCEPTED, retry_at=retry_at, lease_until=None, waits_for=waits_for[:300], updated_at=now
    )
    return wait(relay, task, pause)


def _close_gate(relay: Relay, task: Task, outcome: NoRoom | AccountTrouble) -> Step:
    """Surely not accepted, and the next one would not be either: pause, and let this task wait its turn."""
    gate, pause = relay.gates.get(relay.settings.provider), schedule.NO_ROOM_SECONDS
    if isinstance(outcome, AccountTrouble):
        pause = schedule.backoff(gate.failures + 1, first=60, most=600)
    until = relay.clock.now_ms() + relay.settings.scaled_ms(pause)
    cause, reason = "room" if isinstance(outcome, NoRoom) else "account", _in_short(outcome.reason)
    relay.gates.close(relay.settings.provider, gate, not_before=until, reason=reason, cause=cause)
    if isinstance(outcome, AccountTrouble):
        logger.error("provider_account_trouble", extra={"task_id": task.id, "reason": reason})
    return _wait_in_turn(relay, task, awaited(cause, reason))


def _wait_in_turn(relay: Relay, task: Task, waits_for: str) -> Step:
    """Into the queue, which is sorted by age: `due_at` of a waiting task is its birth. Its workflow ends here."""
    target = None if task.phase is Phase.ACCEPTED else Phase.ACCEPTED
    task = relay.table.move(
        task,
        target,
        queue="waiting",
        due_at=task.created_at,
        retry_at=None,
        lease_until=None,
        waits_for=waits_for[:300],
        updated_at=relay.clock.now_ms(),
    )
    return Step(task, "done")


def lease_over(relay: Relay, task: Task, facts: Facts) -> Task | Step:
    """A claimed task: while the lease runs somebody may be sending; after it, nobody knows what they achieved."""
    now = relay.clock.now_ms()
    if task.lease_until is not None and task.lease_until > now:
        return wait(relay, task, (task.lease_until - now) / 1000, scaled=False)
    return _in_doubt(relay, task, "the sender did not come back", look_at_once=True)


def _in_doubt(relay: Relay, task: Task, reason: str, *, look_at_once: bool = False, refusal: str = "") -> Task | Step:
    """`refusal`: what a second POST was refused with; the task fails with it where the first one is not found."""
    now = relay.clock.now_ms()
    logger.warning("submission_unconfirmed", extra={"task_id": task.id, "reason": _in_short(reason)})
    pause = 0.0 if look_at_once else schedule.LOOKUP_SECONDS
    task = relay.table.move(
        task,
        Phase.UNCONFIRMED,
        unsure_since=now,
        denials=0,
        retry_at=now + relay.settings.scaled_ms(pause),
        lease_until=None,
        due_at=now + _ms(schedule.GRACE_SECONDS),
        reason=refusal,
        waits_for=f"proof of its submission ({_in_short(reason)})",
        updated_at=now,
    )
    return task if look_at_once else wait(relay, task, pause)


def look_up(relay: Relay, task: Task, facts: Facts) -> Task | Step:
    """An unconfirmed task: ask for it by our reference, or by the id that a callback named. Never a POST from here but
    where the profile or the operator says that repeating is safe, after two denials and the settle window."""
    now = relay.clock.now_ms()
    found = ask_for(relay, task, facts)
    if isinstance(found, Snapshot):
        return adopt(relay, task, found)
    if now >= deadline(relay, task):
        return expire(relay, task, f"{_UNCONFIRMED_END}; still watched for a late video")
    if task.retry_at is not None and task.retry_at > now:  # a callback brought us here early: it counts for nothing
        return wait(relay, task, (task.retry_at - now) / 1000, scaled=False)
    denials = task.denials + (found == "denied")
    settled = now >= (task.unsure_since or now) + relay.settings.scaled_ms(relay.settings.settle_seconds)
    if found == "denied" and denials >= 2 and settled:
        if task.reason:
            failure = Failure.of(task.reason, otherwise=Failure.REFUSED)
            return relay.table.move(task, Phase.FAILED, reason=task.reason, failure=failure, updated_at=now)
        if relay.provider.profile.unique_reference or relay.settings.on_unconfirmed == "retry":
            # The POST itself is left to the next step: who asks may be a callback, with little time.
            task = relay.table.move(task, Phase.ACCEPTED, retry_at=None, denials=0, updated_at=now)
            return wait(relay, task, 1)
        if relay.settings.on_unconfirmed == "fail":
            told = {"reason": _UNCONFIRMED_END, "failure": Failure.EXPIRED}
            return relay.table.move(task, Phase.FAILED, **told, updated_at=now)
    one_more = not settled or (found == "denied" and denials < 2)
    pause = schedule.DENIAL_GAP_SECONDS if one_more else schedule.PARKED_SECONDS
    retry_at = now + relay.settings.scaled_ms(pause)
    parked: dict[str, object] = {}
    if settled and task.parked_at is None:  # until its deadline: a callback that names it still settles it
        parked = {"parked_at": now, "waits_for": f"{task.waits_for}; parked"}
    task = relay.table.move(task, None, denials=denials, retry_at=retry_at, updated_at=now, **parked)
    if parked:
        logger.warning("task_parked", extra={"task_id": task.id, "denials": denials})
    return wait(relay, task, pause)


def ask_for(relay: Relay, task: Task, facts: Facts) -> Snapshot | str:
    """The provider's task that is ours; "denied" where it says that there is none; "" where nothing was learned."""
    profile = relay.provider.profile
    learned = ""
    if profile.ask_by_reference:
        answer = relay.provider.query(task.kind, task.id)
        if isinstance(answer, Found) and _is_ours(relay, task, answer.snapshot):
            return answer.snapshot
        learned = "denied" if isinstance(answer, Unknown) else ""
    if facts.hint:
        answer = relay.provider.query(task.kind, facts.hint)
        if isinstance(answer, Found) and _may_be_ours(relay, task, answer.snapshot):
            return answer.snapshot
    return learned


def _may_be_ours(relay: Relay, task: Task, snap: Snapshot) -> bool:
    """Whether the task that a callback named is ours: it carries our reference; or, with a provider that hides
    references, it was made after our claim (5 s for clocks that differ)."""
    if snap.reference is None:
        if not relay.provider.profile.hides_reference or snap.created_at is None or task.claimed_at is None:
            return False
        if snap.created_at < task.claimed_at - 5_000:
            return False
    return _is_ours(relay, task, snap)


def _is_ours(relay: Relay, task: Task, snap: Snapshot) -> bool:
    """Whether no other reference is on it, and no other row owns it: one that does makes any answer a mistake."""
    if snap.reference not in (None, task.id):
        return False
    return relay.table.owner(relay.settings.provider, snap.upstream_id) in (None, task.id)


def adopt(relay: Relay, task: Task, snap: Snapshot) -> Task:
    """The provider has the task: note its id. An expired task stays expired until there is more to tell."""
    now = relay.clock.now_ms()
    return relay.table.adopt(
        task,
        None if task.phase is Phase.EXPIRED else Phase.SUBMITTED,
        relay.settings.provider,
        snap.upstream_id,
        lease_until=None,
        retry_at=None,
        waits_for="the provider",
        due_at=now + relay.settings.scaled_ms(first_poll(relay, task)) + _ms(schedule.GRACE_SECONDS),
        queue="open",
        updated_at=now,
    )


def age(relay: Relay, task: Task) -> float:
    """Seconds since the task was sent; in rehearsals, with every wait shortened, seconds of the time that is played."""
    since = (relay.clock.now_ms() - (task.claimed_at or task.created_at)) / 1000
    return since / (relay.settings.wait_scale or 1.0)


def first_poll(relay: Relay, task: Task) -> float:
    """Seconds after submission at which the first query is worth making."""
    name = intake.model_name(relay, task)
    mode, duration = task.request.get("mode", default_mode(task.kind)), task.request.get("duration", "5")
    return render_p5_seconds(relay.catalogue, name, mode, duration)


def deadline(relay: Relay, task: Task) -> int:
    """When the task's time is over (ms)."""
    return task.created_at + relay.settings.deadline_seconds * 1000


def watch(relay: Relay, now: int) -> dict[str, object]:
    """The fields of an expired row: seen again every few hours until the provider itself has removed everything."""
    return {
        "due_at": now + relay.settings.scaled_ms(schedule.WATCH_SECONDS),
        "queue": "open",
        "waits_for": "a late video",
    }


def expire(relay: Relay, task: Task, reason: str) -> Step:
    """The client sees an end; its task's late move is still to come."""
    now = relay.clock.now_ms()
    watched = watch(relay, now)
    told = {"reason": reason, "failure": Failure.EXPIRED, "expired_at": now}
    return Step(relay.table.move(task, Phase.EXPIRED, updated_at=now, **told, **watched), "done")


def wait(relay: Relay, task: Task, seconds: float, *, scaled: bool = True) -> Step:
    """The step that sleeps: `seconds`, shortened by WAIT_SCALE; whole and at least 1, as Step Functions wants it."""
    pause = relay.settings.scaled_ms(seconds) if scaled else int(seconds * 1000)
    whole = max(1, -(-pause // 1000))
    due_at = relay.clock.now_ms() + whole * 1000 + _ms(schedule.GRACE_SECONDS)
    return Step(task, "wait", wait_seconds=whole, due_at=due_at)


def _in_short(reason: str) -> str:
    """A reason without the provider's own words, which may repeat a prompt or a key."""
    return reason.partition(":")[0]


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
