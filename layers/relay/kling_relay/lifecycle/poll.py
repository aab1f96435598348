"""Ask the provider for the status of a task that it has, or had."""

from typing import Any

from kling_relay.lifecycle import confirm, evidence, polling, provider_request
from kling_relay.lifecycle import step as steps
from kling_relay.lifecycle.adopt import adopt, note_second_id
from kling_relay.lifecycle.step import Facts, Step, deadline, wait, watch
from kling_relay.observability import Metric, logger
from kling_relay.provider.outcomes import Found
from kling_relay.provider.responses import Snapshot
from kling_relay.services import Relay
from kling_relay.tasks import output_names
from kling_relay.tasks.task import AT_THE_PROVIDER, Failure, Phase, Task


def on_running(relay: Relay, task: Task, facts: Facts) -> Task | Step:
    """The provider has it (or had it, for an expired task): ask how it stands."""
    now = relay.clock.now_ms()
    snap = query(relay, task)
    if facts.polling:
        found = snap is not None and (snap.status == "failed" or (snap.status == "succeed" and bool(snap.videos)))
        relay.measure({Metric.POLLS_MADE: 1, **({Metric.POLLS_FOUND_END: 1} if found else {})})
        if found:
            relay.gates.note_end(relay.account_of(task), called_back=False)
    if snap is not None and snap.status == "succeed" and snap.videos:
        rendered = relay.table.move(
            task,
            Phase.RENDERED,
            also=AT_THE_PROVIDER | {Phase.EXPIRED},  # a video is a video, however far the task had come before
            outputs=output_names.named(snap.videos, task.outputs),
            units=snap.units or task.units,
            cash=snap.cash or task.cash,
            rendered_at=now,
            retry_at=None,
            copies=0,
            due_at=now + int(polling.GRACE_SECONDS * 1000),
            queue="open",
            waits_for="its copy to S3",
            updated_at=now,
        )
        if (rendered.settled or 0) > (rendered.reserved or 0):
            model = provider_request.model_name(relay, task)
            logger.warning("dearer_than_estimated", extra={"model": model, "units": snap.units, "task_id": task.id})
        return rendered
    if task.phase is Phase.EXPIRED:
        if snap is not None and snap.status == "failed":
            return keep_watching(relay, task, now, over=True, units=snap.units or task.units)
        return keep_watching(relay, task, now)
    if snap is not None and snap.status == "failed":
        reason = snap.message or "the provider gave no reason"
        failure = Failure.of(reason, otherwise=Failure.PROVIDER)
        told: dict[str, Any] = {"reason": reason, "failure": failure, "units": snap.units}
        return relay.table.move(task, Phase.FAILED, also=AT_THE_PROVIDER, updated_at=now, **told)
    if now >= deadline(relay, task):
        finished = snap is not None and snap.status == "succeed"  # without an address
        what = "the provider gave no address of the finished video" if finished else "the provider did not finish"
        return expire_watched(relay, task, what)
    if snap is not None and snap.status in ("processing", "succeed") and task.phase is Phase.SUBMITTED:
        task = relay.table.move(task, Phase.PROCESSING, updated_at=now)
    return wait(relay, task, polling.poll_wait(steps.age(relay, task), steps.first_poll(relay, task)))


def query(relay: Relay, task: Task) -> Snapshot | None:
    """The provider's word on the task, or None where it has none that can be used. Odd answers are logged, not
    believed."""
    if task.upstream_id is None:
        return None
    answer = relay.provider_of(task).query(task.kind, task.upstream_id)
    if not isinstance(answer, Found):
        logger.warning("query_failed", extra={"answer": repr(answer)})
        return None
    snap = answer.snapshot
    if snap.reference not in (None, task.id) or not (snap.is_about(task.upstream_id) or snap.reference == task.id):
        logger.error("foreign_answer", extra={"upstream_id": task.upstream_id})
        return None
    note_second_id(relay, task, snap)
    evidence.learn(relay, task)
    if snap.status == "succeed" and not snap.videos:
        logger.error("result_address_missing", extra={"word": snap.word})
        relay.measure({Metric.RESULT_HOST_NOT_LISTED: 1})
    elif snap.status is None:
        logger.warning("odd_answer", extra={"word": snap.word})
    return snap


def expire_watched(relay: Relay, task: Task, what: str) -> Step:
    hours = relay.settings.deadline_seconds / 3600
    return steps.expire(relay, task, f"{what} within {hours:g} h; still watched: a late video will be delivered")


def on_expired(relay: Relay, task: Task, facts: Facts) -> Task | Step:
    """Expired: one look every few hours, until the provider has had to remove everything (30 days). A task whose
    submission was never confirmed may still be found."""
    now = relay.clock.now_ms()
    if now >= task.created_at + int(polling.WATCH_UNTIL_SECONDS * 1000):
        return keep_watching(relay, task, now, over=True)
    if task.upstream_id is not None:
        return on_running(relay, task, facts)
    found = confirm.ask_for(relay, task, facts)
    if isinstance(found, Snapshot):
        return adopt(relay, task, found)
    return keep_watching(relay, task, now)


def keep_watching(relay: Relay, task: Task, now: int, *, over: bool = False, units: str | None = None) -> Step:
    """Until it is over: the provider says that it failed (and took `units`), or removes its files."""
    if task.due_at is None:
        return Step(task, "done")
    fields: dict[str, Any] = {"due_at": None, "units": units} if over else watch(relay, now)
    return Step(relay.table.move(task, None, updated_at=task.updated_at, **fields), "done")
