"""Start the tasks that wait for a slot at the provider, fairly over tenants."""

import random

from botocore.exceptions import ClientError

from kling_relay.lifecycle import step_functions
from kling_relay.observability import logger
from kling_relay.provider.admission import Admission
from kling_relay.services import Services
from kling_relay.tasks import fair_queue

_TRIES = 25  # to start a task that was taken meanwhile (an index lags), or that has its own trouble

_TENANTS_SEEN = 7  # at one look for the next turn: most looks start one task, and try others only if they must

# DynamoDB's answers to a query of an index that is not there yet; while it is filled the first one holds as well.
_NO_INDEX = {"ValidationException", "ResourceNotFoundException"}


def in_time(services: Services) -> int:
    """A task that was created before this moment (ms) has run out of time."""
    return services.clock.now_ms() - services.settings.deadline_seconds * 1000 + 1


def on_slot_freed(services: Services) -> None:
    """A task has left the provider: a waiting task may take its place, unless the account is in trouble. Never raises,
    since the sweeper does the same."""
    try:
        if not services.table.waiting(1, in_time(services)):
            return
        admission = services.admissions.get(services.account)
        if admission.troubled:  # room is not what they wait for
            return
        services.admissions.open(services.account, admission, crowded=True)
        start_waiting(services, 1)
    except Exception as exc:
        logger.warning("queue_start_failed", extra={"error": type(exc).__name__})


def on_slot_found(services: Services, tenant: str, admission: Admission) -> None:
    """The provider took a task of `tenant`, sent while the gate was `gate`. Where nobody had made that room, there may
    be more of it: two waiting tasks try, and so on until one is refused. Never raises, as `on_slot_freed`."""
    try:
        if not services.table.waiting(1, in_time(services)):
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
    """Start `room` waiting tasks, or as many as there are: in turn over tenants, the oldest of each. Where the account
    is in trouble, by lot, so that one that it may not have (such as a model that it has no right to) does not keep all
    others from trying."""
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
    """(id, tenant) of the tasks among whom the next ones are chosen: the oldest of all, those of the tenants whose turn
    comes next and, if the account is in trouble, some that are drawn. None has run out of time.

    The oldest of all are among them for the rows of older versions, which have no `turn`, and for the time in which a
    new index is being built.
    """
    since = in_time(services)
    found = services.table.waiting(_TRIES, since)
    try:
        found += fair_queue.oldest_of_each(services.table.rows, admission.turn, since, _TENANTS_SEEN, _TRIES)
    except ClientError as exc:
        if exc.response["Error"]["Code"] not in _NO_INDEX:
            raise
        logger.warning("fair_order_skipped", extra={"error": exc.response["Error"]["Code"]})
    if admission.account_trouble:
        found += services.table.waiting_by_lot(_TRIES, since)
    return list(dict.fromkeys(found))


def fair_order(waiting: list[tuple[str, str]], last: str = "") -> list[str]:
    """Ids of (id, tenant), one of each tenant, then the second of each, and so on: who has many waits longest.
    Tenants follow each other by name, beginning behind `last`, so that no order of arrival puts one before another for
    good. Pure."""
    seen: dict[str, int] = {}
    ranked = []
    for task_id, tenant in waiting:
        ranked.append((seen.get(tenant, 0), tenant <= last, tenant, task_id))
        seen[tenant] = seen.get(tenant, 0) + 1
    return [task_id for _, _, _, task_id in sorted(ranked)]


def restart(services: Services, task_id: str) -> bool:
    """A new workflow for one task. Trouble with it must not keep the sweep from the others; it comes up again."""
    try:
        task = services.table.get(task_id)
        if task is None or task.due_at is None or task.due_at > services.clock.now_ms():
            return False  # the index was a moment behind
        logger.info("workflow_replaced", extra={"task_id": task_id, "phase": task.phase})
        return step_functions.replace(services, task)
    except Exception as exc:
        logger.exception("restart_failed", extra={"task_id": task_id, "error": type(exc).__name__})
        return False
