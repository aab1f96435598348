"""Finds what has been left lying: overdue tasks, tasks that wait for room upstream, notices. It starts workflows, hands
notices over, and measures how much is open. It moves one kind of task itself: a waiting one whose time is over."""

from kling_relay.dynamodb import LostRace
from kling_relay.lifecycle.queue import in_time, restart, start_waiting
from kling_relay.lifecycle.step import out_of_time
from kling_relay.notifications import deliver
from kling_relay.observability import Metric, logger
from kling_relay.provider.admission import Gate
from kling_relay.services import Relay
from kling_relay.tasks.task import Phase, Task

_OVERDUE_AT_ONCE = 200
_RESERVE_MS = 15_000  # of the function's time, which the ends of late tasks leave to all else
_TOLD_AT_ONCE = 200
_TROUBLE_MS = 900_000  # account trouble that no try has confirmed for so long is not known to last


def sweep(relay: Relay, must_end_by: int) -> dict[str, int]:
    """Give every overdue task a new workflow, waiting tasks their turn, and overdue notices to notify_client; end the
    waiting tasks whose time is over, as far as they get until `must_end_by` (ms). Returns how many there were of each.
    """
    now = relay.clock.now_ms()
    overdue = sum(restart(relay, task_id) for task_id in relay.table.due(now, _OVERDUE_AT_ONCE))
    told = sum(deliver.hand_over_id(relay, task_id) for task_id in relay.outbox.due(now, _TOLD_AT_ONCE))
    # One probe: where it finds room it starts the next ones, and where there is none the others were started in vain.
    gate, started = relay.gates.get(relay.account), 0
    if not gate.closed(now) and relay.table.waiting(1, in_time(relay)):
        relay.gates.doubt(relay.account, now)
        started = start_waiting(relay, 1)
    late = _end_late(relay, must_end_by - _RESERVE_MS)
    relay.measure({Metric.SWEEPER_HEARTBEAT: 1, **_gauges(relay, gate, now)})
    return {"overdue": overdue, "waiting": started, "late": late, "telling": told}


def _end_late(relay: Relay, must_end_by: int) -> int:
    """End the waiting tasks that have run out of time, whether there is room or not. Returns how many. One conditional
    write each: an execution would cost four state transitions, and thousands of them would come at once. Their notices
    are left to later sweeps for the same reason."""
    ended = 0
    for ids in relay.table.late(in_time(relay) - 1):
        for task in relay.table.read(ids):
            if relay.clock.now_ms() >= must_end_by:
                return ended
            ended += _end_one(relay, task)
    return ended


def _end_one(relay: Relay, task: Task) -> bool:
    """False if it does not wait any more (the index lags), or if another one moved it first. Never raises."""
    if task.phase is not Phase.ACCEPTED or task.created_at >= in_time(relay):
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
