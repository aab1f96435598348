"""Whether a provider's denial proves that it has no task of ours: learned with a positive control."""

from kling_relay.observability import logger
from kling_relay.provider.client import Provider
from kling_relay.provider.outcomes import Found, Trouble
from kling_relay.services import Relay
from kling_relay.tasks.task import Task


def learn(relay: Relay, task: Task) -> None:
    """Make a control of a task that the provider was just seen to have, once a day. Never raises."""
    provider = relay.provider_of(task)
    if not _is_learned(provider):
        return
    try:
        if relay.controls.due(_pk(relay, task), relay.clock.now_ms()):
            _ask(relay, provider, task, task.id, task.upstream_id)
    except Exception as exc:
        logger.warning("control_not_made", extra={"error": type(exc).__name__})


def proven(relay: Relay, task: Task) -> bool:
    """Whether a denial of `task` proves something now. Asks for the last control once more: a provider that forgets
    its references when it starts again loses them together with the answers under way. It costs nothing."""
    provider = relay.provider_of(task)
    if not _is_learned(provider):
        return False
    control = relay.controls.get(_pk(relay, task))
    return control.found_at > control.missed_at and _ask(relay, provider, task, control.reference)


def _ask(relay: Relay, provider: Provider, task: Task, reference: str, upstream_id: str | None = None) -> bool:
    """One control, at the path of `task`; whether it was found. Trouble proves nothing, and voids nothing."""
    answer = provider.query(task.kind, reference)
    if isinstance(answer, Trouble):
        return False
    found = isinstance(answer, Found) and answer.snapshot.reference in (None, reference)
    if isinstance(answer, Found) and upstream_id is not None:
        found = found and answer.snapshot.is_about(upstream_id)
    relay.controls.note(_pk(relay, task), reference, found=found, now=relay.clock.now_ms())
    logger.info("lookup_control", extra={"account": relay.account_of(task), "kind": task.kind, "found": found})
    return found


def _is_learned(provider: Provider) -> bool:
    profile = provider.profile
    return profile.ask_by_reference and not profile.unique_reference


def _pk(relay: Relay, task: Task) -> str:
    path = relay.provider_of(task).profile.path.format(kind=task.kind)
    return f"lookup#{relay.account_of(task)}#{path}"
