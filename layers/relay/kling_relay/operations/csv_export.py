"""Export the tasks of a time window as CSV, for accounting and spreadsheets: no prompts, no images, no URLs.

A cell that a spreadsheet would read as a formula begins with an apostrophe, and every cell is quoted, as OWASP's "CSV
Injection" advises: with ";" as the list separator an unquoted ";" begins another cell.
"""

import csv
import io
import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO, Any

from kling_relay.kinds.fields import default_mode
from kling_relay.operations.failure_advice import kind_of
from kling_relay.operations.reconcile_rows import TaskRows
from kling_relay.services import Services
from kling_relay.tasks.spend_cap import in_units
from kling_relay.tasks.task import TASK_STATUS, Task

HEADS = (
    *("task_id", "tenant", "kind", "external_task_id", "task_status", "phase", "created_at", "updated_at"),
    *("model_name", "mode", "duration", "units", "committed_units", "failure", "reason"),
    *("videos", "bytes", "source"),
)
SECONDS = 200  # a window that takes longer is too large for one export
_ANSWERED_BYTES = 200_000  # a larger export goes through the bucket: Lambda returns at most 6 MB, escaped
_IN_MEMORY_BYTES = 4_000_000  # more is spooled to the function's temporary folder
_ADDRESS_SECONDS = 3600
_DAY_MS = 86_400_000
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
_BEHIND_SEMICOLON = re.compile(rf";(?={_FORMULA.pattern})")


def export(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """Export the tasks that were recorded in a window, of all tenants or of `tenant`, unordered.

    The window starts at `since` (ISO date or time, UTC if it names no zone; default: a day ago) and ends before `until`
    (default: now). Returns `rows` and either the text itself, as `csv`, or a presigned URL, as `url`, that is valid for
    an hour. Raises ValueError for bad input and for a window that is too large. It reads the keys of all tasks, and the
    window's rows.
    """
    now = services.clock.now_ms()
    since, until = _time(event, "since", now - _DAY_MS), _time(event, "until", now + 1)
    if since >= until:
        raise ValueError(f"until: must be after since (got {event.get('since')!r} to {event.get('until')!r})")
    tenant = event.get("tenant")
    if tenant is not None and not isinstance(tenant, str):
        raise ValueError(f"tenant: must be a string (got {tenant!r})")
    rows = 0
    with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        lines = csv.writer(text, quoting=csv.QUOTE_ALL)
        lines.writerow(HEADS)
        for task in _tasks(services, since, until, now + SECONDS * 1000):
            if tenant in (None, task.tenant):
                lines.writerow([_safe(cell) for cell in _cells(task)])
                rows += 1
        text.detach()  # flush the text; the file stays open without it
        small = file.tell() <= _ANSWERED_BYTES
        file.seek(0)
        if small:
            return {"rows": rows, "csv": file.read().decode()}
        return {"rows": rows, "url": _store(services, file, now)}


def _tasks(services: Services, since: int, until: int, ends_at: int) -> Iterator[Task]:
    for ids in TaskRows(services.table.rows).created_since(since):
        if services.clock.now_ms() > ends_at:
            raise ValueError(f"since: the window has more tasks than can be read in {SECONDS} s; choose a shorter one")
        yield from (task for task in services.table.read(ids) if task.created_at < until)


def _cells(task: Task) -> Iterator[str]:
    request = task.request
    yield from (task.id, task.tenant, task.kind, task.external_task_id or "", TASK_STATUS[task.phase], task.phase)
    yield from (_iso(task.created_at), _iso(task.updated_at))
    yield from (
        request.get("model_name", ""),
        request.get("mode", default_mode(task.kind)),
        request.get("duration", "5"),
    )
    yield from (task.units or "", "" if task.reserved is None else in_units(task.committed))
    yield from (kind_of(task) or "", task.reason if TASK_STATUS[task.phase] == "failed" else "")
    yield " ".join(video["key"] for video in task.videos)
    yield str(sum(video["size"] for video in task.videos) or "")
    yield "" if task.source is None else str(task.source["key"])


def _safe(cell: str) -> str:
    """Return the cell as a text for every spreadsheet.

    A formula after a ";" is marked too: some programs split there in spite of the quotes.
    """
    marked = f"'{cell}" if _FORMULA.match(cell) else cell
    return _BEHIND_SEMICOLON.sub(";'", marked)


def _store(services: Services, file: IO[bytes], now: int) -> str:
    """Store the file below exports/ of the input bucket, which deletes it after a day. Return its presigned URL."""
    target = {"Bucket": services.settings.need("input_bucket"), "Key": f"exports/{_iso(now)}-{now % 1000:03}.csv"}
    services.s3.put_object(**target, Body=file, ContentType="text/csv; charset=utf-8")
    url: str = services.s3.generate_presigned_url("get_object", Params=target, ExpiresIn=_ADDRESS_SECONDS)
    return url


def _iso(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _time(event: dict[str, Any], name: str, default: int) -> int:
    text = event.get(name)
    if text is None:
        return default
    try:
        parsed = datetime.fromisoformat(text)
        return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: must be a date or time such as 2026-11-01 (got {text!r})") from None
