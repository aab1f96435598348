"""Finds what has been left lying: overdue tasks, tasks that wait for room upstream, notices. It only starts workflows
and hands notices over, and measures how much is open."""

import random

from kling_relay import notifying, workflow
from kling_relay.gate import Gate
from kling_relay.observability import Metric, logger
from kling_relay.relay import Relay

_OVERDUE_AT_ONCE = 200
_WAITING_SEEN = 2000  # the turns of tenants are fair among these
_STARTED_AT_ONCE = 20
_TOLD_AT_ONCE = 200
_TROUBLE_MS = 900_000  # account trouble that no try has confirmed for so long is not known to last


def sweep(relay: Relay) -> dict[str, int]:
    """Give every overdue task a new workflow, waiting tasks their turn, and overdue notices to notify_client. Returns
    how many there were of each."""
    now = relay.clock.now_ms()
    overdue = sum(_restart(relay, task_id) for task_id in relay.table.due(now, _OVERDUE_AT_ONCE))
    gate = relay.gates.get(relay.settings.provider)
    # Closed for several times in a row: one task probes; otherwise a handful, since a refusal for want of room is free.
    probe = gate.failures > 3 or gate.account_trouble
    room = 0 if gate.closed(now) else 1 if probe else _STARTED_AT_ONCE
    started = {"overdue": overdue, "waiting": start_waiting(relay, room, anyone=gate.account_trouble)}
    started["telling"] = sum(notifying.hand_over_id(relay, task_id) for task_id in relay.outbox.due(now, _TOLD_AT_ONCE))
    relay.measure({Metric.SWEEPER_HEARTBEAT: 1, **_gauges(relay, gate, now)})
    return started


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
    """A task has left the provider: the oldest waiting task may go. Never raises, since the sweeper does the same."""
    try:
        if not relay.table.waiting(1):
            return
        gate = relay.gates.get(relay.settings.provider)
        if gate.account_trouble:  # room is not what they wait for
            return
        relay.gates.open(relay.settings.provider, gate)
        start_waiting(relay, 0 if gate.pause else 1)
    except Exception as exc:
        logger.warning("room_not_given", extra={"error": type(exc).__name__})


def start_waiting(relay: Relay, room: int, *, anyone: bool = False) -> int:
    """Start at most `room` waiting tasks: the oldest first, in turn over tenants; or, for `anyone`, by lot, so that one
    that the account may not have (such as a model that it has no right to) does not keep all others from trying. Tasks
    past their deadline go as well, whether there is room or not: they end, and cost nothing."""
    waiting = relay.table.waiting(_WAITING_SEEN)
    ranked = in_turn(waiting)
    if anyone:
        random.shuffle(ranked)
    chosen = ranked[:room]
    late = relay.clock.now_ms() - relay.settings.deadline_seconds * 1000
    chosen += [task_id for task_id in relay.table.waiting_since(late, _STARTED_AT_ONCE) if task_id not in chosen]
    return sum(_restart(relay, task_id) for task_id in chosen)


def in_turn(waiting: list[tuple[str, str]]) -> list[str]:
    """Ids of (id, tenant), one of each tenant, then the second of each, and so on: who has many waits longest. Pure."""
    seen: dict[str, int] = {}
    ranked = []
    for place, (task_id, tenant) in enumerate(waiting):
        ranked.append((seen.get(tenant, 0), place, task_id))
        seen[tenant] = seen.get(tenant, 0) + 1
    return [task_id for _, _, task_id in sorted(ranked)]


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
