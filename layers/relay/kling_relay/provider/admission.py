"""Control admission: whether new tasks may be sent to a provider account now, and which tenant is next.

Rows: `gate#{account}` for a provider account; `control`, the operator's kill switch for the whole stack;
`callbacks#{account}`, which decides when a sent task is first polled; `suspects#{account}`, the requests that the
provider has refused for no clear reason since it last accepted a task.
"""

from dataclasses import dataclass
from typing import Any

from kling_relay.dynamodb import Rows, plain

_CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Pause:
    """The operator's pause: nothing new is sent from `since` (ms) on, until it is resumed."""

    since: int
    reason: str

    def __str__(self) -> str:
        return f"paused by the operator{f' ({self.reason})' if self.reason else ''}"


@dataclass(frozen=True, slots=True)
class Admission:
    """The admission state of an account. Nothing is sent before `not_before` (ms).

    `not_before` is 0 after a slot was freed, for one task. An expired pause keeps its value, which means that the
    number of free slots is unknown.

    `cause`: "room"; "maintenance" of the provider; "account" or "address" if only an operator can help. `failures`:
    consecutive closings for another cause than room, which lengthen the pause. `suspects`: fingerprints of requests,
    separated by blanks. `crowded`: 1 while tasks wait, or have just done so: a new task then checks whether to join
    them. `turn`: the tenant whose task the provider accepted last. `pause`: set while the operator has stopped
    submissions. `calls_back`: 1 if a callback reported the account's last end.
    """

    not_before: int = 0
    failures: int = 0
    reason: str = ""
    pause: Pause | None = None
    cause: str = "room"
    crowded: int = 0
    turn: str = ""
    calls_back: int = 0
    suspects: str = ""

    def closed(self, now: int) -> str:
        """Return the reason why nothing new may be sent at `now` (ms); empty if it may."""
        if self.pause is not None:
            return str(self.pause)
        return awaited(self.cause, self.reason) if self.not_before > now else ""

    @property
    def troubled(self) -> bool:
        """Return whether the last attempt failed for another cause than room, and nothing was accepted since."""
        return self.failures > 0 and self.cause != "room"

    @property
    def account_trouble(self) -> bool:
        """Return whether an operator must end the trouble."""
        return self.troubled and self.cause != "maintenance"

    def suspected(self, fingerprint: str) -> tuple[str, ...]:
        """Return the suspects, with one more."""
        return tuple(dict.fromkeys([*self.suspects.split(), fingerprint]))


_AWAITED = {
    "account": "the provider's account to be put in order",
    "address": "the provider's address to be put in order",
    "maintenance": "the end of the provider's maintenance",
    "room": "room at the provider",
}


def awaited(cause: str, reason: str) -> str:
    """Describe the event that a task waits for after admission was closed for this cause."""
    return f"{_AWAITED[cause]} ({reason})"


class AdmissionStore:
    """The admission state of each account. Every write is conditional and yields to a newer one."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def get(self, account: str) -> Admission:
        """Return the current admission state, kill switch and callback state, in one read."""
        pks = [f"{kind}#{account}" for kind in ("gate", "callbacks", "suspects")]
        rows = self._rows.get_all([*pks, _CONTROL])
        every = {name: stored for pk in pks for name, stored in rows.get(pk, {}).items()}
        admission = {name: plain(stored) for name, stored in every.items() if name in Admission.__slots__}
        return Admission(**admission, pause=_pause(rows.get(_CONTROL)))

    def stopped(self) -> Pause | None:
        """Return the operator's pause, None without one."""
        return _pause(self._rows.get(_CONTROL))

    def stop(self, now: int, reason: str) -> bool:
        """Send nothing new from now on. Return False if submissions are stopped already; the earlier stop stays."""
        update, condition = "SET #paused_at = :now, #reason = :reason", "attribute_not_exists(#paused_at)"
        return self._rows.update_if(_CONTROL, update, condition, now=now, reason=reason)

    def resume(self) -> bool:
        """End the stop. Return False if there was none."""
        return self._rows.update_if(_CONTROL, "REMOVE #paused_at, #reason", "attribute_exists(#paused_at)")

    def close(self, account: str, seen: Admission, *, not_before: int, reason: str, cause: str = "room") -> None:
        """Send nothing new to `account` before `not_before` (ms). A longer pause is kept."""
        self._rows.update_if(
            f"gate#{account}",
            "SET #not_before = :until, #failures = :failures, #reason = :reason, #cause = :cause, #crowded = :one",
            "attribute_not_exists(#pk) OR #not_before < :until",
            until=not_before,
            failures=0 if cause == "room" else 1 + (seen.failures if seen.cause == cause else 0),
            reason=reason[:300],
            cause=cause,
            one=1,
        )

    def open(self, account: str, seen: Admission, *, crowded: bool = False, not_before: int = 0) -> None:
        """Open admission again. Keeps a closing that is newer than `seen`."""
        self._rows.update_if(
            f"gate#{account}",
            "SET #not_before = :until, #failures = :zero, #crowded = :crowded",
            "#not_before = :seen",
            until=not_before,
            zero=0,
            crowded=int(crowded),
            seen=seen.not_before,
        )

    def suspect(self, account: str, seen: Admission, suspects: tuple[str, ...]) -> None:
        """Store the requests that were refused for no clear reason; `()` clears them.

        A concurrent write wins silently: a count that is one too low closes admission one refusal later.
        """
        text = " ".join(suspects)
        if text != seen.suspects:
            condition = "attribute_not_exists(#pk) OR #suspects = :seen"
            pk = f"suspects#{account}"
            self._rows.update_if(pk, "SET #suspects = :now", condition, now=text, seen=seen.suspects)

    def mark_unknown(self, account: str, now: int) -> None:
        """Record that tasks wait, and that no slot was freed for the next one."""
        self._rows.update_if(
            f"gate#{account}",
            "SET #not_before = :now, #crowded = :one",
            "attribute_not_exists(#pk) OR #not_before = :zero",
            now=now,
            one=1,
            zero=0,
        )

    def record_completion(self, account: str, *, called_back: bool) -> None:
        """Record whether a callback reported an end, or a poll found it.

        It decides when the next task is first polled.
        """
        condition = "attribute_not_exists(#calls_back) OR #calls_back <> :now"
        self._rows.update_if(f"callbacks#{account}", "SET #calls_back = :now", condition, now=int(called_back))

    def record_turn(self, account: str, tenant: str) -> None:
        """Record that the provider accepted a task of `tenant`: other tenants are next."""
        self._rows.update_if(f"gate#{account}", "SET #turn = :tenant", "attribute_exists(#pk)", tenant=tenant)


def _pause(row: dict[str, Any] | None) -> Pause | None:
    if row is None or "paused_at" not in row:
        return None
    return Pause(plain(row["paused_at"]), plain(row["reason"]))
