"""Enforce a tenant's monthly spend cap: rows `spend#{tenant}#{month}` and `cap#{tenant}`.

Amounts are whole thousandths of Kling's units. A month's `committed` is the sum over its tasks: each counts with its
charge or, until that is known, with its reservation. Only tasks that were recorded under a cap count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any

from kling_relay.dynamodb import Rows, plain, value
from kling_relay.errors import KlingError
from kling_relay.tasks.task import Phase, Task

MAX_UNITS = 1_000_000  # of a task or of a cap; a larger figure is a mistake


@dataclass(frozen=True, slots=True)
class Budget:
    """A tenant's month under a cap. `committed` is the value that was read; the condition of `raised` decides."""

    month: str
    cap: int
    committed: int

    def check(self, estimate: int) -> None:
        """Raise KlingError, as Kling does for an account without credit, if `estimate` exceeds the remaining cap."""
        if self.committed > self.cap - estimate:
            raise self.refusal(estimate)

    def refusal(self, estimate: int) -> KlingError:
        """Build the error (code 1102) for a task that does not fit under the cap."""
        allowed = f"{in_units(self.cap)} units are allowed in {self.month} (UTC)"
        taken = f"{in_units(self.committed)} are committed"
        return KlingError(1102, f"monthly cap: {allowed}, {taken}, this task needs up to {in_units(estimate)}")


class Spending:
    """The caps and commitments of tenants. `default_cap` applies to tenants without their own; 0 means no cap.

    Reads are consistent and nothing is cached: a new cap takes effect at once.
    """

    def __init__(self, rows: Rows, default_cap: int = 0) -> None:
        self._rows = rows
        self._default_cap = default_cap

    def cap(self, tenant: str) -> tuple[int, bool]:
        """Return the tenant's cap (0: none), and whether it is the tenant's own."""
        own = (self._rows.get(f"cap#{tenant}") or {}).get("cap")
        return (self._default_cap, False) if own is None else (plain(own), True)

    def set_cap(self, tenant: str, cap: int | None) -> None:
        """Set the tenant's own cap (0: none, regardless of the default), or return to the default (None)."""
        if cap is None:
            self._rows.update_if(f"cap#{tenant}", "REMOVE #cap", "attribute_exists(#cap)")
        else:
            self._rows.update_if(
                f"cap#{tenant}", "SET #cap = :cap", "attribute_not_exists(#cap) OR #cap <> :cap", cap=cap
            )

    def committed(self, tenant: str, month: str) -> int:
        """Return the amount that a tenant's tasks have committed in a month."""
        row = self._rows.get(_pk(tenant, month)) or {}
        return int(plain(row["committed"])) if "committed" in row else 0

    def budget(self, tenant: str, now: int) -> Budget | None:
        """Return the tenant's month at `now` (ms), or None if there is no cap."""
        cap, _ = self.cap(tenant)
        month = month_of(now)
        return Budget(month, cap, self.committed(tenant, month)) if cap else None


def raised(rows: Rows, task: Task, cap: int, expires: Mapping[str, Any]) -> dict[str, Any]:
    """Build the part of a recording transaction that commits the task's reservation, if it fits under `cap`.

    DynamoDB's conditions cannot add: the committed figure is compared with the rest of the cap.
    """
    room = cap - (task.reserved or 0)
    condition = "#committed <= :room" + (" OR attribute_not_exists(#pk)" if room >= 0 else "")
    update = "SET #expires_at = :expires ADD #committed :reserved"
    part = rows.expression(_pk(task.tenant, task.spend_month), update, condition, room=room, reserved=task.reserved)
    part["ExpressionAttributeValues"][":expires"] = expires["expires_at"]
    return {"Update": part}


def corrected(rows: Rows, task: Task, settled: int) -> dict[str, Any]:
    """Build the part of a moving transaction that replaces the task's commitment by `settled`.

    It has no condition: the condition on the task's row ensures that it happens once.
    """
    return {
        "Update": {
            "TableName": rows.name,
            "Key": {"pk": value(_pk(task.tenant, task.spend_month))},
            "UpdateExpression": "ADD #committed :delta",
            "ExpressionAttributeNames": {"#committed": "committed"},
            "ExpressionAttributeValues": {":delta": value(settled - task.committed)},
        }
    }


def settlement(task: Task, to: Phase | None, changes: Mapping[str, Any]) -> int | None:
    """Return the charge that a move settles, or None if it settles nothing. Pure.

    Either the provider states its charge, or the task fails, certainly never reached the provider, and costs nothing. A
    task in doubt keeps its reservation, and so does a render without a stated price.
    """
    if task.reserved is None:
        return None
    settled = milli_units(changes.get("units"))
    if settled is None and to is Phase.FAILED and task.upstream_id is None and task.unsure_since is None:
        settled = 0
    return None if settled == task.settled else settled


def once(task: Task, changes: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the condition and its values that a move with units or a charge adds. Pure.

    Units are written once. A writer of a charge must have read the previous charge.
    """
    untold = changes.get("units") is not None and task.units is None
    condition = " AND attribute_not_exists(#units)" if untold else ""
    if "settled" not in changes:
        return condition, {}
    if task.settled is None:
        return f"{condition} AND attribute_not_exists(#settled)", {}
    return f"{condition} AND #settled = :known", {"known": task.settled}


def milli_units(text: str | None) -> int | None:
    """Convert an amount as providers write it ("3.5") to thousandths of a unit, rounded up; None if it is none."""
    try:
        units = Decimal(text or "")
    except InvalidOperation:
        return None
    if not units.is_finite() or not 0 <= units <= MAX_UNITS:
        return None
    return int((units * 1000).to_integral_value(ROUND_CEILING))


def in_units(milli: int) -> str:
    """Format thousandths for people: "1.5"."""
    return f"{Decimal(milli) / 1000:f}"


def month_of(now: int) -> str:
    """Return the month (UTC) of a time in ms: "2026-11"."""
    return f"{datetime.fromtimestamp(now / 1000, UTC):%Y-%m}"


def _pk(tenant: str, month: str | None) -> str:
    return f"spend#{tenant}#{month}"
