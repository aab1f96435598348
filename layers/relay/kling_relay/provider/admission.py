"""Whether new tasks may be sent just now, and whose turn it is.

Rows: `gate#{account}` of a provider account; `control`, the operator's kill switch, which holds for the whole stack;
`callbacks#{account}`, which decides when a task that is sent is first asked after; `suspects#{account}`, what the
provider has refused for no clear reason since it last took a task.
"""

from dataclasses import dataclass
from typing import Any

from kling_relay.dynamodb import Rows, plain

_CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Pause:
    """The operator's: nothing new is sent from `since` (ms) on, until it is taken back."""

    since: int
    reason: str

    def __str__(self) -> str:
        return f"paused by the operator{f' ({self.reason})' if self.reason else ''}"


@dataclass(frozen=True, slots=True)
class Admission:
    """Nothing is sent before `not_before` (ms). It is 0 after somebody made room, for one task; a pause that ran out
    stays as it is, and means that nobody knows how much room there is.

    `cause`: "room"; "maintenance" of the provider; "account" or "address" if only an operator can help. `failures`:
    closings in a row for another cause than room, which make the pause longer. `suspects`: fingerprints of requests,
    separated by blanks. `crowded`: 1 while tasks wait, or have just done so: who comes new looks whether to join them.
    `turn`: the tenant whose task the provider took last. `pause`: nothing is sent as long as the operator has it so.
    `calls_back`: 1 where the last end that the provider had for us came by a callback.
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
        """Why nothing new may be sent at `now` (ms); empty if it may."""
        if self.pause is not None:
            return str(self.pause)
        return awaited(self.cause, self.reason) if self.not_before > now else ""

    @property
    def troubled(self) -> bool:
        """Whether something else than room was wanting at the last try, and nothing was accepted since."""
        return self.failures > 0 and self.cause != "room"

    @property
    def account_trouble(self) -> bool:
        """Whether it is trouble that an operator has to end."""
        return self.troubled and self.cause != "maintenance"

    def suspected(self, fingerprint: str) -> tuple[str, ...]:
        """The suspects, with one more."""
        return tuple(dict.fromkeys([*self.suspects.split(), fingerprint]))


_AWAITED = {
    "account": "the provider's account to be put in order",
    "address": "the provider's address to be put in order",
    "maintenance": "the end of the provider's maintenance",
    "room": "room at the provider",
}


def awaited(cause: str, reason: str) -> str:
    """What a task waits for behind a gate that was closed for this cause."""
    return f"{_AWAITED[cause]} ({reason})"


class AdmissionStore:
    """The gate of each account; every write is conditional, and losing to a newer one is no news."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def get(self, account: str) -> Admission:
        """The gate, the kill switch and whether callbacks come, as they are now, in one read."""
        pks = [f"{kind}#{account}" for kind in ("gate", "callbacks", "suspects")]
        rows = self._rows.get_all([*pks, _CONTROL])
        every = {name: stored for pk in pks for name, stored in rows.get(pk, {}).items()}
        admission = {name: plain(stored) for name, stored in every.items() if name in Admission.__slots__}
        return Admission(**admission, pause=_pause(rows.get(_CONTROL)))

    def stopped(self) -> Pause | None:
        return _pause(self._rows.get(_CONTROL))

    def stop(self, now: int, reason: str) -> bool:
        """Send nothing new from now on; False where that holds already, and it goes on as it was."""
        update, condition = "SET #paused_at = :now, #reason = :reason", "attribute_not_exists(#paused_at)"
        return self._rows.update_if(_CONTROL, update, condition, now=now, reason=reason)

    def resume(self) -> bool:
        """Take the stop back; False where there was none."""
        return self._rows.update_if(_CONTROL, "REMOVE #paused_at, #reason", "attribute_exists(#paused_at)")

    def close(self, account: str, seen: Admission, *, not_before: int, reason: str, cause: str = "room") -> None:
        """Send nothing new to `account` before `not_before` (ms). Loses silently to a longer pause."""
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
        """The provider takes tasks again; not if the gate has been closed anew since `seen` was read."""
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
        """Keep what was refused for no clear reason; `()` forgets it. Loses silently to a note at the same moment: a
        count that is one too low closes the gate one refusal later."""
        text = " ".join(suspects)
        if text != seen.suspects:
            condition = "attribute_not_exists(#pk) OR #suspects = :seen"
            pk = f"suspects#{account}"
            self._rows.update_if(pk, "SET #suspects = :now", condition, now=text, seen=seen.suspects)

    def mark_unknown(self, account: str, now: int) -> None:
        """Tasks wait, and nobody has made room for the one that is sent next."""
        self._rows.update_if(
            f"gate#{account}",
            "SET #not_before = :now, #crowded = :one",
            "attribute_not_exists(#pk) OR #not_before = :zero",
            now=now,
            one=1,
            zero=0,
        )

    def record_completion(self, account: str, *, called_back: bool) -> None:
        """An end was told by a callback, or found by a poll: it decides when the next task is asked after."""
        condition = "attribute_not_exists(#calls_back) OR #calls_back <> :now"
        self._rows.update_if(f"callbacks#{account}", "SET #calls_back = :now", condition, now=int(called_back))

    def record_turn(self, account: str, tenant: str) -> None:
        """The provider has taken a task of `tenant`: the others come first now."""
        self._rows.update_if(f"gate#{account}", "SET #turn = :tenant", "attribute_exists(#pk)", tenant=tenant)


def _pause(row: dict[str, Any] | None) -> Pause | None:
    if row is None or "paused_at" not in row:
        return None
    return Pause(plain(row["paused_at"]), plain(row["reason"]))
