"""Send one webhook of a task to its client, with a limit on concurrent webhooks for one tenant."""

from dataclasses import replace

from kling_relay import client_view
from kling_relay.dynamodb import ConflictError
from kling_relay.notifications import webhook_retry
from kling_relay.observability import Metric, logger
from kling_relay.security import standard_webhooks
from kling_relay.services import Services
from kling_relay.tasks import notification
from kling_relay.tasks.notification import Notice
from kling_relay.tasks.task import Task
from kling_relay.transfer import fetch
from kling_relay.transfer.fetch_error import FetchError

WEBHOOK_SECONDS = 15.0  # Standard Webhooks asks for 15 to 30

WEBHOOKS_AT_ONCE = 3  # of one tenant: an account may have ten concurrent functions, and its clients need some of them

_PERMIT_MS = 30_000  # longer than a webhook takes; a function that dies keeps its permit so long


def send(services: Services, task: Task, notice: Notice) -> None:
    """Send one webhook for `notice`, and record its result.

    It is postponed if the tenant's permits are taken. Raises ConflictError if another writer sends it.
    """
    if task.callback_url is None:  # the client has deleted the task, and with it the callback URL
        save(services, task, notice, replace(notice, webhook="gone"))
        return
    now = services.clock.now_ms()
    permit = services.permits.take(f"webhooks#{task.tenant}", WEBHOOKS_AT_ONCE, now, now + _PERMIT_MS)
    if permit is None:  # The sweeper retries it. Waiting here would block a function that others need.
        logger.info("webhook_deferred", extra={"task_id": task.id, "task_status": notice.status})
        save(services, task, notice, webhook_retry.postpone(notice, now))
        return
    try:
        begun = webhook_retry.count_attempt(notice, now)
        task = services.outbox.note(task, begun)  # the loser of this race does not send
        body = notification.webhook_body(client_view.task_object(services, task), notice)
        status, retry_after, answer = _post(services, task, notice, body)
    finally:
        services.permits.release(permit)
    now = services.clock.now_ms()
    ended = webhook_retry.after_attempt(begun, answer, status=status, retry_after=retry_after, now=now)
    logger.info(
        "webhook_sent",
        extra={
            "task_id": task.id,
            "task_status": notice.status,
            "webhook": ended.webhook,
            "answer": answer,
            "tries": ended.tries,
        },
    )
    save(services, task, begun, ended)
    if ended.webhook == "delivered":
        services.measure({Metric.NOTICE_SECONDS: max(0, now - notice.at) / 1000})
    elif ended.webhook != "due":
        services.measure({Metric.WEBHOOKS_FAILED: 1})


def _post(services: Services, task: Task, notice: Notice, body: bytes) -> tuple[int | None, int | None, str]:
    """Return the receiver's status and Retry-After (s), and a short result for the notice: never its text."""
    now = services.clock.now_ms()
    secrets = services.signing.secrets(services.keyring, task.tenant, now)
    headers = standard_webhooks.signed(secrets, notice.id(task.id), str(now // 1000), body)
    headers["Content-Type"] = "application/json"
    try:
        answer = fetch.post(
            task.callback_url or "",
            body,
            headers,
            deadline_seconds=WEBHOOK_SECONDS,
            local=services.settings.allow_local_webhooks == "1",
        )
    except FetchError as exc:
        return None, None, exc.reason
    return answer.status, answer.retry_after, str(answer.status)


def save(services: Services, task: Task, before: Notice, after: Notice) -> None:
    """Write the new state of a notice, even if others were appended meanwhile.

    Nothing is written if the notice is not `before` any more: another writer handles it.
    """
    current: Task | None = task
    while current is not None and before in current.notices:
        try:
            services.outbox.note(current, after)
            return
        except ConflictError:
            current = services.table.get(task.id)
