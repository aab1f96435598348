"""Define the input and the result of every mover of a task, and the steps that several movers share."""

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
    """What the workflow does next with `task`; also the output of whoever wakes it.

    `wait_seconds` is whole and at least 1 (Step Functions' rule for TimeoutSecondsPath); `due_at` (ms) is what the wait
    writes into the row, so that the sweeper notices a workflow that did not come back from it.
    """

    task: Task
    next: Literal["wait", "archive", "done"]
    wait_seconds: int = 1
    due_at: int = 0

    def as_state(self) -> dict[str, Any]:
        """The state of the workflow. Numbers that DynamoDB is to store are strings there, as its JSON wants them."""
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
    """Who calls advance(), and the facts that the row does not hold.

    `trigger`: "client" is the POST of this moment, "poll" a workflow whose wait is over, "callback" the provider's
    webhook, "archive" the report of a copy. Only the first two may send the paid POST. `must_end_by`: when this Lambda
    is killed (ms). `images`: bytes of inline images by name. `hint`: the provider's task id as a callback's body names
    it, never believed by itself. `copied`: our videos, proved whole. `copy_failed`: one word of s3_copy.py.
    """

    trigger: Trigger
    must_end_by: int = 0
    images: Mapping[str, bytes] = field(default_factory=dict)
    hint: str | None = None
    copied: list[dict[str, Any]] | None = None
    copy_failed: str | None = None

    @property
    def may_send(self) -> bool:
        """Whether the caller may send the paid POST. A callback and a copy have too little time to see its answer."""
        return self.trigger in ("client", "poll")


def age(services: Services, task: Task) -> float:
    """Seconds since the task was sent; in rehearsals, with every wait shortened, seconds of the time that is played."""
    since = (services.clock.now_ms() - (task.claimed_at or task.created_at)) / 1000
    return since / (services.settings.wait_scale or 1.0)


def first_poll(services: Services, task: Task) -> float:
    """Seconds after submission at which the first query is worth making."""
    name = provider_request.model_name(services, task)
    mode, duration = task.request.get("mode", default_mode(task.kind)), task.request.get("duration", "5")
    return render_p5_seconds(services.catalogue, name, mode, duration)


def deadline(services: Services, task: Task) -> int:
    """When the task's time is over (ms)."""
    return task.created_at + services.settings.deadline_seconds * 1000


def out_of_time(services: Services, task: Task) -> Task | Step:
    """End a task that was not sent before its deadline. One whose earlier POST is in doubt may have been taken after
    all: it is watched. Raises ConflictError."""
    late = f"not sent within {services.settings.deadline_seconds} s: {task.waits_for or 'no room at the provider'}"
    if task.unsure_since is not None:
        return expire(services, task, f"{late}; still watched: a late video will be delivered")
    now = services.clock.now_ms()
    return services.table.move(task, Phase.FAILED, reason=late, failure=Failure.EXPIRED, updated_at=now)


def watch(services: Services, now: int) -> dict[str, Any]:
    """The fields of an expired row: seen again every few hours until the provider itself has removed everything."""
    return {
        "due_at": now + services.settings.scaled_ms(polling.WATCH_SECONDS),
        "queue": "open",
        "waits_for": "a late video",
    }


def expire(services: Services, task: Task, reason: str) -> Step:
    """The client sees an end; its task's late move is still to come."""
    now = services.clock.now_ms()
    watched = watch(services, now)
    told: dict[str, Any] = {"reason": reason, "failure": Failure.EXPIRED, "expired_at": now}
    return Step(services.table.move(task, Phase.EXPIRED, updated_at=now, **told, **watched), "done")


def wait(services: Services, task: Task, seconds: float, *, scaled: bool = True) -> Step:
    """The step that sleeps: `seconds`, shortened by WAIT_SCALE; whole and at least 1, as Step Functions wants it."""
    pause = services.settings.scaled_ms(seconds) if scaled else int(seconds * 1000)
    whole = max(1, -(-pause // 1000))
    due_at = services.clock.now_ms() + whole * 1000 + ms(polling.GRACE_SECONDS)
    return Step(task, "wait", wait_seconds=whole, due_at=due_at)


def in_short(reason: str) -> str:
    """A reason without the provider's own words, which may repeat a prompt or a key."""
    return reason.partition(":")[0]


def ms(seconds: float) -> int:
    return int(seconds * 1000)
