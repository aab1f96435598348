"""A task whose paid POST has an unknown outcome: it is looked up, and never sent again blindly."""

from typing import Any

from kling_relay.lifecycle import evidence, polling
from kling_relay.lifecycle.adopt import adopt
from kling_relay.lifecycle.step import AdvanceInput, Step, deadline, expire, in_short, ms, wait
from kling_relay.observability import logger
from kling_relay.provider.outcomes import Found, NotFound, QueryFailed
from kling_relay.provider.profiles import Account
from kling_relay.provider.responses import ProviderTask
from kling_relay.services import Services
from kling_relay.tasks.task import Failure, Phase, Task

_UNCONFIRMED_END = "submission unconfirmed; it was not repeated, to avoid a double charge"
_WATCHED = "still watched: a late video will be delivered"
_CLOCKS_MS = 5_000  # how far the provider's clock may be behind ours


def on_submitting(services: Services, task: Task, inputs: AdvanceInput) -> Task | Step:
    """A claimed task: while the lease runs its sender may be at it; after it, the outcome is unknown."""
    now = services.clock.now_ms()
    if task.lease_until is not None and task.lease_until > now:
        return wait(services, task, (task.lease_until - now) / 1000, scaled=False)
    return in_doubt(services, task, "the sender did not come back", look_at_once=True)


def in_doubt(
    services: Services, task: Task, reason: str, *, look_at_once: bool = False, refusal: str = "", proved: bool = False
) -> Task | Step:
    """`refusal`: what a second POST was refused with; the task fails with it if the first one is not found. `proved`:
    the provider has a task of our reference, whatever it denies later."""
    now = services.clock.now_ms()
    logger.warning("submission_unconfirmed", extra={"task_id": task.id, "reason": in_short(reason)})
    pause = 0.0 if look_at_once else polling.LOOKUP_SECONDS
    task = services.table.move(
        task,
        Phase.UNCONFIRMED,
        unsure_since=now,
        denials=0,
        retry_at=now + services.settings.scaled_ms(pause),
        lease_until=None,
        due_at=now + ms(polling.GRACE_SECONDS),
        reason=refusal,
        waits_for=f"proof of its submission ({in_short(reason)})",
        updated_at=now,
        proved_at=task.proved_at or (now if proved else None),
    )
    return task if look_at_once else wait(services, task, pause)


def on_unconfirmed(services: Services, task: Task, inputs: AdvanceInput) -> Task | Step:
    """An unconfirmed task: ask for it by our reference, or by an id that a callback named. A repetition needs evidence:
    two denials after the settle window, by a provider whose denials prove something; or the operator's `retry`."""
    now = services.clock.now_ms()
    found = find_at_provider(services, task, inputs)
    if isinstance(found, ProviderTask):
        return adopt(services, task, found)
    if now >= deadline(services, task):
        return expire(services, task, f"{_UNCONFIRMED_END}; {_WATCHED}")
    if task.retry_at is not None and task.retry_at > now:  # a callback brought us here early: it counts for nothing
        return wait(services, task, (task.retry_at - now) / 1000, scaled=False)
    denials = task.denials + (found == "denied")
    settled = now >= (task.unsure_since or now) + settle_ms(services, task)
    denied_twice = found == "denied" and denials >= 2 and settled and task.proved_at is None
    if denied_twice and (after := _denied(services, task, now)) is not None:
        return after
    if _given_up(services, task, now):
        return expire(services, task, f"{_UNCONFIRMED_END}; {_WATCHED}")
    one_more = not settled or (found == "denied" and denials < 2)
    pause = services.provider_of(task).profile.denial_gap_seconds if one_more else polling.PARKED_SECONDS
    retry_at = now + services.settings.scaled_ms(pause)
    parked: dict[str, Any] = {}
    if settled and task.parked_at is None:  # a callback that names it still settles it
        parked = {"parked_at": now, "waits_for": f"{task.waits_for}; parked"}
    task = services.table.move(task, None, denials=denials, retry_at=retry_at, updated_at=now, **parked)
    if parked:
        logger.warning("task_parked", extra={"task_id": task.id, "not_found_count": denials})
    return wait(services, task, pause)


def _denied(services: Services, task: Task, now: int) -> Task | Step | None:
    """What two denials allow, if anything."""
    if task.reason:
        failure = Failure.of(task.reason, otherwise=Failure.REFUSED)
        return services.table.move(task, Phase.FAILED, failure=failure, updated_at=now)
    policy = services.settings.on_unconfirmed
    unique = services.provider_of(task).profile.unique_reference
    if unique or policy == "retry" or (policy == "auto" and evidence.proven(services, task)):
        # The POST itself is left to the next step: who asks may be a callback, with little time.
        task = services.table.move(task, Phase.ACCEPTED, retry_at=None, denials=0, updated_at=now)
        return wait(services, task, 1)
    if policy == "fail":
        told: dict[str, Any] = {"reason": _UNCONFIRMED_END, "failure": Failure.EXPIRED}
        return services.table.move(task, Phase.FAILED, **told, updated_at=now)
    return None


def _given_up(services: Services, task: Task, now: int) -> bool:
    """Whether the client of a task in doubt has waited long enough for evidence that does not come."""
    if services.settings.on_unconfirmed != "auto" or task.proved_at is not None or task.unsure_since is None:
        return False
    if services.provider_of(task).profile.unique_reference:  # evidence comes as soon as the provider answers
        return False
    return now >= task.unsure_since + services.settings.scaled_ms(services.settings.unconfirmed_deadline_seconds)


def settle_ms(services: Services, task: Task) -> int:
    """How long after a POST in doubt no denial is believed: the operator's setting, or the profile's if it is 0."""
    seconds = services.settings.settle_seconds or services.provider_of(task).profile.settle_seconds
    return services.settings.scaled_ms(seconds)


def find_at_provider(services: Services, task: Task, inputs: AdvanceInput) -> ProviderTask | str:
    """The provider's task that is ours; "denied" if it has none of our reference; "" if nothing was learned."""
    provider = services.provider_of(task)
    learned = ""
    if provider.profile.ask_by_reference:
        answer = provider.query(task.kind, task.id)
        if isinstance(answer, Found) and _is_ours(services, task, answer.provider_task):
            return answer.provider_task
        learned = "denied" if isinstance(answer, NotFound) else ""
    named = [inputs.hint] if inputs.hint else []
    for hint in dict.fromkeys([*named, *reversed(task.hints.split())]):
        answer = provider.query(task.kind, hint)
        if isinstance(answer, QueryFailed):  # the next ones would only wait as long
            break
        if (
            isinstance(answer, Found)
            and answer.provider_task.is_about(hint)
            and _may_be_ours(services, task, answer.provider_task)
        ):
            return answer.provider_task
    return learned


def _may_be_ours(services: Services, task: Task, provider_task: ProviderTask) -> bool:
    """Whether the task that a callback named is ours: it carries our reference; or, with a provider that hides
    references, it is known to be made after our claim."""
    hidden = services.provider_of(task).profile.hides_reference and provider_task.created_at is not None
    return (provider_task.reference is not None or hidden) and _is_ours(services, task, provider_task)


def _is_ours(services: Services, task: Task, provider_task: ProviderTask) -> bool:
    """Whether no other reference is on it, it was not made before our claim, and no other row owns it: any of these
    makes the answer a mistake."""
    if provider_task.reference not in (None, task.id):
        return False
    made, since = provider_task.created_at if provider_task.reference is None else None, task.sent_since
    if made is not None and (since is None or made < since - _CLOCKS_MS):
        return False
    account = Account.read(services.account_of(task))
    owners = {services.table.owner(space, provider_task.upstream_id) for space in (account.space, account.profile)}
    return owners <= {None, task.id}  # by the profile alone: rows that were written before a row named its account
