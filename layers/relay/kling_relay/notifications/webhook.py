"""Send one webhook of a task to its client, at most a few at once for one tenant."""

from dataclasses import replace

from kling_relay import client_view
from kling_relay.dynamodb import ConflictError
from kling_relay.observability import Metric, logger
from kling_relay.security import standard_webhooks
from kling_relay.services import Services
from kling_relay.tasks import notification
from kling_relay.tasks.notification import Notice
from kling_relay.tasks.task import Task
from kling_relay.transfer import fetch
from kling_relay.transfer.fetch_error import FetchError

WEBHOOK_SECONDS = 15.0  # Standard Webhooks asks for 15 to 30

WEBHOOKS_AT_ONCE = 3  # of one tenant: an account may have ten functions at once, and its clients need some of them

_PERMIT_MS = 30_000  # longer than a webhook takes; a function that dies keeps its permit so long


def send(services: Services, task: Task, notice: Notice) -> None:
    if task.callback_url is None:  # the client has deleted the task, and with it where to tell
        save(services, task, notice, replace(notice, webhook="gone"))
        return
    now = services.clock.now_ms()
    permit = services.permits.take(f"webhooks#{task.tenant}", WEBHOOKS_AT_ONCE, now, now + _PERMIT_MS)
    if permit is None:  # the sweeper hands it over again; to wait here would keep a function from others
        logger.info("webhook_deferred", extra={"task_id": task.id, "task_status": notice.status})
        save(services, task, notice, notification.put_off(notice, now))
        return
    try:
        begun = notification.tried(notice, now)
        task = services.outbox.note(task, begun)  # whoever loses this race does not send
        body = notification.webhook_body(client_view.task_object(services, task), notice)
        status, retry_after, answer = _post(services, task, notice, body)
    finally:
        services.permits.release(permit)
    now = services.clock.now_ms()
    ended = notification.answered(begun, answer, status=status, retry_after=retry_after, now=now)
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
    """The receiver's status and Retry-After (s), and what to remember of its answer: never its words."""
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
    """Write what has become of a notice, also where others were appended meanwhile; not where it is not as it was
    `before`: then somebody else is at it."""
    current: Task | None = task
    while current is not None and before in current.notices:
        try:
            services.outbox.note(current, after)
            return
        except ConflictError:
            current = services.table.get(task.id)
