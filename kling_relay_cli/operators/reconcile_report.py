"""The report of `reconcile` as text: each finding, its meaning and its remedy."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

# Type of finding -> its meaning, and its remedy. docs/runbook.md explains each of them.
MEANINGS = {
    "billed_twice": (
        "the provider has a second task under our reference",
        "ask the provider for a refund, and report a bug",
    ),
    "no_row": (
        "the provider has a task with our reference, and the table has no row",
        "check whether another stack sent it; otherwise fetch its video",
    ),
    "not_adopted": (
        "the provider has the task, and our row has no provider id",
        "if it waits to be sent again, pause submissions; fetch its video",
    ),
    "not_kept": ("a paid video is not in the video bucket", "fetch it before the provider deletes it"),
    "unconfirmed": (
        "the outcome of the paid request was never confirmed",
        "search for our task id at the provider",
    ),
    "denied": (
        "our row names a task that the provider does not find",
        "check whether the key or the account was changed",
    ),
    "wrong_task": (
        "our row names a task with another reference",
        "its video belongs to another task: report a bug",
    ),
    "end_differs": (
        "the task succeeded here, and failed at the provider",
        "no video is lost; check whether it was refunded",
    ),
    "units_differ": ("the provider reports other units than before", "compare with the provider's bill"),
}
UNCHECKED = {
    "not_asked": "rows: the limit of queries was reached, or the provider did not answer",
    "of_another_provider": "rows: sent to another provider, or to another profile of this one",
    "without_reference": "tasks of the provider: no row names them, and the provider's list omits references",
    "unreadable_rows": "rows: not readable",
}


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the report, line by line."""
    method = "compared with its list of tasks" if report["lists"] else "queried task by task (it has no list)"
    yield f"{report['provider']}, {method}: the last {report['days']} days, at {_time(report['at'])} UTC"
    for kind, (meaning, remedy) in MEANINGS.items():
        if count := report["counts"].get(kind):
            yield f"\n{kind} ({count}): {meaning}\n-> {remedy}"
            yield from _table([one for one in report["findings"] if one["type"] == kind])
    if report["left_off"]:
        yield f"\n{report['left_off']} more findings exceed the size of a report: run it for fewer days"
    checked = {"rows": 0, "listed": 0, "not_ours": 0, "without_reference": 0, "asked": 0, **report["checked"]}
    others = checked["not_ours"] + checked["without_reference"]
    yield f"\nchecked: {checked['rows']} rows, {checked['asked']} queries"
    if report["lists"]:
        yield f"listed by the provider: {checked['listed']} tasks, {others} of them without our reference"
    yield from (f"not checked: {count} {UNCHECKED[reason]}" for reason, count in report["unchecked"].items())
    yield from (f"error: {error}" for error in report["trouble"])
    yield "no findings" if report["sound"] else "action needed: docs/runbook.md#reconciliation"


def _table(found: list[dict[str, Any]]) -> Iterator[str]:
    rows = [("our task", "the provider's task", "kind", "our status", "its status", "created", "open")]
    for one in found:
        values = one["ours"] or "-", one["theirs"] or "-", _time(one["created_at"])
        rows.append((one["task_id"], one["upstream_id"] or "-", one["kind"], *values, "yes" if one["open"] else "no"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if found else []:
        yield "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _time(ms: int | None) -> str:
    """Format as UTC; "-" if the provider states no time, or one outside the calendar."""
    try:
        return "-" if ms is None else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return "-"
