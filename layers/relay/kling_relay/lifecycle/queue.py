"""Start the tasks that wait for a slot at the provider, fairly over tenants."""

import random

from botocore.exceptions import ClientError

from kling_relay.lifecycle import step_functions
from kling_relay.observability import logger
from kling_relay.provider.admission import Gate
from kling_relay.services import Relay
from kling_relay.tasks import fair_queue

_TRIES = 25  # to start a task that was taken meanwhile (an index lags), or that has its own trouble

_TENANTS_SEEN = 7  # at one look for the next turn: most looks start one task, and try others only if they must

# DynamoDB's answers to a query of an index that is not there yet; while it is filled the first one holds as well.
_NO_INDEX = {"ValidationException", "ResourceNotFoundException"}


def in_time(relay: Relay) -> int:
    """A task that was created before this moment (ms) has run out of time."""
    return relay.clock.now_ms() - relay.settings.deadline_seconds * 1000 + 1


def room_was_made(relay: Relay) -> None:
    """A task has left the provider: a waiting task may take its place, unless the account is in trouble. Never raises,
    since the sweeper does the same."""
    try:
        if not relay.table.waiting(1, in_time(relay)):
            return
        gate = relay.gates.get(relay.account)
        if gate.troubled:  # room is not what they wait for
            return
        relay.gates.open(relay.account, gate, crowded=True)
        start_waiting(relay, 1)
    except Exception as exc:
        logger.warning("room_not_given", extra={"error": type(exc).__name__})


def room_was_found(relay: Relay, tenant: str, gate: Gate) -> None:
    """The provider took a task of `tenant`, sent while the gate was `gate`. Where nobody had made that room, there may
    be more of it: two waiting tasks try, and so on until one is refused. Never raises, as `room_was_made`."""
    try:
        if not relay.table.waiting(1, in_time(relay)):
            relay.gates.open(relay.account, gate)
            return
        relay.gates.give_turn(relay.account, tenant)
        if gate.failures:
            relay.gates.open(relay.account, gate, crowded=True, not_before=gate.not_before)
        if gate.not_before:
            start_waiting(relay, 2)
    except Exception as exc:
        logger.warning("room_not_given", extra={"error": type(exc).__name__})


def start_waiting(relay: Relay, room: int) -> int:
    """Start `room` waiting tasks, or as many as there are: in turn over tenants, the oldest of each. Where the account
    is in trouble, by lot, so that one that it may not have (such as a model that it has no right to) does not keep all
    others from trying."""
    gate = relay.gates.get(relay.account)
    if gate.pause:
        return 0
    ranked = in_turn(_candidates(relay, gate), gate.turn)
    if gate.account_trouble:
        random.shuffle(ranked)
    started = 0
    for task_id in ranked[: room + _TRIES]:
        started += started < room and restart(relay, task_id)
    return started


def _candidates(relay: Relay, gate: Gate) -> list[tuple[str, str]]:
    """(id, tenant) of the tasks among whom the next ones are chosen: the oldest of all, those of the tenants whose turn
    comes next and, if the account is in trouble, some that are drawn. None has run out of time.

    The oldest of all are among them for the rows of older versions, which have no `turn`, and for the time in which a
    new index is being built.
    """
    since = in_time(relay)
    found = relay.table.waiting(_TRIES, since)
    try:
        found += fair_queue.oldest_of_each(relay.table.rows, gate.turn, since, _TENANTS_SEEN, _TRIES)
    except ClientError as exc:
        if exc.response["Error"]["Code"] not in _NO_INDEX:
            raise
        logger.warning("turns_by_age_alone", extra={"error": exc.response["Error"]["Code"]})
    if gate.account_trouble:
        found += relay.table.waiting_by_lot(_TRIES, since)
    return list(dict.fromkeys(found))


def in_turn(waiting: list[tuple[str, str]], last: str = "") -> list[str]:
    """Ids of (id, tenant), one of each tenant, then the second of each, and so on: who has many waits longest.
    Tenants follow each other by name, beginning behind `last`, so that no order of arrival puts one before another for
    good. Pure."""
    seen: dict[str, int] = {}
    ranked = []
    for task_id, tenant in waiting:
        ranked.append((seen.get(tenant, 0), tenant <= last, tenant, task_id))
        seen[tenant] = seen.get(tenant, 0) + 1
    return [task_id for _, _, _, task_id in sorted(ranked)]


def restart(relay: Relay, task_id: str) -> bool:
    """A new workflow for one task. Trouble with it must not keep the sweep from the others; it comes up again."""
    try:
        task = relay.table.get(task_id)
        if task is None or task.due_at is None or task.due_at > relay.clock.now_ms():
            return False  # the index was a moment behind
        logger.info("workflow_replaced", extra={"task_id": task_id, "phase": task.phase})
        return step_functions.replace(relay, task)
    except Exception as exc:
        logger.exception("not_restarted", extra={"task_id": task_id, "error": type(exc).__name__})
        return False
