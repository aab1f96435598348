"""advance(task): the one function that moves a task forward. API, callback, workflow and archive all call this one."""

from collections.abc import Callable
from typing import Any, Literal

from kling_relay.api import create, delete
from kling_relay.dynamodb import LostRace
from kling_relay.lifecycle import confirm, evidence, polling, step_functions, submit, sweep
from kling_relay.lifecycle import step as steps
from kling_relay.lifecycle.facts import NOTHING, Facts
from kling_relay.lifecycle.step import adopt, deadline, note_second_id, wait, watch
from kling_relay.notifications import deliver
from kling_relay.observability import Metric, logger
from kling_relay.provider.client import Found
from kling_relay.provider.responses import Snapshot
from kling_relay.services import Relay
from kling_relay.tasks import output_names
from kling_relay.tasks.task import AT_THE_PROVIDER, ENDED, TASK_STATUS, Failure, Phase, Step, Task

_MOST_MOVES = 20  # a task has nine phases: more than this in one call means that somebody is fighting with us


class NoSuchTask(Exception):
    """There is no row of that id."""


class HintNotKept(Exception):
    """A callback's id of the provider's task, perhaps the only copy, could not be written: it has to come again."""


def advance(
    relay: Relay, task_id: str, facts: Facts = NOTHING, *, execution: str | None = None, known: Task | None = None
) -> Step:
    """Move the task as far as it goes now, and say what comes next.

    `execution`: the name of the workflow that asks; one that has been replaced is told to end. `known`: the row as the
    caller has just read or written it, which spares reading it again. Raises NoSuchTask;
    errors of AWS pass through (the caller retries: everything here can be repeated). Trouble at the provider is no
    error.
    """
    step = _advance(relay, task_id, facts, execution, known)
    deliver.hand_over(relay, step.task)
    return step


def _advance(relay: Relay, task_id: str, facts: Facts, execution: str | None, task: Task | None) -> Step:
    for _ in range(_MOST_MOVES):
        if task is None:
            task = relay.table.get(task_id)
        if task is None:
            raise NoSuchTask(task_id)
        if execution is not None and task.execution != execution:
            return Step(task, "done")
        try:
            after = _MOVERS[task.phase](relay, task, facts)
        except LostRace:
            task = None
            continue
        moved = after.task if isinstance(after, Step) else after
        if task.phase in AT_THE_PROVIDER and moved.phase not in AT_THE_PROVIDER:
            sweep.room_was_made(relay)
        if isinstance(after, Step):
            return after
        task = after
    raise RuntimeError(f"task {task_id} did not come to rest in {_MOST_MOVES} moves")


def on_callback(relay: Relay, task_id: str, claim: Snapshot | None) -> None:
    """A callback with a valid token came: ask the provider, and wake the workflow where the task has ended there.

    `claim` is what the body says. It is never believed, only used to save questions: at most one query per task in a
    few seconds, whoever has the URL, and none for a claim that tells less than the row knows. A claim of an end that
    comes sooner brings `due_at` forward; one of mere progress is not worth that.
    """
    task = relay.table.get(task_id)
    if task is not None and claim is not None:
        _keep_claim(relay, task, claim)
    use = _use(relay, task, claim)
    logger.info("callback_received", extra={"task_id": task_id, "use": use})
    relay.measure({Metric.CALLBACKS_RECEIVED: 1, **({use: 1} if isinstance(use, Metric) else {})})
    if use != "ask":
        return
    step = advance(relay, task_id, Facts(hint=None if claim is None else claim.upstream_id))
    if step.next != "wait":
        step_functions.wake(relay, step)
        relay.gates.note_end(relay.account_of(step.task), called_back=True)


def _keep_claim(relay: Relay, task: Task, claim: Snapshot) -> None:
    """A callback may hold the only copy of the provider's id: it is kept for the next look-up, and no more.

    An id beside the one that is known may be a second purchase. The provider is asked before the alarm rings, and only
    if references are unique there: a relay's callbacks name Kling's id, and its answers its own.
    """
    if task.upstream_id is None:
        try:
            relay.table.keep_hint(task, claim.upstream_id)
        except Exception as exc:
            raise HintNotKept from exc
        return
    provider = relay.provider_of(task)
    ours_elsewhere = claim.reference == task.id and not claim.is_about(task.upstream_id)
    if ours_elsewhere and provider.profile.unique_reference and _may_ask(relay, task):
        answer = provider.query(task.kind, claim.upstream_id)
        if isinstance(answer, Found) and answer.snapshot.reference == task.id:
            note_second_id(relay, task, answer.snapshot)


def _may_ask(relay: Relay, task: Task) -> bool:
    gap_ms = relay.settings.scaled_ms(polling.CALLBACK_GAP_SECONDS)
    return relay.table.pass_callback(task, relay.clock.now_ms(), gap_ms, urgent=False)


def _use(relay: Relay, task: Task | None, claim: Snapshot | None) -> Literal["ask", "nothing"] | Metric:
    """Whether a callback is worth a question, or as what it is counted."""
    if task is None or task.phase in ENDED:
        return Metric.CALLBACKS_LATE
    if task.phase is Phase.RENDERED:
        return Metric.CALLBACKS_DUPLICATE
    if task.phase is Phase.ACCEPTED:
        return "nothing"  # nothing that the provider could tell us now
    if task.phase is Phase.SUBMITTING and (task.lease_until or 0) > relay.clock.now_ms():
        return "nothing"  # the sender is still at it, and its workflow will ask
    progress = claim is not None and claim.status in ("submitted", "processing") and task.phase in AT_THE_PROVIDER
    if progress and claim is not None and claim.status in ("submitted", TASK_STATUS[task.phase]):
        return Metric.CALLBACKS_DUPLICATE
    gap_ms = relay.settings.scaled_ms(polling.CALLBACK_GAP_SECONDS)
    asks = relay.table.pass_callback(task, relay.clock.now_ms(), gap_ms, urgent=not progress)
    return "ask" if asks else Metric.CALLBACKS_DUPLICATE


def _ask(relay: Relay, task: Task, facts: Facts) -> Task | Step:
    """The provider has it (or had it, for an expired task): ask how it stands."""
    now = relay.clock.now_ms()
    snap = _query(relay, task)
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
            model = create.model_name(relay, task)
            logger.warning("dearer_than_estimated", extra={"model": model, "units": snap.units, "task_id": task.id})
        return rendered
    if task.phase is Phase.EXPIRED:
        if snap is not None and snap.status == "failed":
            return _keep_watching(relay, task, now, over=True, units=snap.units or task.units)
        return _keep_watching(relay, task, now)
    if snap is not None and snap.status == "failed":
        reason = snap.message or "the provider gave no reason"
        failure = Failure.of(reason, otherwise=Failure.PROVIDER)
        told: dict[str, Any] = {"reason": reason, "failure": failure, "units": snap.units}
        return relay.table.move(task, Phase.FAILED, also=AT_THE_PROVIDER, updated_at=now, **told)
    if now >= deadline(relay, task):
        finished = snap is not None and snap.status == "succeed"  # without an address
        what = "the provider gave no address of the finished video" if finished else "the provider did not finish"
        return _expire(relay, task, what)
    if snap is not None and snap.status in ("processing", "succeed") and task.phase is Phase.SUBMITTED:
        task = relay.table.move(task, Phase.PROCESSING, updated_at=now)
    return wait(relay, task, polling.poll_wait(steps.age(relay, task), steps.first_poll(relay, task)))


def _query(relay: Relay, task: Task) -> Snapshot | None:
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


def _copy(relay: Relay, task: Task, facts: Facts) -> Task | Step:
    """Rendered: the video has to be copied. After a copy that failed the provider is asked again, since its URL may
    have run out; that never makes a new generation."""
    now = relay.clock.now_ms()
    if facts.copied:
        over: dict[str, Any] = {"outputs": None, "reason": "", "failure": None}
        return relay.table.move(task, Phase.SUCCEEDED, videos=facts.copied, updated_at=now, **over)
    if facts.copy_failed is not None:
        task = relay.table.move(
            task,
            None,
            waits_for=f"its copy to S3 ({facts.copy_failed})",
            retry_at=_next_copy(relay, task, task.copies),
        )
    if now >= _copied_by(relay, task):
        return _expire(relay, task, f"rendered, but {task.waits_for.replace('its copy', 'the copy')} did not succeed")
    if task.retry_at is not None and task.retry_at > now:
        return wait(relay, task, (task.retry_at - now) / 1000, scaled=False)
    if task.copies:
        snap = _query(relay, task)
        if snap is not None and snap.status == "succeed" and snap.videos:
            units = snap.units or task.units
            outputs = output_names.named(snap.videos, task.outputs)
            task = relay.table.move(task, None, outputs=outputs, units=units, updated_at=now)
    return Step(task, "archive")


def _copied_by(relay: Relay, task: Task) -> int:
    """When the task expires for want of a copy (ms). After the one late move only the end of the watch is left."""
    if task.expired_at is not None:
        return task.created_at + int(polling.WATCH_UNTIL_SECONDS * 1000)
    return (task.rendered_at or task.created_at) + relay.settings.deadline_seconds * 1000


def _next_copy(relay: Relay, task: Task, copies: int) -> int:
    """When a copy may begin after `copies` that failed (ms): each time later, and more so where nobody waits."""
    most = 1800 if task.expired_at is None else polling.WATCH_SECONDS
    return relay.clock.now_ms() + relay.settings.scaled_ms(polling.backoff(copies, first=5, most=most))


def begin_copy(relay: Relay, task: Task, must_end_by: int) -> Task:
    """Note that a copy begins, so that one that never reports back is tried again, each time later. Raises LostRace."""
    return relay.table.move(
        task,
        None,
        copies=task.copies + 1,
        retry_at=_next_copy(relay, task, task.copies + 1),
        due_at=must_end_by + int(polling.GRACE_SECONDS * 1000),
    )


def _expire(relay: Relay, task: Task, what: str) -> Step:
    hours = relay.settings.deadline_seconds / 3600
    return steps.expire(relay, task, f"{what} within {hours:g} h; still watched: a late video will be delivered")


def _watch(relay: Relay, task: Task, facts: Facts) -> Task | Step:
    """Expired: one look every few hours, until the provider has had to remove everything (30 days). A task whose
    submission was never confirmed may still be found."""
    now = relay.clock.now_ms()
    if now >= task.created_at + int(polling.WATCH_UNTIL_SECONDS * 1000):
        return _keep_watching(relay, task, now, over=True)
    if task.upstream_id is not None:
        return _ask(relay, task, facts)
    found = confirm.ask_for(relay, task, facts)
    if isinstance(found, Snapshot):
        return adopt(relay, task, found)
    return _keep_watching(relay, task, now)


def _keep_watching(relay: Relay, task: Task, now: int, *, over: bool = False, units: str | None = None) -> Step:
    """Until it is over: the provider says that it failed (and took `units`), or removes its files."""
    if task.due_at is None:
        return Step(task, "done")
    fields: dict[str, Any] = {"due_at": None, "units": units} if over else watch(relay, now)
    return Step(relay.table.move(task, None, updated_at=task.updated_at, **fields), "done")


def _end(relay: Relay, task: Task, facts: Facts) -> Step:
    return Step(task, "archive" if delete.awaits_late_copies(relay, task) else "done")


_MOVERS: dict[Phase, Callable[[Relay, Task, Facts], Task | Step]] = {
    Phase.ACCEPTED: submit.submit,
    Phase.SUBMITTING: confirm.lease_over,
    Phase.UNCONFIRMED: confirm.look_up,
    Phase.SUBMITTED: _ask,
    Phase.PROCESSING: _ask,
    Phase.RENDERED: _copy,
    Phase.SUCCEEDED: _end,
    Phase.FAILED: _end,
    Phase.EXPIRED: _watch,
}
