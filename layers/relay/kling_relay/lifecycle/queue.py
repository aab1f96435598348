"""Start the tasks that wait for a slot at the provider, fairly over tenants."""

import random

from botocore.exceptions import ClientError

from kling_relay.lifecycle import step_functions
from kling_relay.observability import logger
from kling_relay.provider.admission import Admission
from kling_relay.services import Services
from kling_relay.tasks import fair_queue

_TRIES = 25  # to start a task that was taken meanwhile (an index lags), or that fails by itself

_TENANTS_SEEN = 7  # in one read for the next turn: most reads start one task, and try others only if they must

# DynamoDB's errors for a query of a missing index. While the index is filled, the first one applies as well.
_NO_INDEX = {"ValidationException", "ResourceNotFoundException"}


def in_time(services: Services) -> int:
    """Return the creation time (ms) since which tasks are within their deadline."""
    return services.clock.now_ms() - services.settings.deadline_seconds * 1000 + 1


def on_slot_freed(services: Services) -> None:
    """Start a waiting task after a task has left the provider, unless the account is in trouble.

    Never raises, since the sweeper does the same.
    """
    try:
        if not services.table.queue.waiting(1, in_time(services)):
            return
        admission = services.admissions.get(services.account)
        if admission.troubled:  # they wait for another cause than room
            return
        services.admissions.open(services.account, admission, crowded=True)
        start_waiting(services, 1)
    except Exception as exc:
        logger.warning("queue_start_failed", extra={"error": type(exc).__name__})


def on_slot_found(services: Services, tenant: str, admission: Admission) -> None:
    """Start more waiting tasks after the provider accepted one of `tenant`. `admission`: the state before it was sent.

    If no slot had been freed for it, there may be more room: two waiting tasks try, and so on until one is refused.
    Never raises, as `on_slot_freed`.
    """
    try:
        if not services.table.queue.waiting(1, in_time(services)):
            services.admissions.open(services.account, admission)
            return
        services.admissions.record_turn(services.account, tenant)
        if admission.failures:
            services.admissions.open(services.account, admission, crowded=True, not_before=admission.not_before)
        if admission.not_before:
            start_waiting(services, 2)
    except Exception as exc:
        logger.warning("queue_start_failed", extra={"error": type(exc).__name__})


def start_waiting(services: Services, room: int) -> int:
    """Start up to `room` waiting tasks, in turn over tenants, the oldest of each. Return the number of started ones.

    If the account is in trouble, the order is random, so that a task that it cannot send (such as one of a model that
    it has no right to) does not keep all others from trying.
    """
    admission = services.admissions.get(services.account)
    if admission.pause:
        return 0
    ranked = fair_order(_candidates(services, admission), admission.turn)
    if admission.account_trouble:
        random.shuffle(ranked)
    started = 0
    for task_id in ranked[: room + _TRIES]:
        started += started < room and restart(services, task_id)
    return started


def _candidates(services: Services, admission: Admission) -> list[tuple[str, str]]:
    """Return (id, tenant) of the candidates for the next slots, all within their deadline.

    They are the oldest of all, those of the tenants whose turn is next and, if the account is in trouble, a random
    sample. The oldest of all cover the rows of older versions, which have no `turn`, and the time in which a new index
    is built.
    """
    since = in_time(services)
    found = services.table.queue.waiting(_TRIES, since)
    try:
        found += fair_queue.oldest_of_each(services.table.rows, admission.turn, since, _TENANTS_SEEN, _TRIES)
    except ClientError as exc:
        if exc.response["Error"]["Code"] not in _NO_INDEX:
            raise
        logger.warning("fair_order_skipped", extra={"error": exc.response["Error"]["Code"]})
    if admission.account_trouble:
        found += services.table.queue.waiting_at_random(_TRIES, since)
    return list(dict.fromkeys(found))


def fair_order(waiting: list[tuple[str, str]], last: str = "") -> list[str]:
    """Order (id, tenant) fairly: one id of each tenant, then the second of each, and so on. Pure.

    A tenant with many tasks waits longest. Tenants are sorted by name, starting after `last`, so that no order of
    arrival favours one permanently.
    """
    seen: dict[str, int] = {}
    ranked = []
    for task_id, tenant in waiting:
        ranked.append((seen.get(tenant, 0), tenant <= last, tenant, task_id))
        seen[tenant] = seen.get(tenant, 0) + 1
    return [task_id for _, _, _, task_id in sorted(ranked)]


def restart(services: Services, task_id: str) -> bool:
    """Start a new workflow for one task. Return whether it was started.

    Its errors are logged, so that the sweeper continues with the others; the task is retried.
    """
    try:
        task = services.table.get(task_id)
        if task is None or task.due_at is None or task.due_at > services.clock.now_ms():
            return False  # the index lagged
        logger.info("workflow_replaced", extra={"task_id": task_id, "phase": task.phase})
        return step_functions.replace(services, task)
    except Exception as exc:
        logger.exception("restart_failed", extra={"task_id": task_id, "error": type(exc).__name__})
        return False
