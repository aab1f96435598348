"""What a move of a task means: in metrics, and in the line of the log that tells of it.

`TaskTable` calls once for every move that its conditional write has won, with the task as it was read and as that write
has left it. So each of these is told once, whoever moves the task and however many try.
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
    """The plain metrics of a move; `before` is None for a task that is new. Metrics with reasons: see `failure`."""
    if before is None:
        return {Metric.ACCEPTED: 1}
    told: Measures = {}
    spent = _spent(before, after)
    if spent is not None:
        told[Metric.UNITS_SPENT] = spent / 1000
    if after.phase is before.phase:
        return told
    if after.phase is Phase.UNCONFIRMED:
        told[Metric.UNCONFIRMED] = 1
    elif after.phase is Phase.SUBMITTED:
        told |= {Metric.SUBMITTED: 1, Metric.WAITING_SECONDS: _waiting(after)}
    elif after.phase is Phase.RENDERED and before.phase is not Phase.EXPIRED:
        # A late render was looked for every few hours only: its time would say nothing of the provider.
        told[Metric.PROVIDER_SECONDS] = _rendering(after)
    elif after.phase is Phase.SUCCEEDED:
        told |= {
            Metric.SUCCEEDED: 1,
            Metric.ARCHIVED_BYTES: _size(after),
            Metric.ARCHIVE_SECONDS: _archiving(after),
            Metric.END_TO_END_SECONDS: _seconds(after.created_at, after.updated_at),
        }
    return told


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
    """Why a move has failed the task; None where it has not, or where the client had been told so before."""
    told = before is not None and (before.phase is after.phase or before.expired_at is not None)
    return None if told or after.phase not in (Phase.FAILED, Phase.EXPIRED) else after.failure


def rejection(method: str, path: str, error: KlingError) -> str | None:
    """Why a request for a task became none; None where it did, or was no such request. 1102 is our cap: what the
    provider says comes when there is a task."""
    if method != "POST" or "/videos/" not in path or isinstance(error, ProviderRejectedError):
        return None
    if 1000 <= error.code <= 1004:
        return "credentials"
    if error.code == 1102:
        return "cap"
    return "busy" if error.http == 429 or error.http >= 500 else "request"


def line(before: Task | None, after: Task) -> dict[str, Any] | None:
    """The keys of the log's `task_moved`: what a reader of the log asks for, and nothing that a client or the provider
    said in words. None where a write has changed nothing worth a line.

    `units` stands in one line a task, `failure` in the one that fails it, so that both can be added up. The seconds of
    a part stand in every line from its end on.
    """
    measured = of_move(before, after)
    if before is not None and before.phase is after.phase and not measured:
        return None
    keys = {
        "task_id": after.id,
        "phase": after.phase,
        "was": None if before is None else before.phase,
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
        keys |= {"archive_seconds": _archiving(after), "bytes": _size(after), "copies": after.copies}
    return {name: told for name, told in keys.items() if told is not None}


def _spent(before: Task, after: Task) -> int | None:
    """What the task cost (thousandths of a unit), at the one move that tells it: as the provider states it or, where it
    states nothing for a video, as estimated. What is stated later changes no count."""
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
    """Between two times of a row (ms): never negative, since several clocks have written them."""
    return 0.0 if since is None or until is None else max(0, until - since) / 1000


def _size(task: Task) -> int:
    return sum(video["size"] for video in task.videos)
