"""The report of `make reconcile` for people: what was found, what it means, and what to do about it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

# What was found -> what it means, and what to do. docs/runbook.md has the rest.
MEANINGS = {
    "billed_twice": (
        "the provider has a second task under our reference",
        "claim the money back; report it as a fault",
    ),
    "no_row": ("the provider has a task of ours that the table does not know", "another stack's? else fetch its video"),
    "not_adopted": (
        "the provider has it, and our row does not know",
        "make pause if it waits to be sent again; fetch its video",
    ),
    "not_kept": ("a video that was paid for is not in your bucket", "fetch it while the provider still has it"),
    "unconfirmed": ("whether the provider accepted it was never proved", "look it up at the provider by our task's id"),
    "denied": ("our row names a task that the provider does not know", "has the key or the account been changed?"),
    "wrong_task": ("our row names a task with another reference", "its video is somebody else's: report it as a fault"),
    "end_differs": ("it succeeded with us, the provider says that it failed", "nothing is lost; was it refunded?"),
    "units_differ": ("the provider states another amount than before", "compare with the provider's bill"),
}
UNCHECKED = {
    "not_asked": "rows were not asked for: more than one report can ask, or no answer came",
    "of_another_provider": "rows belong to another provider, or another profile of this one",
    "without_reference": "of the provider's tasks have no owner, and its list leaves references out",
    "unreadable_rows": "rows cannot be read",
}


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report, line by line."""
    how = "which lists its tasks" if report["lists"] else "which is asked task by task, since it has no list"
    yield f"{report['provider']}, {how}: the last {report['days']} days, at {_time(report['at'])} UTC"
    for what, (meaning, remedy) in MEANINGS.items():
        if count := report["counts"].get(what):
            yield f"\n{what} ({count}): {meaning}\n-> {remedy}"
            yield from _table([one for one in report["findings"] if one["type"] == what])
    if report["left_off"]:
        yield f"\n{report['left_off']} more were found than a report can name: ask for fewer days"
    checked = {"rows": 0, "listed": 0, "not_ours": 0, "without_reference": 0, "asked": 0, **report["checked"]}
    others = checked["not_ours"] + checked["without_reference"]
    yield f"\n{checked['rows']} of our rows, {checked['asked']} questions"
    if report["lists"]:
        yield f"{checked['listed']} tasks in the provider's list, {others} of them not ours by their reference"
    yield from (f"not checked: {count} {UNCHECKED[why]}" for why, count in report["unchecked"].items())
    yield from (f"trouble: {trouble}" for trouble in report["trouble"])
    yield "all is well" if report["sound"] else "there is something to look at: docs/runbook.md#reconciliation"


def _table(found: list[dict[str, Any]]) -> Iterator[str]:
    rows = [("our task", "the provider's task", "kind", "ours", "theirs", "since", "looked after")]
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
