"""Finds what has been left lying: overdue tasks, tasks that wait for room upstream, notices. It only starts workflows
and hands notices over, and measures how much is open."""

import random

from kling_relay import notifying, workflow
from kling_relay.gate import Gate
from kling_relay.observability import Metric, logger
from kling_relay.relay import Relay

_OVERDUE_AT_ONCE = 200
_WAITING_SEEN = 2000  # the turns of tenants are fair among these
_LATE_AT_ONCE = 20
_TRIES = 5  # to start a task that somebody else took meanwhile, or that has its own trouble
_TOLD_AT_ONCE = 200
_TROUBLE_MS = 900_000  # account trouble that no try has confirmed for so long is not known to last


def sweep(relay: Relay) -> dict[str, int]:
    """Give every overdue task a new workflow, waiting tasks their turn, and overdue notices to notify_client. Returns
    how many there were of each."""
    now = relay.clock.now_ms()
    overdue = sum(_restart(relay, task_id) for task_id in relay.table.due(now, _OVERDUE_AT_ONCE))
    # Tasks past their deadline go whether there is room or not: they end, and cost nothing.
    late = relay.table.waiting_since(now - relay.settings.deadline_seconds * 1000, _LATE_AT_ONCE)
    started = sum(_restart(relay, task_id) for task_id in late)
    told = sum(notifying.hand_over_id(relay, task_id) for task_id in relay.outbox.due(now, _TOLD_AT_ONCE))
    # One probe: where it finds room it starts the next ones, and where there is none the others were started in vain.
    gate = relay.gates.get(relay.account)
    if not gate.closed(now) and relay.table.waiting(1):
        relay.gates.doubt(relay.account, now)
        started += start_waiting(relay, 1)
    relay.measure({Metric.SWEEPER_HEARTBEAT: 1, **_gauges(relay, gate, now)})
    return {"overdue": overdue, "waiting": started, "telling": told}


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
        if not relay.table.waiting(1):
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
        if not relay.table.waiting(1):
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
    gate, waiting = relay.gates.get(relay.account), relay.table.waiting(_WAITING_SEEN)
    ranked = in_turn(waiting, gate.turn)
    if gate.account_trouble:
        random.shuffle(ranked)
    started = 0
    for task_id in [] if gate.pause else ranked[: room + _TRIES]:
        started += started < room and _restart(relay, task_id)
    return started


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
        return workflow.replace(relay, task)
    except Exception as exc:
        logger.exception("not_restarted", extra={"task_id": task_id, "error": type(exc).__name__})
        return False
