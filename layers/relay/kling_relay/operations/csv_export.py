"""The tasks of a time window as CSV, for books and spreadsheets: no prompts, no images, no addresses.

Cells that a spreadsheet would take for a formula begin with an apostrophe, and every cell is quoted, as OWASP's "CSV
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
SECONDS = 200  # then the window is too large for one export
_ANSWERED_BYTES = 200_000  # more goes through the bucket: Lambda answers at most 6 MB, escaped
_IN_MEMORY_BYTES = 4_000_000  # more is spooled to the function's temporary folder
_ADDRESS_SECONDS = 3600
_DAY_MS = 86_400_000
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
_BEHIND_SEMICOLON = re.compile(rf";(?={_FORMULA.pattern})")


def export(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """The tasks that were recorded from `since` (ISO date or time, UTC where it names no zone; else a day ago) to
    before `until` (else now), of all tenants or of `tenant`, in no order.

    Answers `rows` and either the text itself, as `csv`, or an address of it, as `url`, that is good for an hour. Raises
    ValueError for bad input and for a window that is too large. Reads the keys of all tasks, and the window's rows.
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
        text.detach()  # written out, and the file goes on without it
        small = file.tell() <= _ANSWERED_BYTES
        file.seek(0)
        if small:
            return {"rows": rows, "csv": file.read().decode()}
        return {"rows": rows, "url": _stored(services, file, now)}


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
    """Return the cell as a text for every spreadsheet. A formula behind a ";" is marked too: some programs split there
    in spite of the quotes."""
    marked = f"'{cell}" if _FORMULA.match(cell) else cell
    return _BEHIND_SEMICOLON.sub(";'", marked)


def _stored(services: Services, file: IO[bytes], now: int) -> str:
    """Puts the file below exports/ of the input bucket, which forgets it after a day; its address."""
    where = {"Bucket": services.settings.need("input_bucket"), "Key": f"exports/{_iso(now)}-{now % 1000:03}.csv"}
    services.s3.put_object(**where, Body=file, ContentType="text/csv; charset=utf-8")
    url: str = services.s3.generate_presigned_url("get_object", Params=where, ExpiresIn=_ADDRESS_SECONDS)
    return url


def _iso(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _time(event: dict[str, Any], name: str, default: int) -> int:
    text = event.get(name)
    if text is None:
        return default
    try:
        given = datetime.fromisoformat(text)
        return int((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp() * 1000)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: must be a date or time such as 2026-11-01 (got {text!r})") from None
