"""Adopt a task of the provider's: write its id to our row."""

from kling_relay.dynamodb import LostRace
from kling_relay.lifecycle import polling
from kling_relay.lifecycle.step import first_poll, ms
from kling_relay.observability import Metric, logger
from kling_relay.provider.profiles import Account
from kling_relay.provider.responses import Snapshot
from kling_relay.services import Relay
from kling_relay.tasks.task import SENT, Phase, Task


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
