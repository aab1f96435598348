"""What a row of ours and the provider's word on it say together. Pure: no clock, no network, no table."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Literal

from kling_relay.lifecycle.polling import GRACE_SECONDS
from kling_relay.provider.responses import ProviderTask
from kling_relay.tasks.task import CLOSED, Phase

_GRACE_MS = int(GRACE_SECONDS * 1000)
# The provider keeps tasks for 30 days, counted from a moment that it does not name: on the last it may know no more.
_REMEMBERED_MS = 29 * 86_400_000
_LONGEST_ID = 64


class FindingType(StrEnum):
    """What can be found, worst first. docs/runbook.md says of each what to do."""

    BILLED_TWICE = "billed_twice"  # the provider has a second task under our reference
    NO_ROW = "no_row"  # the provider has a task under a reference of our form, and there is no such row
    NOT_ADOPTED = "not_adopted"  # the provider has it; its row is back in the queue or failed, and does not know
    NOT_KEPT = "not_kept"  # a video that was paid for and is not in the bucket: our row failed or expired
    UNCONFIRMED = "unconfirmed"  # whether the provider ever accepted it has not been proved
    DENIED = "denied"  # our row names a task of the provider's, which the provider denies
    WRONG_TASK = "wrong_task"  # our row names a task that carries another reference
    END_DIFFERS = "end_differs"  # succeeded with us, failed with the provider
    UNITS_DIFFER = "units_differ"  # final_unit_deduction is not what our row has


@dataclass(frozen=True, slots=True)
class Row:
    """What reconciliation reads of a task's row, and nothing that its client said. Times as in task.Task."""

    task_id: str
    kind: str
    phase: Phase
    created_at: int
    due_at: int | None = None
    claimed_at: int | None = None
    lease_until: int | None = None
    unsure_since: int | None = None
    upstream_id: str | None = None
    units: str | None = None
    deleted_at: int | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """`open`: whether the relay itself still looks after the task; where it does not, a person has to."""

    type: FindingType
    kind: str
    task_id: str
    upstream_id: str = ""
    ours: str = ""  # the phase of our row
    theirs: str = ""  # the provider's status, in Kling's words
    open: bool = False
    created_at: int | None = None


def finding(what: FindingType, row: Row | None, provider_task: ProviderTask | None, kind: str = "") -> Finding:
    """A finding about `row`, or about a task of the provider's of this `kind` that has none."""
    upstream_id = (
        provider_task.upstream_id if provider_task is not None else row.upstream_id if row is not None else None
    )
    return Finding(
        type=what,
        kind=kind if row is None else row.kind,
        task_id=row.task_id
        if row is not None
        else _shown(provider_task.reference if provider_task is not None else None),
        upstream_id=_shown(upstream_id),
        ours="" if row is None else row.phase,
        theirs="" if provider_task is None else provider_task.status or "?",
        open=row is not None and row.due_at is not None,
        created_at=row.created_at
        if row is not None
        else provider_task.created_at
        if provider_task is not None
        else None,
    )


def compare(row: Row, provider_task: ProviderTask) -> list[FindingType]:
    """What contradicts between a row and the provider's task that it owns. Open rows contradict nothing: they are on
    their way. Deleted ones have nothing left to compare."""
    if provider_task.reference not in (None, row.task_id):
        return [FindingType.WRONG_TASK]
    if row.deleted_at is not None or row.phase not in CLOSED:
        return []
    found = []
    if provider_task.status == "succeed" and row.phase is not Phase.SUCCEEDED:
        found.append(FindingType.NOT_KEPT)
    if provider_task.status == "failed" and row.phase is Phase.SUCCEEDED:
        found.append(FindingType.END_DIFFERS)
    if not _same_amount(row.units, provider_task.units):
        found.append(FindingType.UNITS_DIFFER)
    return found


def unowned(row: Row | None, provider_task: ProviderTask, now: int, settle_ms: int) -> list[FindingType]:
    """What it means that the provider has `snap` under a reference of our form, and no row owns it. `row`: that of the
    reference. There is one before every POST, so none at all is no matter of time."""
    if row is None:
        return [FindingType.NO_ROW]
    if row.upstream_id is not None:
        return [FindingType.BILLED_TWICE]
    if in_flight(row, now, settle_ms):
        return []
    return [FindingType.UNCONFIRMED if _in_proof(row) else FindingType.NOT_ADOPTED]


def alone(row: Row, now: int, settle_ms: int) -> list[FindingType]:
    """What a row says by itself. A submission in doubt is always worth a line, whoever still looks for it."""
    parked = row.upstream_id is None and _in_proof(row) and not in_flight(row, now, settle_ms)
    return [FindingType.UNCONFIRMED] if parked else []


def question(row: Row, now: int, settle_ms: int) -> Literal["id", "reference"] | None:
    """By what the provider is to be asked for `row`. By our reference only after a POST in doubt whose task nobody
    looks for any more; the others in doubt have a workflow that asks."""
    if row.deleted_at is not None or in_flight(row, now, settle_ms):
        return None
    if row.upstream_id is not None:
        return "id"
    doubted = row.unsure_since is not None and row.phase in (Phase.FAILED, Phase.ACCEPTED)
    return "reference" if doubted else None


def answered(row: Row, answer: ProviderTask | None, denied: bool, owner: str | None, now: int) -> list[FindingType]:
    """What the answer to a question by id means (two denials, or the list's silence and one), or that to one by
    reference (it was denied before). `owner`: who owns the task that was found. None and not denied: no answer."""
    if row.deleted_at is not None:
        return []
    if row.upstream_id is not None:
        if answer is not None:
            return compare(row, answer)
        return [FindingType.DENIED] if denied and now - row.created_at < _REMEMBERED_MS else []
    if answer is not None and answer.reference in (None, row.task_id) and owner in (None, row.task_id):
        return [FindingType.NOT_ADOPTED]
    return [] if denied or row.phase is not Phase.FAILED else [FindingType.UNCONFIRMED]


def urgency(row: Row) -> tuple[bool, int]:
    """What sorts rows by how soon to ask, last first: ends behind which a paid video may hide, then the newest."""
    return row.phase in (Phase.FAILED, Phase.EXPIRED), row.created_at


def in_flight(row: Row, now: int, settle_ms: int) -> bool:
    """Whether its submission may be under way, or in doubt for no longer than doubt is normal."""
    if row.phase is Phase.SUBMITTING and (row.lease_until or 0) + _GRACE_MS > now:
        return True
    latest = max(row.created_at, row.claimed_at or 0, row.unsure_since or 0)
    return latest + settle_ms > now


def _in_proof(row: Row) -> bool:
    """Whether the relay looks for the proof of its submission: one whose sender is gone will be soon."""
    return row.phase in (Phase.SUBMITTING, Phase.UNCONFIRMED, Phase.EXPIRED)


def _same_amount(ours: str | None, theirs: str | None) -> bool:
    """Amounts as decimal texts; one that nobody has stated differs from none."""
    if ours is None or theirs is None or ours == theirs:
        return True
    try:
        return Decimal(ours) == Decimal(theirs)
    except InvalidOperation:
        return False


def _shown(given: str | None) -> str:
    """An id of the provider's, fit for a line of a log or a terminal."""
    return "".join(one if one.isprintable() else "?" for one in (given or "")[:_LONGEST_ID])
