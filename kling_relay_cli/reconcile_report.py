"""The report of `make reconcile` for people: what was found, what it means, and what to do about it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

# What was found -> what it means, and what to do. docs/runbook.md has the rest.
MEANINGS = {
    "billed_twice": (
        "the provider has a second task under our reference",
        "claim the money back, and report it as a fault",
    ),
    "no_row": (
        "the provider has a task with our reference and without a row",
        "if no other stack sent it, fetch its video",
    ),
    "not_adopted": (
        "the provider has the task, and our row has no id of it",
        "make pause if it waits to be sent again; fetch its video",
    ),
    "not_kept": ("a video that was paid for is not in your bucket", "fetch it while the provider still has it"),
    "unconfirmed": ("the provider never confirmed that it accepted the task", "search for our task id at the provider"),
    "denied": ("our row names a task that the provider does not have", "check if the key or the account was changed"),
    "wrong_task": (
        "our row names a task with another reference",
        "its video belongs to another task; report it as a fault",
    ),
    "end_differs": ("our row succeeded, and the provider's task failed", "nothing is lost; check for a refund"),
    "units_differ": ("the provider's units differ from our row", "compare with the provider's bill"),
}
UNCHECKED = {
    "not_asked": "rows were not queried: too many for one report, or no answer",
    "of_another_provider": "rows belong to another provider, or another profile of this one",
    "without_reference": "of the provider's tasks have no owner, and its list has no references",
    "unreadable_rows": "rows cannot be read",
}


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report, line by line."""
    how = "by its list of tasks" if report["lists"] else "task by task, since it has no list"
    yield f"{report['provider']}, {how}: the last {report['days']} days, at {_time(report['at'])} UTC"
    for what, (meaning, remedy) in MEANINGS.items():
        if count := report["counts"].get(what):
            yield f"\n{what} ({count}): {meaning}\n-> {remedy}"
            yield from _table([one for one in report["findings"] if one["type"] == what])
    if report["left_off"]:
        yield f"\n{report['left_off']} more findings than a report can list; choose fewer days"
    checked = {"rows": 0, "listed": 0, "not_ours": 0, "without_reference": 0, "asked": 0, **report["checked"]}
    others = checked["not_ours"] + checked["without_reference"]
    yield f"\n{checked['rows']} of our rows, {checked['asked']} questions"
    if report["lists"]:
        yield f"{checked['listed']} tasks in the provider's list, {others} of them not ours by their reference"
    yield from (f"not checked: {count} {UNCHECKED[why]}" for why, count in report["unchecked"].items())
    yield from (f"trouble: {trouble}" for trouble in report["trouble"])
    yield "no discrepancies" if report["sound"] else "discrepancies found; see docs/runbook.md#reconciliation"


def _table(found: list[dict[str, Any]]) -> Iterator[str]:
    rows = [("our task", "the provider's task", "kind", "ours", "theirs", "since", "open")]
    for one in found:
        says = one["ours"] or "-", one["theirs"] or "-", _time(one["created_at"])
        rows.append((one["task_id"], one["upstream_id"] or "-", one["kind"], *says, "yes" if one["open"] else "no"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if found else []:
        yield "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _time(ms: int | None) -> str:
    """UTC; "-" for a time that the provider does not state, or that no calendar has."""
    try:
        return "-" if ms is None else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return "-"
