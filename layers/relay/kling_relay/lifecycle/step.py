"""Define the input and the result of every handler of a task, and the steps that several handlers share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kling_relay.kinds.fields import default_mode
from kling_relay.lifecycle import polling, provider_request
from kling_relay.provider.models import render_p5_seconds
from kling_relay.services import Services
from kling_relay.tasks.task import Failure, Phase, Task


@dataclass(frozen=True, slots=True)
class Step:
    """The workflow's next step with `task`; also the output for a woken workflow.

    `wait_seconds` is whole and at least 1 (Step Functions' rule for TimeoutSecondsPath). The wait writes `due_at` (ms)
    to the row, so that the sweeper notices a workflow that did not return from it.
    """

    task: Task
    next: Literal["wait", "archive", "done"]
    wait_seconds: int = 1
    due_at: int = 0

    def as_state(self) -> dict[str, Any]:
        """Return the state of the workflow. Numbers for DynamoDB are strings, as its JSON requires."""
        return {
            "task_id": self.task.id,
            "next": self.next,
            "wait_seconds": self.wait_seconds,
            "wake_seq": str(self.task.wake_seq),
            "due_at": str(self.due_at),
        }


Trigger = Literal["client", "poll", "callback", "archive"]


@dataclass(frozen=True, slots=True)
class AdvanceInput:
    """The caller of advance(), and the facts that the row does not hold.

    `trigger`: "client" is the POST of this moment, "poll" a workflow after its wait, "callback" the provider's webhook,
    "archive" the report of a copy. Only the first two may send the paid POST. `must_end_by`: when this Lambda is killed
    (ms). `images`: bytes of inline images by name. `hint`: the provider's task id from a callback's body, never trusted
    by itself. `copied`: our videos, proved complete. `copy_failed`: the reason of a failed copy, one word of
    s3_copy.py.
    """

    trigger: Trigger
    must_end_by: int = 0
    images: Mapping[str, bytes] = field(default_factory=dict)
    hint: str | None = None
    copied: list[dict[str, Any]] | None = None
    copy_failed: str | None = None

    @property
    def may_send(self) -> bool:
        """Whether the caller may send the paid POST. A callback and a copy have too little time for its answer."""
        return self.trigger in ("client", "poll")


def age(services: Services, task: Task) -> float:
    """Return the seconds since the task was sent; in rehearsals, with every wait shortened, simulated seconds."""
    since = (services.clock.now_ms() - (task.claimed_at or task.created_at)) / 1000
    return since / (services.settings.wait_scale or 1.0)


def first_poll(services: Services, task: Task) -> float:
    """Return the seconds after submission at which the first query is worthwhile."""
    name = provider_request.model_name(services, task)
    mode, duration = task.request.get("mode", default_mode(task.kind)), task.request.get("duration", "5")
    return render_p5_seconds(services.catalogue, name, mode, duration)


def deadline(services: Services, task: Task) -> int:
    """Return the deadline of the task (ms)."""
    return task.created_at + services.settings.deadline_seconds * 1000


def out_of_time(services: Services, task: Task) -> Task | Step:
    """End a task that was not sent before its deadline.

    A task whose earlier POST is in doubt may have been accepted after all: it is watched. Raises ConflictError.
    """
    late = f"not sent within {services.settings.deadline_seconds} s: {task.waits_for or 'no room at the provider'}"
    if task.unsure_since is not None:
        return expire(services, task, f"{late}; still watched: a late video will be delivered")
    now = services.clock.now_ms()
    return services.table.move(task, Phase.FAILED, reason=late, failure=Failure.EXPIRED, updated_at=now)


def watch(services: Services, now: int) -> dict[str, Any]:
    """Return the fields of an expired row: polled every few hours until the provider itself has removed everything."""
    return {
        "due_at": now + services.settings.scaled_ms(polling.WATCH_SECONDS),
        "queue": "open",
        "waits_for": "a late video",
    }


def expire(services: Services, task: Task, reason: str) -> Step:
    """Expire a task: its client sees an end, and its late move may still follow."""
    now = services.clock.now_ms()
    watched = watch(services, now)
    told: dict[str, Any] = {"reason": reason, "failure": Failure.EXPIRED, "expired_at": now}
    return Step(services.table.move(task, Phase.EXPIRED, updated_at=now, **told, **watched), "done")


def wait(services: Services, task: Task, seconds: float, *, scaled: bool = True) -> Step:
    """Return a step that waits `seconds`, scaled by WAIT_SCALE; whole and at least 1, as Step Functions requires."""
    pause = services.settings.scaled_ms(seconds) if scaled else int(seconds * 1000)
    whole = max(1, -(-pause // 1000))
    due_at = services.clock.now_ms() + whole * 1000 + ms(polling.GRACE_SECONDS)
    return Step(task, "wait", wait_seconds=whole, due_at=due_at)


def in_short(reason: str) -> str:
    """Return a reason without the provider's own text, which may repeat a prompt or a key."""
    return reason.partition(":")[0]


def ms(seconds: float) -> int:
    return int(seconds * 1000)
