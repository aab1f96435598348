"""Adopt a task of the provider: record its id in our row."""

from kling_relay.dynamodb import ConflictError
from kling_relay.lifecycle import polling
from kling_relay.lifecycle.step import first_poll, ms
from kling_relay.observability import Metric, logger
from kling_relay.provider.profiles import Account
from kling_relay.provider.responses import ProviderTask
from kling_relay.services import Services
from kling_relay.tasks.task import SENT, Phase, Task


def adopt(services: Services, task: Task, provider_task: ProviderTask) -> Task:
    """Record that the provider has the task. An expired task stays expired until its video is rendered.

    The provider's answer holds for any state of the claim: a denial may have moved the task back to accepted meanwhile.
    """
    now = services.clock.now_ms()
    expired = task.phase is Phase.EXPIRED
    try:
        return services.table.adopt(
            task,
            None if expired else Phase.SUBMITTED,
            Account.read(services.account_of(task)).space,
            provider_task.upstream_id,
            also=() if expired else SENT | {Phase.ACCEPTED},
            lease_until=None,
            retry_at=None,
            hints=None,
            waits_for="the provider",
            due_at=now + services.settings.scaled_ms(first_poll(services, task)) + ms(polling.GRACE_SECONDS),
            queue="open",
            updated_at=now,
        )
    except ConflictError:
        note_second_id(services, services.table.get(task.id), provider_task)
        raise


def note_second_id(services: Services, task: Task | None, provider_task: ProviderTask) -> None:
    """Raise the reconciliation alarm if the provider has a second task for a row: it may bill both."""
    if task is None or task.upstream_id is None or provider_task.is_about(task.upstream_id):
        return
    logger.error("second_upstream_id_found", extra={"task_id": task.id, "upstream_id": provider_task.upstream_id})
    services.measure({Metric.RECONCILE_FINDINGS: 1})
