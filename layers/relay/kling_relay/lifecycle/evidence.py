"""Test with a positive control whether a provider's denial proves that it does not have our task."""

from kling_relay.observability import logger
from kling_relay.provider.client import Provider
from kling_relay.provider.outcomes import Found, QueryFailed
from kling_relay.services import Services
from kling_relay.tasks.task import Task


def learn(services: Services, task: Task) -> None:
    """Make a control from a task that the provider has just returned, once a day. Never raises."""
    provider = services.provider_of(task)
    if not _is_learned(provider):
        return
    try:
        if services.controls.due(_pk(services, task), services.clock.now_ms()):
            _ask(services, provider, task, task.id, task.upstream_id)
    except Exception as exc:
        logger.warning("lookup_check_failed", extra={"error": type(exc).__name__})


def proven(services: Services, task: Task) -> bool:
    """Return whether a denial of `task` is a proof now.

    It looks the last control up once more: a provider that forgets its references at a restart loses them together with
    the pending answers. Free of charge.
    """
    provider = services.provider_of(task)
    if not _is_learned(provider):
        return False
    control = services.controls.get(_pk(services, task))
    return control.found_at > control.missed_at and _ask(services, provider, task, control.reference)


def _ask(services: Services, provider: Provider, task: Task, reference: str, upstream_id: str | None = None) -> bool:
    """Make one control, at the path of `task`. Return whether it was found.

    A failed query proves nothing, and voids nothing.
    """
    answer = provider.query(task.kind, reference)
    if isinstance(answer, QueryFailed):
        return False
    found = isinstance(answer, Found) and answer.provider_task.reference in (None, reference)
    if isinstance(answer, Found) and upstream_id is not None:
        found = found and answer.provider_task.is_about(upstream_id)
    services.controls.note(_pk(services, task), reference, found=found, now=services.clock.now_ms())
    logger.info("lookup_checked", extra={"account": services.account_of(task), "kind": task.kind, "found": found})
    return found


def _is_learned(provider: Provider) -> bool:
    profile = provider.profile
    return profile.ask_by_reference and not profile.unique_reference


def _pk(services: Services, task: Task) -> str:
    path = services.provider_of(task).profile.path.format(kind=task.kind)
    return f"lookup#{services.account_of(task)}#{path}"
