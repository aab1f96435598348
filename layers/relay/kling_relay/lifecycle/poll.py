"""Poll the provider for the status of a task that it has, or had."""

from typing import Any

from kling_relay.lifecycle import confirm, evidence, polling, provider_request
from kling_relay.lifecycle import step as steps
from kling_relay.lifecycle.adopt import adopt, note_second_id
from kling_relay.lifecycle.step import AdvanceInput, Step, deadline, wait, watch
from kling_relay.observability import Metric, logger
from kling_relay.provider.outcomes import Found
from kling_relay.provider.responses import ProviderTask
from kling_relay.services import Services
from kling_relay.tasks import output_names
from kling_relay.tasks.task import AT_THE_PROVIDER, Failure, Phase, Task


def on_running(services: Services, task: Task, inputs: AdvanceInput) -> Task | Step:
    """Query the provider for a running task, or an expired one, and move it by the answer."""
    now = services.clock.now_ms()
    provider_task = query(services, task)
    if inputs.trigger == "poll":
        found = provider_task is not None and (provider_task.status == "failed" or provider_task.is_rendered)
        services.measure({Metric.POLLS_MADE: 1, **({Metric.POLLS_FOUND_END: 1} if found else {})})
        if found:
            services.admissions.record_completion(services.account_of(task), called_back=False)
    if provider_task is not None and provider_task.is_rendered:
        rendered = services.table.move(
            task,
            Phase.RENDERED,
            also=AT_THE_PROVIDER | {Phase.EXPIRED},  # a video counts from any earlier phase at the provider
            outputs=output_names.named(provider_task.videos, task.outputs),
            units=provider_task.units or task.units,
            cash=provider_task.cash or task.cash,
            rendered_at=now,
            retry_at=None,
            copies=0,
            due_at=now + int(polling.GRACE_SECONDS * 1000),
            queue="open",
            waits_for="its copy to S3",
            updated_at=now,
        )
        if (rendered.settled or 0) > (rendered.reserved or 0):
            model = provider_request.model_name(services, task)
            logger.warning(
                "cost_above_estimate", extra={"model": model, "units": provider_task.units, "task_id": task.id}
            )
        return rendered
    if task.phase is Phase.EXPIRED:
        if provider_task is not None and provider_task.status == "failed":
            return keep_watching(services, task, now, over=True, units=provider_task.units or task.units)
        return keep_watching(services, task, now)
    if provider_task is not None and provider_task.status == "failed":
        reason = provider_task.message or "the provider gave no reason"
        failure = Failure.of(reason, otherwise=Failure.PROVIDER)
        told: dict[str, Any] = {"reason": reason, "failure": failure, "units": provider_task.units}
        return services.table.move(task, Phase.FAILED, also=AT_THE_PROVIDER, updated_at=now, **told)
    if now >= deadline(services, task):
        finished = provider_task is not None and provider_task.status == "succeed"  # without a URL
        what = "the provider gave no address of the finished video" if finished else "the provider did not finish"
        return expire_watched(services, task, what)
    if (
        provider_task is not None
        and provider_task.status in ("processing", "succeed")
        and task.phase is Phase.SUBMITTED
    ):
        task = services.table.move(task, Phase.PROCESSING, updated_at=now)
    return wait(services, task, polling.poll_wait(steps.age(services, task), steps.first_poll(services, task)))


def query(services: Services, task: Task) -> ProviderTask | None:
    """Return the provider's state of the task, or None without a usable one.

    An unexpected answer is logged and not trusted.
    """
    if task.upstream_id is None:
        return None
    answer = services.provider_of(task).query(task.kind, task.upstream_id)
    if not isinstance(answer, Found):
        logger.warning("query_failed", extra={"answer": repr(answer)})
        return None
    provider_task = answer.provider_task
    if provider_task.reference not in (None, task.id) or not (
        provider_task.is_about(task.upstream_id) or provider_task.reference == task.id
    ):
        logger.error("provider_reference_mismatch", extra={"upstream_id": task.upstream_id})
        return None
    note_second_id(services, task, provider_task)
    evidence.learn(services, task)
    if provider_task.status == "succeed" and not provider_task.videos:
        logger.error("result_url_missing", extra={"raw_status": provider_task.word})
        services.measure({Metric.RESULT_HOST_NOT_LISTED: 1})
    elif provider_task.status is None:
        logger.warning("provider_response_unexpected", extra={"raw_status": provider_task.word})
    return provider_task


def expire_watched(services: Services, task: Task, what: str) -> Step:
    hours = services.settings.deadline_seconds / 3600
    return steps.expire(services, task, f"{what} within {hours:g} h; still watched: a late video will be delivered")


def on_expired(services: Services, task: Task, inputs: AdvanceInput) -> Task | Step:
    """Poll an expired task every few hours, until the provider must have removed everything (30 days).

    A task whose submission was never confirmed may still be found.
    """
    now = services.clock.now_ms()
    if now >= task.created_at + int(polling.WATCH_UNTIL_SECONDS * 1000):
        return keep_watching(services, task, now, over=True)
    if task.upstream_id is not None:
        return on_running(services, task, inputs)
    found = confirm.find_at_provider(services, task, inputs)
    if isinstance(found, Found):
        return adopt(services, task, found.provider_task)
    return keep_watching(services, task, now)


def keep_watching(services: Services, task: Task, now: int, *, over: bool = False, units: str | None = None) -> Step:
    """Watch until the end: the provider reports a failure (and took `units`), or removes its files."""
    if task.due_at is None:
        return Step(task, "done")
    fields: dict[str, Any] = {"due_at": None, "units": units} if over else watch(services, now)
    return Step(services.table.move(task, None, updated_at=task.updated_at, **fields), "done")
