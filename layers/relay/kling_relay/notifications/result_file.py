"""The result of every dropped object: `results/{key}.json` in the input bucket.

Results only ever tell more. Each object carries the version that it is about and how far that has come; a writer that
knows less, because it is late or one of several, leaves it alone, and of two at once S3 lets one through. The place is
that of the newest version: what becomes of an older one goes to `results/{key}.{version}.json`.
"""

import json
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from kling_relay import client_view
from kling_relay.errors import KlingError
from kling_relay.observability import Metric, logger
from kling_relay.services import Services
from kling_relay.tasks.batch_counts import LineOutcome
from kling_relay.tasks.s3_source import Source
from kling_relay.tasks.task import TASK_STATUS, Phase, Task

_NOTED, _REJECTED, _DELETED, _COUNTED = 0, 1, 6, 10  # a list of requests counts up from there
_RANKS = {"submitted": 2, "processing": 3, "failed": 4, "succeed": 5}  # a failed task may still succeed, late
_TALLIED: dict[str, LineOutcome] = {"submitted": "accepted", "failed": "failed", "succeed": "succeeded"}
_SUMMARY_MS = 2_000  # a summary is not written more often, but when all lines are taken, and when all have ended
_MAX_REASONS = 100
_MAX_TRIES = 20
_ABSENT = {403, 404}  # denied (without the right to list), or missing
_OVERTAKEN = {404, 409, 412}  # removed, being written, or written by somebody else since it was read


@dataclass(frozen=True, slots=True)
class _Written:
    """A result as it lies there. `at`: when it was written (ms)."""

    etag: str
    version: str
    rank: int
    at: int


def write(services: Services, task: Task) -> None:
    """Tell how a task of a dropped object stands. Can be repeated, in any order."""
    if task.source is None:
        return
    source, status = Source(**task.source), TASK_STATUS[task.phase]
    rank = _RANKS[status] if task.deleted_at is None else _DELETED
    _put(services, source, rank, _task_body(services, task))
    if source.line and status in _TALLIED:
        services.batch_counts.tell(source.tag, source.line, "accepted")
        services.batch_counts.tell(source.tag, source.line, _TALLIED[status])
        summarise(services, source)


def reject(services: Services, source: Source, error: KlingError) -> None:
    """Tell why an upload, or a line of one, has become no task."""
    logger.info("upload_rejected", extra={"object": source.tag, "line": source.line, "code": error.code})
    told = {"task_id": None, "task_status": "failed", "task_status_msg": error.message, "code": error.code}
    if _put(services, source, _REJECTED, told):
        services.measure({Metric.FILES_REJECTED: 1})
    if source.line:
        services.batch_counts.tell(source.tag, source.line, "rejected", error.message)
        summarise(services, source)


def note(services: Services, source: Source, message: str) -> None:
    """Tell what has become of an upload that is no task, or none yet."""
    _put(services, source, _NOTED, {"task_id": None, "task_status": None, "task_status_msg": message})


def summarise(services: Services, source: Source) -> None:
    """Bring the summary of a list of requests up to date: at once when all of its lines are taken and when all have
    ended, otherwise every other second."""
    whole = Source(source.bucket, source.key, source.version)
    tally = services.batch_counts.read(whole.tag)
    if tally is None:
        return
    ended = tally.succeeded + tally.failed
    body = {
        **{name: getattr(tally, name) for name in ("lines", "accepted", "rejected", "succeeded", "failed", "finished")},
        "rejected_lines": tally.rejected_lines,
        "reasons": [{"line": line, "message": text} for line, text in list(tally.reasons.items())[:_MAX_REASONS]],
    }
    urgent = tally.finished or (tally.all_taken and not ended)
    _put(services, whole, _COUNTED + tally.told, body, gap_ms=0 if urgent else _SUMMARY_MS)


def version_told(services: Services, source: Source) -> str:
    """The version that the result of an object's key is about; empty if there is none."""
    there = _look(services, source.bucket, source.result_key())
    return there.version if there is not None else ""


def _task_body(services: Services, task: Task) -> dict[str, Any]:
    status = TASK_STATUS[task.phase]
    told: dict[str, Any] = {
        "task_id": task.id,
        "kind": task.kind,
        "task_status": status,
        "task_status_msg": task.reason if status == "failed" else "",
        "videos": [],
    }
    if task.external_task_id is not None:
        told["external_task_id"] = task.external_task_id
    if task.refusal_code is not None:
        told["code"] = task.refusal_code
    if task.deleted_at is not None:
        told["deleted_at"] = task.deleted_at
    elif task.phase is Phase.SUCCEEDED:
        told["videos"] = client_view.places(services, task)
    return told


def _put(services: Services, source: Source, rank: int, body: dict[str, Any], gap_ms: int = 0) -> bool:
    """Write a result, unless one of the same version is there that tells as much, or was written `gap_ms` ago. Whether
    it was written."""
    now = services.clock.now_ms()
    text = json.dumps({"source": source.as_dict(), **body, "updated_at": now}, indent=2)
    for _ in range(_MAX_TRIES):
        key, there = _place(services, source)
        if there is not None and there.version == source.version and (there.rank >= rank or now < there.at + gap_ms):
            return False
        try:
            services.s3.put_object(
                Bucket=source.bucket,
                Key=key,
                Body=text.encode(),
                ContentType="application/json",
                Metadata={"version": source.version, "rank": str(rank), "at": str(now)},
                **({"IfNoneMatch": "*"} if there is None else {"IfMatch": there.etag}),
            )
            return True
        except ClientError as exc:
            if exc.response["ResponseMetadata"]["HTTPStatusCode"] not in _OVERTAKEN:
                raise
    raise RuntimeError(f"a result was overtaken {_MAX_TRIES} times")


def _place(services: Services, source: Source) -> tuple[str, _Written | None]:
    """The key of a result, and what lies there."""
    key = source.result_key()
    there = _look(services, source.bucket, key)
    if there is None or there.version != source.version:
        newest = _head(services, source.bucket, source.key)
        superseded = there is not None if newest is None else newest["VersionId"] != source.version
        if superseded and there is None and newest is not None:  # not by a copy of itself: object_versions.py
            ours = _head(services, source.bucket, source.key, source.version)
            superseded = ours is None or ours["ETag"] != newest["ETag"]
        if superseded:
            key = source.result_key(superseded=True)
            there = _look(services, source.bucket, key)
    return key, there


def _look(services: Services, bucket: str, key: str) -> _Written | None:
    found = _head(services, bucket, key)
    if found is None:
        return None
    told = found["Metadata"]
    return _Written(found["ETag"], told.get("version", ""), int(told.get("rank", -1)), int(told.get("at", 0)))


def _head(services: Services, bucket: str, key: str, version: str = "") -> dict[str, Any] | None:
    wanted = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
    try:
        found: dict[str, Any] = services.s3.head_object(**wanted)
    except ClientError as exc:
        if exc.response["ResponseMetadata"]["HTTPStatusCode"] not in _ABSENT:
            raise
        return None
    return found
