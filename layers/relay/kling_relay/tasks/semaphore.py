"""Limit the concurrency of one kind of work over all functions of the stack, with counted permits.

A row has one attribute for each taken permit, `permit_1` and so on: the time (ms) at which it expires. An expired
permit is free, so a function that dies does not hold one for long.
"""

from dataclasses import dataclass

from kling_relay.dynamodb import ConflictError, Rows, new_token, plain


@dataclass(frozen=True, slots=True)
class Permit:
    """A taken permit of row `pk`."""

    pk: str
    name: str
    until: int  # ms


class Permits:
    """The permits of each named row; every write is conditional."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def take(self, pk: str, maximum: int, now: int, until: int) -> Permit | None:
        """Take one of the `maximum` permits of row `pk`, until `until` (ms). None if all are taken at `now` (ms)."""
        row = self._rows.get(pk) or {}
        for name in [f"permit_{number}" for number in range(1, maximum + 1)]:
            if name in row and plain(row[name]) > now:
                continue
            update, free = f"SET #{name} = :until, #write = :write", f"attribute_not_exists(#{name}) OR #{name} <= :now"
            values = {"until": until, "now": now, "write": new_token()}
            try:
                self._rows.update(self._rows.expression(pk, update, free, **values))
            except ConflictError:
                continue
            return Permit(pk, name, until)
        return None

    def release(self, permit: Permit) -> None:
        """Release `permit`. An expired one may have another owner by now, and stays."""
        self._rows.update_if(permit.pk, f"REMOVE #{permit.name}", f"#{permit.name} = :until", until=permit.until)
