"""Confirm a paid POST with an unknown outcome: look the task up, and never repeat the POST blindly."""

from typing import Any

from kling_relay.lifecycle import evidence, polling
from kling_relay.lifecycle.adopt import adopt
from kling_relay.lifecycle.step import AdvanceInput, Step, deadline, expire, in_short, ms, wait
from kling_relay.observability import logger
from kling_relay.provider.outcomes import Answer, Found, NotFound, QueryFailed
from kling_relay.provider.profiles import Account
from kling_relay.provider.responses import ProviderTask
from kling_relay.services import Services
from kling_relay.tasks.task import Failure, Phase, Task

_UNCONFIRMED_END = "submission unconfirmed; it was not repeated, to avoid a double charge"
_WATCHED = "still watched: a late video will be delivered"
_CLOCKS_MS = 5_000  # maximum lag of the provider's clock behind ours


def on_submitting(services: Services, task: Task, inputs: AdvanceInput) -> Task | Step:
    """Move a claimed task: while the lease lasts, its sender may be running; after that, the outcome is unknown."""
    now = services.clock.now_ms()
    if task.lease_until is not None and task.lease_until > now:
        return wait(services, task, (task.lease_until - now) / 1000, scaled=False)
    return in_doubt(services, task, "the sender did not come back", look_at_once=True)


def in_doubt(
    services: Services, task: Task, reason: str, *, look_at_once: bool = False, refusal: str = "", proved: bool = False
) -> Task | Step:
    """Record that a POST's outcome is unknown.

    `refusal`: the error of a second POST; the task fails with it if the first one is not found. `proved`: the provider
    has a task of our reference, regardless of later denials.
    """
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
    """Look up an unconfirmed task by our reference, or by an id from a callback.

    A repeated POST needs evidence: two denials after the settle window, by a provider whose denials are proof; or the
    operator's `retry`.
    """
    now = services.clock.now_ms()
    found = find_at_provider(services, task, inputs)
    if isinstance(found, Found):
        return adopt(services, task, found.provider_task)
    if now >= deadline(services, task):
        return expire(services, task, f"{_UNCONFIRMED_END}; {_WATCHED}")
    if task.retry_at is not None and task.retry_at > now:  # a callback caused this early look-up: it does not count
        return wait(services, task, (task.retry_at - now) / 1000, scaled=False)
    denied = isinstance(found, NotFound)
    denials = task.denials + denied
    settled = now >= (task.unsure_since or now) + settle_ms(services, task)
    denied_twice = denied and denials >= 2 and settled and task.proved_at is None
    if denied_twice and (after := _denied(services, task, now)) is not None:
        return after
    if _given_up(services, task, now):
        return expire(services, task, f"{_UNCONFIRMED_END}; {_WATCHED}")
    one_more = not settled or (denied and denials < 2)
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
    """Return the task or step that two denials allow, or None.

    A refused second POST needs the same evidence as a third POST: the provider may have refused it because it has the
    first one.
    """
    policy = services.settings.on_unconfirmed
    unique = services.provider_of(task).profile.unique_reference
    counts = unique or policy == "retry" or (policy == "auto" and evidence.proven(services, task))
    if task.reason and (counts or policy == "fail"):
        failure = Failure.of(task.reason, otherwise=Failure.REFUSED)
        return services.table.move(task, Phase.FAILED, failure=failure, updated_at=now)
    if counts:
        # The next step sends the POST: the caller may be a callback with little time.
        task = services.table.move(task, Phase.ACCEPTED, retry_at=None, denials=0, updated_at=now)
        return wait(services, task, 1)
    if policy == "fail":
        told: dict[str, Any] = {"reason": _UNCONFIRMED_END, "failure": Failure.EXPIRED}
        return services.table.move(task, Phase.FAILED, **told, updated_at=now)
    return None


def _given_up(services: Services, task: Task, now: int) -> bool:
    """Return whether the client of a task in doubt has waited long enough for evidence."""
    if services.settings.on_unconfirmed != "auto" or task.proved_at is not None or task.unsure_since is None:
        return False
    if services.provider_of(task).profile.unique_reference:  # evidence arrives as soon as the provider answers
        return False
    return now >= task.unsure_since + services.settings.scaled_ms(services.settings.unconfirmed_deadline_seconds)


def settle_ms(services: Services, task: Task) -> int:
    """Return the time (ms) after a POST in doubt in which no denial counts.

    It is the operator's setting, or the profile's if that is 0.
    """
    seconds = services.settings.settle_seconds or services.provider_of(task).profile.settle_seconds
    return services.settings.scaled_ms(seconds)


def find_at_provider(services: Services, task: Task, inputs: AdvanceInput) -> Answer:
    """Look the task up by our reference, then by the ids that callbacks named.

    Found is ours. NotFound: the provider has no task of our reference. QueryFailed proves nothing.
    """
    provider = services.provider_of(task)
    learned: Answer = QueryFailed("the provider cannot be asked by reference")
    if provider.profile.ask_by_reference:
        answer = provider.query(task.kind, task.id)
        if isinstance(answer, Found) and _is_ours(services, task, answer.provider_task):
            return answer
        learned = answer if isinstance(answer, NotFound) else QueryFailed("no answer about this task")
    named = [inputs.hint] if inputs.hint else []
    for hint in dict.fromkeys([*named, *reversed(task.hints.split())]):
        answer = provider.query(task.kind, hint)
        if isinstance(answer, QueryFailed):  # the next queries would only wait as long
            break
        if isinstance(answer, Found) and _may_be_ours(services, task, answer.provider_task, hint):
            return answer
    return learned


def _may_be_ours(services: Services, task: Task, provider_task: ProviderTask, hint: str) -> bool:
    """Return whether the task that a callback named is ours.

    It must carry our reference. With a provider that hides references, it must have been made after our claim.
    """
    hidden = services.provider_of(task).profile.hides_reference and provider_task.created_at is not None
    provable = provider_task.is_about(hint) and (provider_task.reference is not None or hidden)
    return provable and _is_ours(services, task, provider_task)


def _is_ours(services: Services, task: Task, provider_task: ProviderTask) -> bool:
    """Return whether a found task can be ours.

    It must carry no other reference, be made after our claim, and have no other row as its owner. Anything else makes
    the answer a mistake.
    """
    if provider_task.reference not in (None, task.id):
        return False
    made, since = provider_task.created_at if provider_task.reference is None else None, task.sent_since
    if made is not None and (since is None or made < since - _CLOCKS_MS):
        return False
    account = Account.read(services.account_of(task))
    owners = {services.table.owner(space, provider_task.upstream_id) for space in (account.space, account.profile)}
    return owners <= {None, task.id}  # by the profile alone: rows that were written before a row named its account
