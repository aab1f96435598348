"""What submission, confirmation and advance() share: a provider's task is adopted, an end comes late, a step waits."""

from typing import Any

from kling_relay.api import create
from kling_relay.dynamodb import LostRace
from kling_relay.kinds.fields import default_mode
from kling_relay.lifecycle import polling
from kling_relay.observability import Metric, logger
from kling_relay.provider.models import render_p5_seconds
from kling_relay.provider.profiles import Account
from kling_relay.provider.responses import Snapshot
from kling_relay.services import Relay
from kling_relay.tasks.task import SENT, Failure, Phase, Step, Task


def adopt(relay: Relay, task: Task, snap: Snapshot) -> Task:
    """The provider has the task: note its id. An expired task stays expired until there is more to tell.

    That the provider has it holds whatever became of the claim meanwhile: a denial may have sent it back to accepted.
    """
    now = relay.clock.now_ms()
    expired = task.phase is Phase.EXPIRED
    try:
        return relay.table.adopt(
            task,
            None if expired else Phase.SUBMITTED,
            Account.read(relay.account_of(task)).space,
            snap.upstream_id,
            also=() if expired else SENT | {Phase.ACCEPTED},
            lease_until=None,
            retry_at=None,
            hints=None,
            waits_for="the provider",
            due_at=now + relay.settings.scaled_ms(first_poll(relay, task)) + ms(polling.GRACE_SECONDS),
            queue="open",
            updated_at=now,
        )
    except LostRace:
        note_second_id(relay, relay.table.get(task.id), snap)
        raise


def note_second_id(relay: Relay, task: Task | None, snap: Snapshot) -> None:
    """Ring the alarm of reconciliation if the provider has a second task for one of ours: it may bill both."""
    if task is None or task.upstream_id is None or snap.is_about(task.upstream_id):
        return
    logger.error("second_upstream_id", extra={"task_id": task.id, "upstream_id": snap.upstream_id})
    relay.measure({Metric.RECONCILE_FINDINGS: 1})


def age(relay: Relay, task: Task) -> float:
    """Seconds since the task was sent; in rehearsals, with every wait shortened, seconds of the time that is played."""
    since = (relay.clock.now_ms() - (task.claimed_at or task.created_at)) / 1000
    return since / (relay.settings.wait_scale or 1.0)


def first_poll(relay: Relay, task: Task) -> float:
    """Seconds after submission at which the first query is worth making."""
    name = create.model_name(relay, task)
    mode, duration = task.request.get("mode", default_mode(task.kind)), task.request.get("duration", "5")
    return render_p5_seconds(relay.catalogue, name, mode, duration)


def deadline(relay: Relay, task: Task) -> int:
    """When the task's time is over (ms)."""
    return task.created_at + relay.settings.deadline_seconds * 1000


def out_of_time(relay: Relay, task: Task) -> Task | Step:
    """End a task that was not sent before its deadline. One whose earlier POST is in doubt may have been taken after
    all: it is watched. Raises LostRace."""
    late = f"not sent within {relay.settings.deadline_seconds} s: {task.waits_for or 'no room at the provider'}"
    if task.unsure_since is not None:
        return expire(relay, task, f"{late}; still watched: a late video will be delivered")
    now = relay.clock.now_ms()
    return relay.table.move(task, Phase.FAILED, reason=late, failure=Failure.EXPIRED, updated_at=now)


def watch(relay: Relay, now: int) -> dict[str, Any]:
    """The fields of an expired row: seen again every few hours until the provider itself has removed everything."""
    return {
        "due_at": now + relay.settings.scaled_ms(polling.WATCH_SECONDS),
        "queue": "open",
        "waits_for": "a late video",
    }


def expire(relay: Relay, task: Task, reason: str) -> Step:
    """The client sees an end; its task's late move is still to come."""
    now = relay.clock.now_ms()
    watched = watch(relay, now)
    told: dict[str, Any] = {"reason": reason, "failure": Failure.EXPIRED, "expired_at": now}
    return Step(relay.table.move(task, Phase.EXPIRED, updated_at=now, **told, **watched), "done")


def wait(relay: Relay, task: Task, seconds: float, *, scaled: bool = True) -> Step:
    """The step that sleeps: `seconds`, shortened by WAIT_SCALE; whole and at least 1, as Step Functions wants it."""
    pause = relay.settings.scaled_ms(seconds) if scaled else int(seconds * 1000)
    whole = max(1, -(-pause // 1000))
    due_at = relay.clock.now_ms() + whole * 1000 + ms(polling.GRACE_SECONDS)
    return Step(task, "wait", wait_seconds=whole, due_at=due_at)


def in_short(reason: str) -> str:
    """A reason without the provider's own words, which may repeat a prompt or a key."""
    return reason.partition(":")[0]


def ms(seconds: float) -> int:
    return int(seconds * 1000)
