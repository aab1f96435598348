"""Store the positive controls of the provider's look-up by reference. lifecycle/evidence.py makes them.

Row: `lookup#{account}#{path}`. A control is a look-up, by our reference, of a task that the provider certainly has. A
new path or account has no row, so a change of either proves nothing until a control is found there.
"""

from dataclasses import dataclass

from kling_relay.dynamodb import Rows, plain

_DAY_MS = 86_400_000  # a control a day, as long as tasks arrive


@dataclass(frozen=True, slots=True)
class Control:
    """The last control: its `reference`, and the times of the last hit and the last miss (ms; 0: never)."""

    reference: str = ""
    found_at: int = 0
    missed_at: int = 0

    def due(self, now: int) -> bool:
        """Return whether the last control is a day old at `now` (ms)."""
        return now - max(self.found_at, self.missed_at) >= _DAY_MS


class Controls:
    """The controls of every account and path."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._not_before: dict[str, int] = {}  # controls that are not due yet, which saves reading them

    def due(self, pk: str, now: int) -> bool:
        """Return whether a control at `pk` is due at `now` (ms)."""
        if now < self._not_before.get(pk, 0):
            return False
        control = self.get(pk)
        self._not_before[pk] = max(control.found_at, control.missed_at) + _DAY_MS
        return control.due(now)

    def get(self, pk: str) -> Control:
        """Return the last control at `pk`."""
        row = self._rows.get(pk) or {}
        return Control(**{name: plain(stored) for name, stored in row.items() if name in Control.__slots__})

    def note(self, pk: str, reference: str, *, found: bool, now: int) -> None:
        """Record the result of a control. The latest control wins, in any order of the writes."""
        at = "found_at" if found else "missed_at"
        update, condition = f"SET #reference = :reference, #{at} = :now", f"attribute_not_exists(#{at}) OR #{at} < :now"
        self._rows.update_if(pk, update, condition, reference=reference, now=now)
        self._not_before[pk] = now + _DAY_MS
