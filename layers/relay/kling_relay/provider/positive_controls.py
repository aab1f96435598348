"""Positive controls of the providers' look-up by reference, row `lookup#{account}#{path}`: evidence.py makes them.

A control is a look-up by our reference of a task that the provider surely has. A path or an account that is new has no
row, so that a change of either proves nothing until a control is found there.
"""

from dataclasses import dataclass

from kling_relay.dynamodb import Rows, plain

_DAY_MS = 86_400_000  # a control a day, as long as tasks come


@dataclass(frozen=True, slots=True)
class Control:
    """The last one: whose `reference` was asked for, and when one was last found and last missed (ms; 0: never)."""

    reference: str = ""
    found_at: int = 0
    missed_at: int = 0

    def due(self, now: int) -> bool:
        return now - max(self.found_at, self.missed_at) >= _DAY_MS


class Controls:
    """The controls of every account and path."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._not_before: dict[str, int] = {}  # what this process knows to be not due yet, which spares reading it

    def due(self, pk: str, now: int) -> bool:
        if now < self._not_before.get(pk, 0):
            return False
        control = self.get(pk)
        self._not_before[pk] = max(control.found_at, control.missed_at) + _DAY_MS
        return control.due(now)

    def get(self, pk: str) -> Control:
        row = self._rows.get(pk) or {}
        return Control(**{name: plain(stored) for name, stored in row.items() if name in Control.__slots__})

    def note(self, pk: str, reference: str, *, found: bool, now: int) -> None:
        """Keep what a control came to. A later one holds, whichever comes to be written first."""
        at = "found_at" if found else "missed_at"
        update, condition = f"SET #reference = :reference, #{at} = :now", f"attribute_not_exists(#{at}) OR #{at} < :now"
        self._rows.update_if(pk, update, condition, reference=reference, now=now)
        self._not_before[pk] = now + _DAY_MS
