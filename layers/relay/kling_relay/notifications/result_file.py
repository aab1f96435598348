"""Write the result of every uploaded object: `results/{key}.json` in the input bucket.

A result never goes back to an earlier state. Each result object carries the version that it is about, and a rank for
its progress. A writer with an older state (late, or one of several) leaves it unchanged, and S3 accepts only one of two
concurrent writes. The key is that of the newest version: the result of an older one is `results/{key}.{version}.json`.
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
_SUMMARY_MS = 2_000  # minimum time between two summaries, except when all lines are taken and when all have ended
_MAX_REASONS = 100
_MAX_TRIES = 20
_ABSENT = {403, 404}  # denied (without the right to list), or missing
_OVERTAKEN = {404, 409, 412}  # removed, being written, or written by another writer since it was read


@dataclass(frozen=True, slots=True)
class _Written:
    """The stored result. `at`: when it was written (ms)."""

    etag: str
    version: str
    rank: int
    at: int


def write(services: Services, task: Task) -> None:
    """Write the state of the task of an uploaded object. Repeatable, in any order."""
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
    """Write the reason why an upload, or a line of one, created no task."""
    logger.info("upload_rejected", extra={"object": source.tag, "line": source.line, "code": error.code})
    body = {"task_id": None, "task_status": "failed", "task_status_msg": error.message, "code": error.code}
    if _put(services, source, _REJECTED, body):
        services.measure({Metric.FILES_REJECTED: 1})
    if source.line:
        services.batch_counts.tell(source.tag, source.line, "rejected", error.message)
        summarise(services, source)


def note(services: Services, source: Source, message: str) -> None:
    """Write a message about an upload that creates no task, or none yet."""
    _put(services, source, _NOTED, {"task_id": None, "task_status": None, "task_status_msg": message})


def summarise(services: Services, source: Source) -> None:
    """Update the summary of a list of requests.

    At once if all lines are taken or all have ended, else every two seconds.
    """
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
    """Return the version that the result of an object's key is about; empty if there is none."""
    stored = _read_stored(services, source.bucket, source.result_key())
    return stored.version if stored is not None else ""


def _task_body(services: Services, task: Task) -> dict[str, Any]:
    status = TASK_STATUS[task.phase]
    body: dict[str, Any] = {
        "task_id": task.id,
        "kind": task.kind,
        "task_status": status,
        "task_status_msg": task.reason if status == "failed" else "",
        "videos": [],
    }
    if task.external_task_id is not None:
        body["external_task_id"] = task.external_task_id
    if task.refusal_code is not None:
        body["code"] = task.refusal_code
    if task.deleted_at is not None:
        body["deleted_at"] = task.deleted_at
    elif task.phase is Phase.SUCCEEDED:
        body["videos"] = client_view.places(services, task)
    return body


def _put(services: Services, source: Source, rank: int, body: dict[str, Any], gap_ms: int = 0) -> bool:
    """Write a result. Return whether it was written.

    It is not written if the stored result of the same version has at least its rank, or was written within `gap_ms`.
    """
    now = services.clock.now_ms()
    text = json.dumps({"source": source.as_dict(), **body, "updated_at": now}, indent=2)
    for _ in range(_MAX_TRIES):
        key, stored = _find_target(services, source)
        if (
            stored is not None
            and stored.version == source.version
            and (stored.rank >= rank or now < stored.at + gap_ms)
        ):
            return False
        try:
            services.s3.put_object(
                Bucket=source.bucket,
                Key=key,
                Body=text.encode(),
                ContentType="application/json",
                Metadata={"version": source.version, "rank": str(rank), "at": str(now)},
                **({"IfNoneMatch": "*"} if stored is None else {"IfMatch": stored.etag}),
            )
            return True
        except ClientError as exc:
            if exc.response["ResponseMetadata"]["HTTPStatusCode"] not in _OVERTAKEN:
                raise
    raise RuntimeError(f"a result was overtaken {_MAX_TRIES} times")


def _find_target(services: Services, source: Source) -> tuple[str, _Written | None]:
    """Return the key of a result, and the stored result there."""
    key = source.result_key()
    stored = _read_stored(services, source.bucket, key)
    if stored is None or stored.version != source.version:
        newest = _head(services, source.bucket, source.key)
        superseded = stored is not None if newest is None else newest["VersionId"] != source.version
        if superseded and stored is None and newest is not None:  # not by a copy of itself: object_versions.py
            ours = _head(services, source.bucket, source.key, source.version)
            superseded = ours is None or ours["ETag"] != newest["ETag"]
        if superseded:
            key = source.result_key(superseded=True)
            stored = _read_stored(services, source.bucket, key)
    return key, stored


def _read_stored(services: Services, bucket: str, key: str) -> _Written | None:
    head = _head(services, bucket, key)
    if head is None:
        return None
    metadata = head["Metadata"]
    return _Written(
        head["ETag"], metadata.get("version", ""), int(metadata.get("rank", -1)), int(metadata.get("at", 0))
    )


def _head(services: Services, bucket: str, key: str, version: str = "") -> dict[str, Any] | None:
    target = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
    try:
        answer: dict[str, Any] = services.s3.head_object(**target)
    except ClientError as exc:
        if exc.response["ResponseMetadata"]["HTTPStatusCode"] not in _ABSENT:
            raise
        return None
    return answer
