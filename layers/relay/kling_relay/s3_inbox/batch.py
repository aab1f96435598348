"""Split a list of requests, one a line (`*.tasks.jsonl`), into one queue message for each line. Each creates a task.

A message has the position of its line in the object, so that it stays small for a line of any length.
"""

import codecs
import json
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError

from kling_relay.api import request
from kling_relay.api.request import MAX_BODY_BYTES, Request
from kling_relay.errors import KlingError, bad_parameter
from kling_relay.kinds.fields import KINDS
from kling_relay.notifications import result_file
from kling_relay.observability import logger
from kling_relay.services import Services
from kling_relay.tasks.s3_source import Source

MAX_LINES = 10_000
MAX_BYTES = 64 * 1024 * 1024
_BATCH_SIZE = 10  # the maximum of SQS
_RESERVE_MS = 15_000  # with less time left, another call queues the rest
_ABSENT = {403, 404}
_DAY_SECONDS = 86_400
_LONGEST_LIFE_DAYS = 31  # of a task: its counts live as long
_GONE = "the object was deleted before it was read; upload it again"


def hand_out(services: Services, source: Source, first: int, left_ms: Callable[[], int]) -> None:
    """Queue the lines of a list, from number `first` on. A line that is queued twice creates no second task.

    `left_ms()` returns the remaining time of the Lambda call.
    """
    try:
        places = list(_line_positions(_get(services, source)))
        if not places:
            raise KlingError(1201, "file: must have one request per line (got no lines)")
        if len(places) > MAX_LINES:
            raise KlingError(1201, f"file: must have at most {MAX_LINES} lines (got {len(places)})")
    except KlingError as exc:
        result_file.reject(services, source, exc)
        return
    now = services.clock.now_ms()
    days = services.settings.task_retention_days + _LONGEST_LIFE_DAYS
    ends = now // 1000 + days * _DAY_SECONDS
    if services.batch_counts.begin(source.tag, lines=len(places), last=places[-1][0], expires_at=ends):
        result_file.summarise(services, source)
        return
    rest = [place for place in places if place[0] >= first]
    for at in range(0, len(rest), _BATCH_SIZE):
        if left_ms() < _RESERVE_MS and at:
            send(services, [{"source": source.as_dict(), "from_line": rest[at][0]}])
            return
        send(services, [_message(source, *place) for place in rest[at : at + _BATCH_SIZE]])
    services.batch_counts.handed_out(source.tag, now)
    logger.info("lines_queued", extra={"lines": len(places)})
    result_file.summarise(services, source)


def one(services: Services, source: Source, message: dict[str, Any]) -> Request:
    """Return the request of one line. Raises KlingError."""
    start, length = message["start"], message["length"]
    if length > MAX_BODY_BYTES:
        raise KlingError(1201, f"body: must have at most {MAX_BODY_BYTES} bytes (got a line of {length})")
    return request_of(_get(services, source, Range=f"bytes={start}-{start + length - 1}"), source.folder)


def request_of(raw: bytes, folder: str) -> Request:
    """Return a whole request with its `kind` inside. Raises KlingError."""
    sent = request.read(utf8(raw))
    kind = sent.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        got = "no value" if kind is None else json.dumps(kind)[:64]
        raise bad_parameter("kind", f"must be one of {', '.join(KINDS)}", got)
    return request.check(kind, sent, folder)


def _get(services: Services, source: Source, **part: str) -> bytes:
    try:
        found = services.s3.get_object(Bucket=source.bucket, Key=source.key, VersionId=source.version, **part)
    except ClientError as exc:
        if exc.response["ResponseMetadata"]["HTTPStatusCode"] not in _ABSENT:
            raise
        raise KlingError(1201, _GONE) from exc
    with found["Body"] as stream:
        if found["ContentLength"] > MAX_BYTES:
            raise KlingError(1201, f"file: must have at most {MAX_BYTES} bytes (got {found['ContentLength']})")
        data: bytes = stream.read()
    return data


def utf8(raw: bytes) -> bytes:
    """Convert JSON to UTF-8: Windows PowerShell writes UTF-16.

    Undecodable bytes are unchanged, for the error message.
    """
    codec = json.detect_encoding(raw)
    try:
        return raw if codec.startswith("utf-8") else raw.decode(codec).encode()
    except ValueError:
        return raw


def _line_positions(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield number, first byte and length of every line that is not blank, in UTF-8 or UTF-16."""
    codec = json.detect_encoding(data[:4])
    big = codec == "utf-16-be" or data.startswith(codecs.BOM_UTF16_BE)
    newline = "\n".encode("utf-16-be" if big else "utf-16-le" if codec.startswith("utf-16") else "utf-8")
    start, number = 0, 1
    while start < len(data):
        end = _find(data, newline, start)
        if data[start:end].strip(b" \t\r\n\0"):
            yield number, start, end - start
        start, number = end + len(newline), number + 1


def _find(data: bytes, newline: bytes, start: int) -> int:
    """Return the next `newline` whose bytes do not belong to two characters, or the end."""
    end = data.find(newline, start)
    while end >= 0 and (end - start) % len(newline):
        end = data.find(newline, end + 1)
    return len(data) if end < 0 else end


def _message(source: Source, line: int, start: int, length: int) -> dict[str, Any]:
    return {"source": {**source.as_dict(), "line": line}, "start": start, "length": length}


def send(services: Services, messages: list[dict[str, Any]], delay_seconds: int = 0) -> None:
    """Queue messages of at most a batch. Raises RuntimeError if not all were accepted."""
    later = {"DelaySeconds": delay_seconds} if delay_seconds else {}
    entries: list[dict[str, Any]] = [
        {"Id": str(number), "MessageBody": json.dumps(message), **later} for number, message in enumerate(messages)
    ]
    answer = services.queues.send_message_batch(QueueUrl=services.settings.need("intake_queue_url"), Entries=entries)
    if answer.get("Failed"):
        raise RuntimeError(f"{len(answer['Failed'])} of {len(entries)} messages could not be queued")
