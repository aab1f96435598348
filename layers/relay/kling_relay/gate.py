"""The provider's gate: whether it takes new tasks just now. One row `gate#{provider}`."""

from dataclasses import dataclass

from kling_relay.rows import Rows, plain


@dataclass(frozen=True, slots=True)
class Gate:
    """Nothing new is sent before `not_before` (ms). `failures` in a row make the pause longer."""

    not_before: int = 0
    failures: int = 0
    reason: str = ""


class Gates:
    """The gate of each provider; every write is conditional, and losing to a newer one is no news."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def get(self, provider: str) -> Gate:
        item = self._rows.get(f"gate#{provider}")
        return Gate() if item is None else Gate(**{k: plain(v) for k, v in item.items() if k in Gate.__slots__})

    def close(self, provider: str, seen: Gate, *, not_before: int, reason: str) -> None:
        """Send nothing new to `provider` before `not_before` (ms). Loses silently to a longer pause."""
        self._rows.update_if(
            f"gate#{provider}",
            "SET #not_before = :until, #failures = :failures, #reason = :reason",
            "attribute_not_exists(#pk) OR #not_before < :until",
            until=not_before,
            failures=seen.failures + 1,
            reason=reason[:300],
        )

    def open(self, provider: str, seen: Gate) -> None:
        """The provider has room again; not if the gate has been closed anew since `seen` was read."""
        self._rows.update_if(
            f"gate#{provider}",
            "SET #not_before = :zero, #failures = :zero",
            "#not_before = :seen",
            zero=0,
            seen=seen.not_before,
        )
