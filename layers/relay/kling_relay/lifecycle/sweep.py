"""Sweep overdue work: overdue tasks, tasks that wait for room upstream, and undelivered notices.

It starts workflows, invokes notify_client and measures the open tasks. It moves one kind of task itself: a waiting one
whose deadline has passed.
"""

from kling_relay.dynamodb import ConflictError
from kling_relay.lifecycle.queue import in_time, restart, start_waiting
from kling_relay.lifecycle.step import out_of_time
from kling_relay.notifications import deliver
from kling_relay.observability import Metric, logger
from kling_relay.provider.admission import Admission
from kling_relay.services import Services
from kling_relay.tasks.task import Phase, Task

_OVERDUE_AT_ONCE = 200
_RESERVE_MS = 15_000  # of the function's time, which the ends of late tasks leave for all else
_TOLD_AT_ONCE = 200
_TROUBLE_MS = 900_000  # account trouble that no attempt has confirmed for so long may be over


def sweep(services: Services, must_end_by: int) -> dict[str, int]:
    """Restart overdue tasks, start waiting ones, hand overdue notices to notify_client, and end late waiting tasks.

    `must_end_by` (ms) limits the last part. Returns the number of each.
    """
    now = services.clock.now_ms()
    overdue = sum(restart(services, task_id) for task_id in services.table.queue.due(now, _OVERDUE_AT_ONCE))
    told = sum(deliver.invoke_notifier_by_id(services, task_id) for task_id in services.outbox.due(now, _TOLD_AT_ONCE))
    # One probe: if it finds room it starts the next ones; if not, more of them would have been started in vain.
    admission, started = services.admissions.get(services.account), 0
    if not admission.closed(now) and services.table.queue.waiting(1, in_time(services)):
        services.admissions.mark_unknown(services.account, now)
        started = start_waiting(services, 1)
    late = _end_late(services, must_end_by - _RESERVE_MS)
    services.measure({Metric.SWEEPER_HEARTBEAT: 1, **_gauges(services, admission, now)})
    return {"overdue": overdue, "waiting": started, "late": late, "notifications": told}


def _end_late(services: Services, must_end_by: int) -> int:
    """End the waiting tasks whose deadline has passed, whether there is room or not. Return their number.

    One conditional write each: an execution would cost four state transitions, and thousands would start at once. Their
    notices are left to later sweeps for the same reason.
    """
    ended = 0
    for ids in services.table.queue.late(in_time(services) - 1):
        for task in services.table.read(ids):
            if services.clock.now_ms() >= must_end_by:
                return ended
            ended += _end_one(services, task)
    return ended


def _end_one(services: Services, task: Task) -> bool:
    """Return False if it does not wait any more (the index lags), or if another writer moved it first. Never raises."""
    if task.phase is not Phase.ACCEPTED or task.created_at >= in_time(services):
        return False
    try:
        out_of_time(services, task)
    except ConflictError:
        return False
    except Exception as exc:
        logger.exception("task_expire_failed", extra={"task_id": task.id, "error": type(exc).__name__})
        return False
    return True


def _gauges(services: Services, admission: Admission, now: int) -> dict[Metric, float]:
    """Return the gauges of open tasks; none if they cannot be read now, since the sweep itself is done."""
    trouble = admission.account_trouble and now < admission.not_before + _TROUBLE_MS
    try:
        oldest = services.backlog.oldest()
        return {
            Metric.ACCOUNT_TROUBLE: int(trouble),
            Metric.WAITING_TASKS: services.backlog.waiting(),
            Metric.PARKED_TASKS: services.backlog.parked(),
            Metric.OLDEST_OPEN_TASK: 0 if oldest is None else max(0, now - oldest) / 1000,
        }
    except Exception as exc:
        logger.warning("gauges_failed", extra={"error": type(exc).__name__})
        return {}
