"""Whether new tasks may be sent just now, and whose turn it is: the provider's gate, row `gate#{provider}`; the
operator's kill switch, row `control`, which holds for the whole stack; and whether the provider's callbacks come, row
`callbacks#{provider}`, which decides when a task that is sent is first asked after."""

from dataclasses import dataclass
from typing import Any

from kling_relay.rows import Rows, plain

_CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Pause:
    """The operator's: nothing new is sent from `since` (ms) on, until it is taken back."""

    since: int
    reason: str

    def __str__(self) -> str:
        return f"paused by the operator{f' ({self.reason})' if self.reason else ''}"


@dataclass(frozen=True, slots=True)
class Gate:
    """Nothing is sent before `not_before` (ms). It is 0 after somebody made room, for one task; a pause that ran out
    stays as it is, and means that nobody knows how much room there is.

    `cause`: "room", or "account" where only an operator can help. `failures`: troubles of the account in a row, which
    make its pause longer; 0 where only room is wanting. `crowded`: 1 while tasks wait, or have just done so: who comes
    new looks whether to join them. `turn`: the tenant whose task the provider took last. `pause`: nothing is sent as
    long as the operator has it so. `calls_back`: 1 where the last end that the provider had for us came by a callback.
    """

    not_before: int = 0
    failures: int = 0
    reason: str = ""
    pause: Pause | None = None
    cause: str = "room"
    crowded: int = 0
    turn: str = ""
    calls_back: int = 0

    def closed(self, now: int) -> str:
        """Why nothing new may be sent at `now` (ms); empty if it may."""
        if self.pause is not None:
            return str(self.pause)
        return awaited(self.cause, self.reason) if self.not_before > now else ""

    @property
    def account_trouble(self) -> bool:
        """Whether the account was in trouble at the last try, and nothing was accepted since."""
        return self.failures > 0 and self.cause == "account"


def awaited(cause: str, reason: str) -> str:
    """What a task waits for behind a gate that was closed for this cause."""
    what = "the provider's account to be put in order" if cause == "account" else "room at the provider"
    return f"{what} ({reason})"


class Gates:
    """The gate of each provider; every write is conditional, and losing to a newer one is no news."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def get(self, provider: str) -> Gate:
        """The gate, the kill switch and whether callbacks come, as they are now, in one read."""
        pk, calls = f"gate#{provider}", f"callbacks#{provider}"
        rows = self._rows.get_all([pk, _CONTROL, calls])
        both = {**rows.get(pk, {}), **rows.get(calls, {})}
        gate = {name: plain(stored) for name, stored in both.items() if name in Gate.__slots__}
        return Gate(**gate, pause=_pause(rows.get(_CONTROL)))

    def stopped(self) -> Pause | None:
        return _pause(self._rows.get(_CONTROL))

    def stop(self, now: int, reason: str) -> bool:
        """Send nothing new from now on; False where that holds already, and it goes on as it was."""
        update, condition = "SET #paused_at = :now, #reason = :reason", "attribute_not_exists(#paused_at)"
        return self._rows.update_if(_CONTROL, update, condition, now=now, reason=reason)

    def resume(self) -> bool:
        """Take the stop back; False where there was none."""
        return self._rows.update_if(_CONTROL, "REMOVE #paused_at, #reason", "attribute_exists(#paused_at)")

    def close(self, provider: str, seen: Gate, *, not_before: int, reason: str, cause: str = "room") -> None:
        """Send nothing new to `provider` before `not_before` (ms). Loses silently to a longer pause."""
        self._rows.update_if(
            f"gate#{provider}",
            "SET #not_before = :until, #failures = :failures, #reason = :reason, #cause = :cause, #crowded = :one",
            "attribute_not_exists(#pk) OR #not_before < :until",
            until=not_before,
            failures=seen.failures + 1 if cause == "account" else 0,
            reason=reason[:300],
            cause=cause,
            one=1,
        )

    def open(self, provider: str, seen: Gate, *, crowded: bool = False, not_before: int = 0) -> None:
        """The provider takes tasks again; not if the gate has been closed anew since `seen` was read."""
        self._rows.update_if(
            f"gate#{provider}",
            "SET #not_before = :until, #failures = :zero, #crowded = :crowded",
            "#not_before = :seen",
            until=not_before,
            zero=0,
            crowded=int(crowded),
            seen=seen.not_before,
        )

    def doubt(self, provider: str, now: int) -> None:
        """Tasks wait, and nobody has made room for the one that is sent next."""
        self._rows.update_if(
            f"gate#{provider}",
            "SET #not_before = :now, #crowded = :one",
            "attribute_not_exists(#pk) OR #not_before = :zero",
            now=now,
            one=1,
            zero=0,
        )

    def note_end(self, provider: str, *, called_back: bool) -> None:
        """An end was told by a callback, or found by a poll: it decides when the next task is asked after."""
        condition = "attribute_not_exists(#calls_back) OR #calls_back <> :now"
        self._rows.update_if(f"callbacks#{provider}", "SET #calls_back = :now", condition, now=int(called_back))

    def give_turn(self, provider: str, tenant: str) -> None:
        """The provider has taken a task of `tenant`: the others come first now."""
        self._rows.update_if(f"gate#{provider}", "SET #turn = :tenant", "attribute_exists(#pk)", tenant=tenant)


def _pause(row: dict[str, Any] | None) -> Pause | None:
    if row is None or "paused_at" not in row:
        return None
    return Pause(plain(row["paused_at"]), plain(row["reason"]))
