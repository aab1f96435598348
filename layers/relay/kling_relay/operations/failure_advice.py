"""Classify a task's failure, and advise its operator or its client. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from kling_relay.tasks.task import Failure, Phase, Task


class Kind(StrEnum):
    """`task.Failure`, with EXPIRED split by the missed deadline, and with tasks that their owner cancelled."""

    CONTENT = "content"
    REFUSED = "refused"
    PROVIDER = "provider"
    NOT_COPIED = "not_copied"
    SLOW = "slow"
    UNCONFIRMED = "unconfirmed"
    UNSENT = "unsent"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice on a failure: `title` names it in a few words, `remedy` is the next step. `ours`: an operator can act."""

    title: str
    remedy: str
    ours: bool = True


ADVICE: dict[Kind, Advice] = {
    Kind.NOT_COPIED: Advice(
        "Rendered and paid, not copied",
        "The provider still has the video. The relay tries to copy it every six hours, for 30 days. Fix the cause that "
        "the reason names. Then copy it at once with the button at the task, or with make retry-archive TASK=…",
    ),
    Kind.UNCONFIRMED: Advice(
        "Submission not confirmed",
        "It may have been billed. Look it up with make reconcile. A late video is still delivered. Only its client "
        "should send it again.",
    ),
    Kind.SLOW: Advice(
        "The provider did not finish in time",
        "It is queried for 30 days, and a late video is still delivered. If there are many, ask the provider.",
    ),
    Kind.UNSENT: Advice(
        "Never sent",
        "Nothing was charged. Its client may send it again. The reason names the cause: a pause (make resume), the "
        "provider's account, or no free slot.",
    ),
    Kind.PROVIDER: Advice(
        "The render failed at the provider",
        "Its client may send it again. If there are many of one model, ask the provider. The units show the cost.",
    ),
    Kind.CONTENT: Advice(
        "Stopped by the provider's content rules",
        "The same prompt and image will be stopped again. Its client has to change them.",
        ours=False,
    ),
    Kind.REFUSED: Advice(
        "Refused by the provider",
        "Nothing was charged. The reason names the field to correct. If all are refused, compare the "
        "provider's profile (parameter Provider) with its documentation.",
        ours=False,
    ),
    Kind.CANCELLED: Advice("Cancelled by its owner", "Nothing to do. Nothing was charged.", ours=False),
}


def kind_of(task: Task) -> Kind | None:
    """Return the kind of the task's failure; None if its client sees no failure."""
    if task.phase is not Phase.FAILED and task.phase is not Phase.EXPIRED:
        return None
    if task.failure is None:
        return Kind.CANCELLED
    if task.failure is not Failure.EXPIRED:
        return Kind(task.failure)
    if task.upstream_id is None:
        return Kind.UNSENT if task.unsure_since is None else Kind.UNCONFIRMED
    return Kind.SLOW if task.rendered_at is None else Kind.NOT_COPIED
