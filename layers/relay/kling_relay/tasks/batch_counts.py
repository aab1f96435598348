"""Count the outcomes of a list's lines: row `lines#{tag}` and, for every 500 lines, `lines#{tag}#{n}`.

Each of the latter has sets of line numbers. Adding a number to a set twice changes nothing, and needs neither a
condition nor an order. So the counts are right, no matter how often and how concurrently a line is reported.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kling_relay.dynamodb import Rows, plain, value

LineOutcome = Literal["accepted", "rejected", "succeeded", "failed"]
_WORDS = ("accepted", "rejected", "succeeded", "failed")
_LINES_A_ROW = 500
_MAX_REASONS_A_ROW = 20
_REASON_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts of a list. `lines`: the number of non-empty lines.

    A rejected line (its number is in `rejected_lines`) created no task; `reasons` has the reasons of some of them.
    `told` grows with every reported outcome.
    """

    lines: int
    accepted: int
    rejected: int
    succeeded: int
    failed: int
    told: int
    rejected_lines: list[int]
    reasons: dict[int, str]

    @property
    def all_taken(self) -> bool:
        return self.accepted + self.rejected >= self.lines

    @property
    def finished(self) -> bool:
        return self.rejected + self.succeeded + self.failed >= self.lines


class BatchCountStore:
    """The counts of all lists in the one table."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def begin(self, tag: str, *, lines: int, last: int, expires_at: int) -> bool:
        """Create the rows of a list of `lines` lines; `last` is the number of the last one.

        Return whether all its lines were handed out before. `expires_at`: Unix seconds.
        """
        for pk in _rows_of(tag, last):
            self._rows.client.update_item(
                TableName=self._rows.name,
                Key={"pk": value(pk)},
                UpdateExpression="SET #lines = :lines, #last = :last, expires_at = :expires",
                ExpressionAttributeNames={"#lines": "lines", "#last": "last"},
                ExpressionAttributeValues={
                    ":lines": value(lines),
                    ":last": value(last),
                    ":expires": value(expires_at),
                },
            )
        return "handed_out" in (self._rows.get(f"lines#{tag}") or {})

    def handed_out(self, tag: str, now: int) -> None:
        """Record that all lines of a list were queued at `now` (ms)."""
        self._rows.update_if(f"lines#{tag}", "SET #handed_out = :now", "attribute_exists(#pk)", now=now)

    def tell(self, tag: str, line: int, word: LineOutcome, reason: str = "") -> None:
        """Count a line's outcome. Repeated reports count once. Its `reason` is stored while there is space."""
        row = _row_of(tag, line)
        if reason:  # before the number: a reader that sees a rejected line sees its reason too
            self._rows.update_if(
                row,
                f"SET #reason_{line} = :reason",
                "attribute_not_exists(#rejected) OR size(#rejected) < :maximum",
                reason=reason[:_REASON_CHARACTERS],
                maximum=_MAX_REASONS_A_ROW,
            )
        self._rows.client.update_item(
            TableName=self._rows.name,
            Key={"pk": value(row)},
            UpdateExpression="ADD #word :line",
            ExpressionAttributeNames={"#word": word},
            ExpressionAttributeValues={":line": {"NS": [str(line)]}},
        )

    def read(self, tag: str) -> Tally | None:
        """Return the counts of a list, None if it has no rows."""
        head = self._rows.get(f"lines#{tag}")
        if head is None:
            return None
        rows = self._rows.get_all(list(_rows_of(tag, plain(head["last"])))[1:]).values()
        sets = {word: {int(n) for row in rows for n in row.get(word, {}).get("NS", ())} for word in _WORDS}
        reasons = {
            int(name.removeprefix("reason_")): plain(text)
            for row in rows
            for name, text in row.items()
            if name.startswith("reason_")
        }
        rejected, failed = sets["rejected"] - sets["accepted"], sets["failed"] - sets["succeeded"]
        return Tally(
            lines=plain(head["lines"]),
            accepted=len(sets["accepted"]),
            rejected=len(rejected),
            succeeded=len(sets["succeeded"]),
            failed=len(failed),
            told=sum(map(len, sets.values())),
            rejected_lines=sorted(rejected),
            reasons={line: reasons[line] for line in sorted(rejected & reasons.keys())},
        )


def _row_of(tag: str, line: int) -> str:
    return f"lines#{tag}#{(line - 1) // _LINES_A_ROW}"


def _rows_of(tag: str, last: int) -> Iterator[str]:
    yield f"lines#{tag}"
    for line in range(1, last + 1, _LINES_A_ROW):
        yield _row_of(tag, line)
