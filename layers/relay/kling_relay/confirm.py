"""A task whose paid POST has an unknown outcome: it is looked up, and never sent again blindly."""

from typing import Any

from kling_relay import evidence, schedule
from kling_relay.facts import Facts
from kling_relay.observability import logger
from kling_relay.profiles import Account
from kling_relay.provider import Found, Trouble, Unknown
from kling_relay.relay import Relay
from kling_relay.snapshot import Snapshot
from kling_relay.steps import adopt, deadline, expire, in_short, ms, wait
from kling_relay.task import Failure, Phase, Step, Task

_UNCONFIRMED_END = "submission unconfirmed; it was not repeated, to avoid a double charge"
_WATCHED = "still watched: a late video will be delivered"
_CLOCKS_MS = 5_000  # how far the provider's clock may be behind ours


def lease_over(relay: Relay, task: Task, facts: Facts) -> Task | Step:
    """A claimed task: while the lease runs its sender may be at it; after it, the outcome is unknown."""
    now = relay.clock.now_ms()
    if task.lease_until is not None and task.lease_until > now:
        return wait(relay, task, (task.lease_until - now) / 1000, scaled=False)
    return in_doubt(relay, task, "the sender did not come back", look_at_once=True)


def in_doubt(
    relay: Relay, task: Task, reason: str, *, look_at_once: bool = False, refusal: str = "", proved: bool = False
) -> Task | Step:
    """`refusal`: what a second POST was refused with; the task fails with it if the first one is not found. `proved`:
    the provider has a task of our reference, whatever it denies later."""
    now = relay.clock.now_ms()
    logger.warning("submission_unconfirmed", extra={"task_id": task.id, "reason": in_short(reason)})
    pause = 0.0 if look_at_once else schedule.LOOKUP_SECONDS
    task = relay.table.move(
        task,
        Phase.UNCONFIRMED,
        unsure_since=now,
        denials=0,
        retry_at=now + relay.settings.scaled_ms(pause),
        lease_until=None,
        due_at=now + ms(schedule.GRACE_SECONDS),
        reason=refusal,
        waits_for=f"proof of its submission ({in_short(reason)})",
        updated_at=now,
        proved_at=task.proved_at or (now if proved else None),
    )
    return task if look_at_once else wait(relay, task, pause)


def look_up(relay: Relay, task: Task, facts: Facts) -> Task | Step:
    """An unconfirmed task: ask for it by our reference, or by an id that a callback named. A repetition needs evidence:
    two denials after the settle window, by a provider whose denials prove something; or the operator's `retry`."""
    now = relay.clock.now_ms()
    found = ask_for(relay, task, facts)
    if isinstance(found, Snapshot):
        return adopt(relay, task, found)
    if now >= deadline(relay, task):
        return expire(relay, task, f"{_UNCONFIRMED_END}; {_WATCHED}")
    if task.retry_at is not None and task.retry_at > now:  # a callback brought us here early: it counts for nothing
        return wait(relay, task, (task.retry_at - now) / 1000, scaled=False)
    denials = task.denials + (found == "denied")
    settled = now >= (task.unsure_since or now) + settle_ms(relay, task)
    denied_twice = found == "denied" and denials >= 2 and settled and task.proved_at is None
    if denied_twice and (after := _denied(relay, task, now)) is not None:
        return after
    if _given_up(relay, task, now):
        return expire(relay, task, f"{_UNCONFIRMED_END}; {_WATCHED}")
    one_more = not settled or (found == "denied" and denials < 2)
    pause = relay.provider_of(task).profile.denial_gap_seconds if one_more else schedule.PARKED_SECONDS
    retry_at = now + relay.settings.scaled_ms(pause)
    parked: dict[str, Any] = {}
    if settled and task.parked_at is None:  # a callback that names it still settles it
        parked = {"parked_at": now, "waits_for": f"{task.waits_for}; parked"}
    task = relay.table.move(task, None, denials=denials, retry_at=retry_at, updated_at=now, **parked)
    if parked:
        logger.warning("task_parked", extra={"task_id": task.id, "denials": denials})
    return wait(relay, task, pause)


def _denied(relay: Relay, task: Task, now: int) -> Task | Step | None:
    """Return what two denials allow, or None. The refusal of a second POST needs them to count as much as a third POST
    does: the provider may have refused it because it has the first one."""
    policy = relay.settings.on_unconfirmed
    unique = relay.provider_of(task).profile.unique_reference
    counts = unique or policy == "retry" or (policy == "auto" and evidence.proven(relay, task))
    if task.reason and (counts or policy == "fail"):
        failure = Failure.of(task.reason, otherwise=Failure.REFUSED)
        return relay.table.move(task, Phase.FAILED, failure=failure, updated_at=now)
    if counts:
        # The POST itself is left to the next step: who asks may be a callback, with little time.
        task = relay.table.move(task, Phase.ACCEPTED, retry_at=None, denials=0, updated_at=now)
        return wait(relay, task, 1)
    if policy == "fail":
        told: dict[str, Any] = {"reason": _UNCONFIRMED_END, "failure": Failure.EXPIRED}
        return relay.table.move(task, Phase.FAILED, **told, updated_at=now)
    return None


def _given_up(relay: Relay, task: Task, now: int) -> bool:
    """Whether the client of a task in doubt has waited long enough for evidence that does not come."""
    if relay.settings.on_unconfirmed != "auto" or task.proved_at is not None or task.unsure_since is None:
        return False
    if relay.provider_of(task).profile.unique_reference:  # evidence comes as soon as the provider answers
        return False
    return now >= task.unsure_since + relay.settings.scaled_ms(relay.settings.unconfirmed_deadline_seconds)


def settle_ms(relay: Relay, task: Task) -> int:
    """How long after a POST in doubt no denial is believed: the operator's setting, or the profile's if it is 0."""
    seconds = relay.settings.settle_seconds or relay.provider_of(task).profile.settle_seconds
    return relay.settings.scaled_ms(seconds)


def ask_for(relay: Relay, task: Task, facts: Facts) -> Snapshot | str:
    """The provider's task that is ours; "denied" if it has none of our reference; "" if nothing was learned."""
    provider = relay.provider_of(task)
    learned = ""
    if provider.profile.ask_by_reference:
        answer = provider.query(task.kind, task.id)
        if isinstance(answer, Found) and _is_ours(relay, task, answer.snapshot):
            return answer.snapshot
        learned = "denied" if isinstance(answer, Unknown) else ""
    named = [facts.hint] if facts.hint else []
    for hint in dict.fromkeys([*named, *reversed(task.hints.split())]):
        answer = provider.query(task.kind, hint)
        if isinstance(answer, Trouble):  # the next ones would only wait as long
            break
        if isinstance(answer, Found) and answer.snapshot.is_about(hint) and _may_be_ours(relay, task, answer.snapshot):
            return answer.snapshot
    return learned


def _may_be_ours(relay: Relay, task: Task, snap: Snapshot) -> bool:
    """Whether the task that a callback named is ours: it carries our reference; or, with a provider that hides
    references, it is known to be made after our claim."""
    hidden = relay.provider_of(task).profile.hides_reference and snap.created_at is not None
    return (snap.reference is not None or hidden) and _is_ours(relay, task, snap)


def _is_ours(relay: Relay, task: Task, snap: Snapshot) -> bool:
    """Whether no other reference is on it, it was not made before our claim, and no other row owns it: any of these
    makes the answer a mistake."""
    if snap.reference not in (None, task.id):
        return False
    made, since = snap.created_at if snap.reference is None else None, task.sent_since
    if made is not None and (since is None or made < since - _CLOCKS_MS):
        return False
    account = Account.read(relay.account_of(task))
    owners = {relay.table.owner(space, snap.upstream_id) for space in (account.space, account.profile)}
    return owners <= {None, task.id}  # by the profile alone: rows that were written before a row named its account
