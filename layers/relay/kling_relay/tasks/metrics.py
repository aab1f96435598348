"""Derive the metrics and the log line of a task's move.

`TaskTable` calls these functions once for every move that its conditional write has won. It passes the task as read and
the task after that write. So each value is reported once, no matter how many writers compete.
"""

from collections.abc import Callable
from typing import Any

from kling_relay.errors import KlingError, ProviderRejectedError
from kling_relay.kinds.fields import default_mode
from kling_relay.observability import Metric, logger
from kling_relay.tasks.spend_cap import milli_units
from kling_relay.tasks.task import Failure, Phase, Task

Measures = dict[Metric, float]


def of_move(before: Task | None, after: Task) -> Measures:
    """Return the metrics without reasons of a move; `before` is None for a new task.

    Metrics with reasons: see `failure`.
    """
    if before is None:
        return {Metric.ACCEPTED: 1}
    measures: Measures = {}
    spent = _spent(before, after)
    if spent is not None:
        measures[Metric.UNITS_SPENT] = spent / 1000
    if after.phase is before.phase:
        return measures
    if after.phase is Phase.UNCONFIRMED:
        measures[Metric.UNCONFIRMED] = 1
    elif after.phase is Phase.SUBMITTED:
        measures |= {Metric.SUBMITTED: 1, Metric.WAITING_SECONDS: _waiting(after)}
    elif after.phase is Phase.RENDERED and before.phase is not Phase.EXPIRED:
        # A late render is polled every few hours only: its time would not measure the provider.
        measures[Metric.PROVIDER_SECONDS] = _rendering(after)
    elif after.phase is Phase.SUCCEEDED:
        measures |= {
            Metric.SUCCEEDED: 1,
            Metric.ARCHIVED_BYTES: _size(after),
            Metric.ARCHIVE_SECONDS: _archiving(after),
            Metric.END_TO_END_SECONDS: _seconds(after.created_at, after.updated_at),
        }
    return measures


def report_move(
    before: Task | None,
    after: Task,
    measure: Callable[[Measures], None],
    count: Callable[[Metric, str], None],
) -> None:
    """Write the log line of a move and publish its metrics through `measure` and `count`; never raises."""
    try:
        if (keys := line(before, after)) is not None:
            logger.info("task_moved", extra=keys)
        if measures := of_move(before, after):
            measure(measures)
        if (reason := failure(before, after)) is not None:
            count(Metric.FAILED, reason)
    except Exception as exc:
        logger.warning("metrics_lost", extra={"error": type(exc).__name__, "task_id": after.id})


def failure(before: Task | None, after: Task) -> Failure | None:
    """Return the reason if a move failed the task. None if it did not, or if the client was notified before."""
    reported = before is not None and (before.phase is after.phase or before.expired_at is not None)
    return None if reported or after.phase not in (Phase.FAILED, Phase.EXPIRED) else after.failure


def rejection(method: str, path: str, error: KlingError) -> str | None:
    """Return the reason why a request for a task created none. None if it created one, or was no such request.

    1102 is our cap: an error of the provider has a task.
    """
    if method != "POST" or "/videos/" not in path or isinstance(error, ProviderRejectedError):
        return None
    if 1000 <= error.code <= 1004:
        return "credentials"
    if error.code == 1102:
        return "cap"
    return "busy" if error.http == 429 or error.http >= 500 else "request"


def line(before: Task | None, after: Task) -> dict[str, Any] | None:
    """Return the keys of the log event `task_moved`, without any text of a client or the provider.

    None if a write changed nothing that is worth a line. `units` is in one line of a task, `failure` in the line that
    fails it, so that both can be summed. The seconds of a stage are in every line from its end on.
    """
    measured = of_move(before, after)
    if before is not None and before.phase is after.phase and not measured:
        return None
    keys = {
        "task_id": after.id,
        "phase": after.phase,
        "previous_phase": None if before is None else before.phase,
        "tenant": after.tenant,
        "kind": after.kind,
        "model": after.request.get("model_name"),
        "mode": after.request.get("mode", default_mode(after.kind)),
        "duration": after.request.get("duration", "5"),
        "attempt": after.attempt,
        "upstream_id": after.upstream_id,
        "failure": failure(before, after),
        "units": measured.get(Metric.UNITS_SPENT),
        "late": after.expired_at is not None or None,
    }
    if after.upstream_id is not None:
        keys["waiting_seconds"] = _waiting(after)
    if after.rendered_at is not None:
        keys["provider_seconds"] = _rendering(after)
    if after.phase in (Phase.SUCCEEDED, Phase.FAILED, Phase.EXPIRED):
        keys["seconds"] = _seconds(after.created_at, after.updated_at)
    if after.phase is Phase.SUCCEEDED:
        keys |= {"archive_seconds": _archiving(after), "bytes": _size(after), "copy_attempts": after.copies}
    return {name: field for name, field in keys.items() if field is not None}


def _spent(before: Task, after: Task) -> int | None:
    """Return the cost (thousandths of a unit) at the one move that reports it, else None.

    The provider's figure is used. Without one the estimate is used, for a video. A figure that arrives later changes no
    count.
    """
    if before.units is not None or before.rendered_at is not None:
        return None
    stated = milli_units(after.units)
    return after.estimate if stated is None and after.rendered_at is not None else stated


def _waiting(task: Task) -> float:
    return _seconds(task.created_at, task.claimed_at)


def _rendering(task: Task) -> float:
    return _seconds(task.claimed_at, task.rendered_at)


def _archiving(task: Task) -> float:
    return _seconds(task.rendered_at, task.updated_at)


def _seconds(since: int | None, until: int | None) -> float:
    """Return the seconds between two times of a row (ms): never negative, since several clocks wrote them."""
    return 0.0 if since is None or until is None else max(0, until - since) / 1000


def _size(task: Task) -> int:
    return sum(video["size"] for video in task.videos)
