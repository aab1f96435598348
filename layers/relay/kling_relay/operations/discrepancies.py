"""Compare a row with the provider's state of its task, and classify the differences.

Pure: no clock, network or table.
"""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Literal

from kling_relay.lifecycle.polling import GRACE_SECONDS
from kling_relay.provider.responses import ProviderTask
from kling_relay.tasks.task import CLOSED, Phase

_GRACE_MS = int(GRACE_SECONDS * 1000)
# The provider keeps tasks for 30 days, from an unspecified start: on the last day it may have removed a task.
_REMEMBERED_MS = 29 * 86_400_000
_LONGEST_ID = 64


class FindingType(StrEnum):
    """The types of findings, worst first. docs/runbook.md has the remedy for each."""

    BILLED_TWICE = "billed_twice"  # the provider has a second task under our reference
    NO_ROW = "no_row"  # the provider has a task under a reference of our form, and there is no such row
    NOT_ADOPTED = "not_adopted"  # the provider has the task; its row is back in the queue or failed, without the id
    NOT_KEPT = "not_kept"  # a video that was paid for and is not in the bucket: our row failed or expired
    UNCONFIRMED = "unconfirmed"  # no proof that the provider accepted it, or did not
    DENIED = "denied"  # our row names a task of the provider, which the provider denies
    WRONG_TASK = "wrong_task"  # our row names a task that carries another reference
    END_DIFFERS = "end_differs"  # succeeded with us, failed with the provider
    UNITS_DIFFER = "units_differ"  # final_unit_deduction differs from our row


@dataclass(frozen=True, slots=True)
class Row:
    """The columns of a task's row that reconciliation reads, without client content. Times as in tasks.task.Task."""

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
    """One finding. `open`: an automatic retry still handles the task; if False, a person must."""

    type: FindingType
    kind: str
    task_id: str
    upstream_id: str = ""
    ours: str = ""  # the phase of our row
    theirs: str = ""  # the provider's status, in Kling's words
    open: bool = False
    created_at: int | None = None


def finding(what: FindingType, row: Row | None, provider_task: ProviderTask | None, kind: str = "") -> Finding:
    """Build a finding about `row`, or about a provider task of this `kind` without a row."""
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
    """Return the contradictions between a row and the provider's task that it owns.

    Open rows have none, because they are in progress. Deleted ones have nothing left to compare.
    """
    if provider_task.reference not in (None, row.task_id):
        return [FindingType.WRONG_TASK]
    if row.deleted_at is not None or row.phase not in CLOSED:
        return []
    differences = []
    if provider_task.status == "succeed" and row.phase is not Phase.SUCCEEDED:
        differences.append(FindingType.NOT_KEPT)
    if provider_task.status == "failed" and row.phase is Phase.SUCCEEDED:
        differences.append(FindingType.END_DIFFERS)
    if not _same_amount(row.units, provider_task.units):
        differences.append(FindingType.UNITS_DIFFER)
    return differences


def unowned(row: Row | None, provider_task: ProviderTask, now: int, settle_ms: int) -> list[FindingType]:
    """Return the findings for a provider task with a reference of our form that no row owns.

    `row`: that of the reference. A row exists before every POST, so a missing one is not a question of time.
    """
    if row is None:
        return [FindingType.NO_ROW]
    if row.upstream_id is not None:
        return [FindingType.BILLED_TWICE]
    if in_flight(row, now, settle_ms):
        return []
    return [FindingType.UNCONFIRMED if _in_proof(row) else FindingType.NOT_ADOPTED]


def alone(row: Row, now: int, settle_ms: int) -> list[FindingType]:
    """Return the findings of a row alone.

    A submission in doubt is always reported, even if a workflow still handles it.
    """
    parked = row.upstream_id is None and _in_proof(row) and not in_flight(row, now, settle_ms)
    return [FindingType.UNCONFIRMED] if parked else []


def question(row: Row, now: int, settle_ms: int) -> Literal["id", "reference"] | None:
    """Return the key to query the provider for `row`, None for no query.

    Our reference is used only after a POST in doubt whose task has no workflow any more; the workflows of others query.
    """
    if row.deleted_at is not None or in_flight(row, now, settle_ms):
        return None
    if row.upstream_id is not None:
        return "id"
    doubted = row.unsure_since is not None and row.phase in (Phase.FAILED, Phase.ACCEPTED)
    return "reference" if doubted else None


def answered(row: Row, answer: ProviderTask | None, denied: bool, owner: str | None, now: int) -> list[FindingType]:
    """Return the findings from the answer to a query by id or by reference.

    A denial by id counts after two denials, or the list's silence and one. `owner`: the owner of the found task.
    `answer` None and not `denied`: the query failed.
    """
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
    """Return the sort key for queries, most urgent last: ended rows that may have a paid video, then the newest."""
    return row.phase in (Phase.FAILED, Phase.EXPIRED), row.created_at


def in_flight(row: Row, now: int, settle_ms: int) -> bool:
    """Return whether its submission may be running, or in doubt for a normal time."""
    if row.phase is Phase.SUBMITTING and (row.lease_until or 0) + _GRACE_MS > now:
        return True
    latest = max(row.created_at, row.claimed_at or 0, row.unsure_since or 0)
    return latest + settle_ms > now


def _in_proof(row: Row) -> bool:
    """Return whether its submission is being confirmed; one whose sender has died will be soon."""
    return row.phase in (Phase.SUBMITTING, Phase.UNCONFIRMED, Phase.EXPIRED)


def _same_amount(ours: str | None, theirs: str | None) -> bool:
    """Compare amounts as decimal texts; an unstated amount differs from none."""
    if ours is None or theirs is None or ours == theirs:
        return True
    try:
        return Decimal(ours) == Decimal(theirs)
    except InvalidOperation:
        return False


def _shown(given: str | None) -> str:
    """Return the provider's id, fit for a line of a log or a terminal."""
    return "".join(one if one.isprintable() else "?" for one in (given or "")[:_LONGEST_ID])
