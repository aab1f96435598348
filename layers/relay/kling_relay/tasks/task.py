"""Define a task, its phases, and the allowed moves between them. Pure: no clock, no network, no table."""

import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kling_relay.errors import ProviderRejectedError
from kling_relay.tasks import notification
from kling_relay.tasks.notification import Notice


class Phase(StrEnum):
    """A task's internal phase. Clients see only `TASK_STATUS[phase]`."""

    ACCEPTED = "accepted"  # recorded; nothing is upstream, or the provider had no room
    SUBMITTING = "submitting"  # claimed with a lease; the paid POST may be under way
    UNCONFIRMED = "unconfirmed"  # the outcome of the POST is unknown: look it up, never repeat it blindly
    SUBMITTED = "submitted"  # the provider has it; its id is known
    PROCESSING = "processing"
    RENDERED = "rendered"  # the provider is done; the video is not in our bucket yet
    SUCCEEDED = "succeeded"  # the video is in our bucket, complete
    FAILED = "failed"
    EXPIRED = "expired"  # its deadline passed; still watched, because a late video was paid for


class Failure(StrEnum):
    """The class of a failure that a client sees. A task that its owner cancelled has none."""

    REFUSED = "refused"  # the provider did not accept it
    CONTENT = "content"  # the provider's risk control, at submission or after the render
    PROVIDER = "provider"  # the provider accepted it and did not make it
    EXPIRED = "expired"  # its deadline passed: to be sent, to be confirmed, to be rendered or to be copied

    @classmethod
    def of(cls, said: str, code: int | None = None, *, otherwise: "Failure") -> "Failure":
        """Return `otherwise`, unless Kling's code or words are those of its risk control."""
        risky = code == _RISK_CODE or any(words in said.lower() for words in _RISK_WORDS)
        return cls.CONTENT if risky else otherwise


_RISK_CODE = 1301  # content security policy
_RISK_WORDS = ("risk control", "content security")  # "Failure to pass the risk control system"; its name of 1301

# Kling's four words (legacy API): anything else makes clients poll forever.
TASK_STATUS: dict[Phase, str] = {
    Phase.ACCEPTED: "submitted",
    Phase.SUBMITTING: "submitted",
    Phase.UNCONFIRMED: "submitted",
    Phase.SUBMITTED: "submitted",
    Phase.PROCESSING: "processing",
    Phase.RENDERED: "processing",
    Phase.SUCCEEDED: "succeed",
    Phase.FAILED: "failed",
    Phase.EXPIRED: "failed",
}

_UPSTREAM_UNKNOWN = {Phase.SUBMITTING, Phase.UNCONFIRMED}
_UPSTREAM_HAS_IT = {Phase.SUBMITTED, Phase.PROCESSING}

# Phases that a move may start from beside the one that was read. The sender has the outcome of its POST, even if its
# claim has expired meanwhile. A provider's own "failed" or "succeed" holds from any earlier phase at the provider.
SENT = frozenset(_UPSTREAM_UNKNOWN)
AT_THE_PROVIDER = frozenset(_UPSTREAM_HAS_IT)

# The allowed moves: target -> the phases it may start from.
MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.ACCEPTED: frozenset({Phase.SUBMITTING, Phase.UNCONFIRMED}),
    Phase.SUBMITTING: frozenset({Phase.ACCEPTED}),
    Phase.UNCONFIRMED: frozenset({Phase.SUBMITTING}),
    Phase.SUBMITTED: frozenset({Phase.ACCEPTED} | _UPSTREAM_UNKNOWN),
    Phase.PROCESSING: frozenset({Phase.SUBMITTED}),
    Phase.RENDERED: frozenset(_UPSTREAM_HAS_IT | {Phase.EXPIRED}),
    Phase.SUCCEEDED: frozenset({Phase.RENDERED}),
    Phase.FAILED: frozenset({Phase.ACCEPTED} | _UPSTREAM_UNKNOWN | _UPSTREAM_HAS_IT),
    Phase.EXPIRED: frozenset({Phase.ACCEPTED, Phase.UNCONFIRMED, Phase.RENDERED} | _UPSTREAM_HAS_IT),
}

ENDED = frozenset({Phase.SUCCEEDED, Phase.FAILED})  # final: no move follows
CLOSED = ENDED | {Phase.EXPIRED}  # the client sees an end


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the task table. Times are Unix milliseconds; `None` means "not yet"."""

    id: str
    tenant: str
    kind: str
    phase: Phase
    request: dict[str, Any]  # the normalised body; inline images are {"s3": key}
    created_at: int
    updated_at: int
    due_at: int | None = None  # when the sweeper takes over; set on every open row
    external_task_id: str | None = None  # the client's own; never sent upstream
    callback_url: str | None = None  # the client's own; never sent upstream
    claimed_at: int | None = None  # the last claim: a task that the provider made before it is not ours
    account: str | None = None  # provider.profiles.Account: it was sent there, and is queried there while it is open
    posted_since: int | None = None  # the claim of the first POST whose outcome may still be unknown
    attempt: int = 0  # counts the claims: the fence against a claimer that returns late
    lease_until: int | None = None
    retry_at: int | None = None  # the next POST or the next copy is not tried before this
    unsure_since: int | None = None  # the end of the POST whose outcome is unknown
    parked_at: int | None = None  # when look-ups had failed for so long that it is in doubt for good
    denials: int = 0  # number of look-ups in which the provider did not find our reference
    proved_at: int | None = None  # the provider refused a second POST, because it has a task of our reference
    hints: str = ""  # ids that callbacks named while none was known, separated by blanks; never trusted by themselves
    upstream_id: str | None = None
    asked_at: int | None = None  # the last query that a callback caused
    wake_seq: int = 0  # counts the changes that a sleeping workflow must not miss
    execution: str = ""  # the workflow that owns this task; an older one stops by itself
    task_token: str | None = None
    rendered_at: int | None = None
    expired_at: int | None = None  # set once and kept: the late move after it is the only one
    outputs: list[dict[str, Any]] = field(
        default_factory=list
    )  # the provider's videos: id, url, duration, watermark_url; name: in our bucket, by output_names.py
    copies: int = 0  # attempts of the copy
    videos: list[dict[str, Any]] = field(default_factory=list)  # ours: id, duration, key, size, md5, watermark_key
    reason: str = ""  # task_status_msg
    failure: Failure | None = None  # the class of `reason`
    refusal_code: int | None = None  # Kling's, if the provider refused the task at submission
    waits_for: str = ""  # for operators: the event that an open task waits for
    units: str | None = None  # final_unit_deduction
    cash: str | None = None  # final_balance_deduction.quota, unless it is 0
    estimate: int | None = None  # maximum cost in thousandths of a unit
    reserved: int | None = None  # under a cap: thousandths of a unit, committed in the tenant's `spend_month`
    spend_month: str | None = None
    settled: int | None = None  # the charge once it is known, in place of `reserved`
    expires_at: int | None = None  # Unix seconds, as DynamoDB requires them: an ended row is kept until then
    source: dict[str, Any] | None = None  # the uploaded object that it was made from: tasks.s3_source.Source
    deleted_at: int | None = None  # the client's DELETE: no further moves, and its row is scrubbed
    notices: tuple[Notice, ...] = ()  # its notifications and their progress
    notice_seq: int = 0  # counts the changes of the notices
    schema: int = 1

    @property
    def refusal(self) -> ProviderRejectedError | None:
        """The error for a client whose task the provider refused: at once, and when it repeats the request."""
        return None if self.refusal_code is None else ProviderRejectedError(self.refusal_code, self.reason)

    @property
    def sent_since(self) -> int | None:
        """The claim of the first POST whose outcome may still be unknown (ms).

        A row of a version that did not store it has its last claim alone. After a second claim, the task's creation
        replaces the first one.
        """
        last = self.claimed_at if self.attempt < 2 else self.created_at
        return last if self.posted_since is None else self.posted_since

    def is_expired(self, now: int) -> bool:
        """Return whether the row should be gone at `now` (ms): DynamoDB takes up to some days to remove it."""
        return self.expires_at is not None and self.expires_at * 1000 <= now

    @property
    def committed(self) -> int:
        """The amount in its tenant's month: the charge or, until that is known, the reservation."""
        return (self.reserved if self.settled is None else self.settled) or 0

    @property
    def cost_nothing(self) -> bool:
        """Whether the task failed and certainly never reached the provider's queue: no id, and no POST in doubt."""
        unknown = self.upstream_id is None and self.unsure_since is None and self.proved_at is None
        return self.phase is Phase.FAILED and unknown


def notice_of(task: Task, to: Phase, at: int) -> Notice | None:
    """Return the notice of a move of `task` to `to`, None if clients see no new task_status.

    The late move of an expired task reports its video only: its client has seen an end, and "processing" would revert
    that.
    """
    task_status, reported = TASK_STATUS[to], task.notices[-1].status if task.notices else None
    if task_status == reported or (reported == "failed" and task_status == "processing"):
        return None
    return notification.new(task.notices, task_status, at, webhook=task.callback_url is not None)


def copy_can_be_repeated(task: Task) -> bool:
    """Return whether the task has a video at the provider that is not copied yet, and can be."""
    late = task.phase is Phase.EXPIRED and task.rendered_at is not None and task.due_at is not None
    return late or (task.phase is Phase.RENDERED and task.copies > 0)


def new_task_id() -> str:
    """Return 128 random bits: URL-safe, without ':' (some clients join ids with it), valid in an execution's name."""
    return secrets.token_hex(16)


def is_task_id(text: str) -> bool:
    """Return whether `text` has the form of our ids. A provider's account may hold references of other programs."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None
