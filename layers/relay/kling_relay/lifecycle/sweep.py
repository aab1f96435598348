"""Finds what has been left lying: overdue tasks, tasks that wait for room upstream, notices. It starts workflows, hands
notices over, and measures how much is open. It moves one kind of task itself: a waiting one whose time is over."""

import random

from botocore.exceptions import ClientError

from kling_relay.dynamodb import LostRace
from kling_relay.lifecycle import step_functions
from kling_relay.lifecycle.step import out_of_time
from kling_relay.notifications import deliver
from kling_relay.observability import Metric, logger
from kling_relay.provider.admission import Gate
from kling_relay.services import Relay
from kling_relay.tasks import fair_queue
from kling_relay.tasks.task import Phase, Task

_OVERDUE_AT_ONCE = 200
_TRIES = 25  # to start a task that was taken meanwhile (an index lags), or that has its own trouble
_TENANTS_SEEN = 7  # at one look for the next turn: most looks start one task, and try others only if they must
_RESERVE_MS = 15_000  # of the function's time, which the ends of late tasks leave to all else
_TOLD_AT_ONCE = 200
# DynamoDB's answers to a query of an index that is not there yet; while it is filled the first one holds as well.
_NO_INDEX = {"ValidationException", "ResourceNotFoundException"}
_TROUBLE_MS = 900_000  # account trouble that no try has confirmed for so long is not known to last


def sweep(relay: Relay, must_end_by: int) -> dict[str, int]:
    """Give every overdue task a new workflow, waiting tasks their turn, and overdue notices to notify_client; end the
    waiting tasks whose time is over, as far as they get until `must_end_by` (ms). Returns how many there were of each.
    """
    now = relay.clock.now_ms()
    overdue = sum(_restart(relay, task_id) for task_id in relay.table.due(now, _OVERDUE_AT_ONCE))
    told = sum(deliver.hand_over_id(relay, task_id) for task_id in relay.outbox.due(now, _TOLD_AT_ONCE))
    # One probe: where it finds room it starts the next ones, and where there is none the others were started in vain.
    gate, started = relay.gates.get(relay.account), 0
    if not gate.closed(now) and relay.table.waiting(1, _in_time(relay)):
        relay.gates.doubt(relay.account, now)
        started = start_waiting(relay, 1)
    late = _end_late(relay, must_end_by - _RESERVE_MS)
    relay.measure({Metric.SWEEPER_HEARTBEAT: 1, **_gauges(relay, gate, now)})
    return {"overdue": overdue, "waiting": started, "late": late, "telling": told}


def _in_time(relay: Relay) -> int:
    """A task that was created before this moment (ms) has run out of time."""
    return relay.clock.now_ms() - relay.settings.deadline_seconds * 1000 + 1


def _end_late(relay: Relay, must_end_by: int) -> int:
    """End the waiting tasks that have run out of time, whether there is room or not. Returns how many. One conditional
    write each: an execution would cost four state transitions, and thousands of them would come at once. Their notices
    are left to later sweeps for the same reason."""
    ended = 0
    for ids in relay.table.late(_in_time(relay) - 1):
        for task in relay.table.read(ids):
            if relay.clock.now_ms() >= must_end_by:
                return ended
            ended += _end_one(relay, task)
    return ended


def _end_one(relay: Relay, task: Task) -> bool:
    """False if it does not wait any more (the index lags), or if another one moved it first. Never raises."""
    if task.phase is not Phase.ACCEPTED or task.created_at >= _in_time(relay):
        return False
    try:
        out_of_time(relay, task)
    except LostRace:
        return False
    except Exception as exc:
        logger.exception("not_ended", extra={"task_id": task.id, "error": type(exc).__name__})
        return False
    return True


def _gauges(relay: Relay, gate: Gate, now: int) -> dict[Metric, float]:
    """What is open; nothing where it cannot be read just now, since the sweep itself is done."""
    trouble = gate.account_trouble and now < gate.not_before + _TROUBLE_MS
    try:
        oldest = relay.backlog.oldest()
        return {
            Metric.ACCOUNT_TROUBLE: int(trouble),
            Metric.WAITING_TASKS: relay.backlog.waiting(),
            Metric.PARKED_TASKS: relay.backlog.parked(),
            Metric.OLDEST_OPEN_TASK: 0 if oldest is None else max(0, now - oldest) / 1000,
        }
    except Exception as exc:
        logger.warning("not_measured", extra={"error": type(exc).__name__})
        return {}


def room_was_made(relay: Relay) -> None:
    """A task has left the provider: a waiting task may take its place, unless the account is in trouble. Never raises,
    since the sweeper does the same."""
    try:
        if not relay.table.waiting(1, _in_time(relay)):
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
        if not relay.table.waiting(1, _in_time(relay)):
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
        started += started < room and _restart(relay, task_id)
    return started


def _candidates(relay: Relay, gate: Gate) -> list[tuple[str, str]]:
    """(id, tenant) of the tasks among whom the next ones are chosen: the oldest of all, those of the tenants whose turn
    comes next and, if the account is in trouble, some that are drawn. None has run out of time.

    The oldest of all are among them for the rows of older versions, which have no `turn`, and for the time in which a
    new index is being built.
    """
    since = _in_time(relay)
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


def _restart(relay: Relay, task_id: str) -> bool:
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
