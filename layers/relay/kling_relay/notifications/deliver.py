"""Deliver a task's due notices: the result of an uploaded file, an event on the stack's bus, and a webhook.

The webhook goes to the client's `callback_url`. Delivery is at least once: a crash between a delivery and its record
repeats it under the same id.
"""

import json
from dataclasses import replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from kling_relay import client_view
from kling_relay.dynamodb import ConflictError
from kling_relay.notifications import result_file
from kling_relay.notifications.webhook import WEBHOOK_SECONDS, save, send
from kling_relay.observability import logger
from kling_relay.services import Services
from kling_relay.tasks import notification
from kling_relay.tasks.notification import Notice
from kling_relay.tasks.task import Phase, Task

_MAX_LOOKS = 50  # a task has five notices at most: more iterations in one call mean that another writer interferes


def invoke_notifier(services: Services, task: Task) -> None:
    """Invoke functions/notify_client if a notice of the task is due now."""
    due = notification.next_at(task.notices)
    if due is not None and due <= services.clock.now_ms():
        invoke_notifier_by_id(services, task.id)


def invoke_notifier_by_id(services: Services, task_id: str) -> bool:
    """Invoke functions/notify_client. Return False if the invoke failed.

    Never raises: the sweeper does the same a minute later.
    """
    function, payload = services.settings.need("notify_function"), json.dumps({"task_id": task_id})
    try:
        services.lambdas.invoke(FunctionName=function, InvocationType="Event", Payload=payload)
    except Exception as exc:
        logger.warning("notifier_invoke_failed", extra={"task_id": task_id, "error": type(exc).__name__})
        return False
    return True


def tell(services: Services, task_id: str, must_end_by: int) -> None:
    """Deliver the due notices of one task, until `must_end_by` (ms).

    Raises AWS's errors. A failed webhook is not an error: it is retried on its schedule.
    """
    unsent: set[int] = set()
    for _ in range(_MAX_LOOKS):
        task = services.table.get(task_id)
        now = services.clock.now_ms()
        if task is None or now + (WEBHOOK_SECONDS + 2) * 1000 > must_end_by:
            return
        notice = next((one for one in task.notices if _is_due(one, now, unsent)), None)
        if notice is None:
            return
        try:
            if notice.event and notice.number not in unsent:
                _send_event(services, task, notice, unsent)
            else:
                send(services, task, notice)
        except ConflictError:  # another writer delivered or appended one: read again
            continue


def _is_due(notice: Notice, now: int, unsent: set[int]) -> bool:
    """Return whether `notice` is due now. A notice whose event the bus rejected still has its webhook."""
    return (notice.event and notice.number not in unsent) or (notice.webhook == "due" and notice.next_at <= now)


def _send_event(services: Services, task: Task, notice: Notice, unsent: set[int]) -> None:
    entry = {
        "EventBusName": services.settings.need("event_bus"),
        "Source": "kling-relay",
        "DetailType": notification.EVENTS[notice.status],
        "Detail": json.dumps(event_detail(services, task, notice)),
    }
    try:
        result_file.write(services, task)
        answer = services.events.put_events(Entries=[entry])
        error = answer["Entries"][0].get("ErrorCode", "refused") if answer.get("FailedEntryCount") else ""
    except (BotoCoreError, ClientError, RuntimeError) as exc:
        error = type(exc).__name__
    if error:
        unsent.add(notice.number)
        logger.warning("event_send_failed", extra={"task_id": task.id, "error": error})
        return
    save(services, task, notice, replace(notice, event=False))
    logger.info("event_sent", extra={"task_id": task.id, "task_status": notice.status})


def event_detail(services: Services, task: Task, notice: Notice) -> dict[str, Any]:
    """Build the `detail` of an event, version 1.

    Its readers need no API key: it names the videos by bucket and key, never by a signed URL, and contains no prompt.
    """
    detail: dict[str, Any] = {
        "version": notification.SCHEMA,
        "id": notice.id(task.id),
        "sequence": notice.number,
        "task_id": task.id,
        "external_task_id": task.external_task_id,
        "tenant": task.tenant,
        "kind": task.kind,
        "task_status": notice.status,
        "task_status_msg": task.reason if notice.status == "failed" else "",
        "created_at": task.created_at,
        "updated_at": notice.at,
        "videos": [],
    }
    if notice.status == "succeed" and task.phase is Phase.SUCCEEDED:
        detail["videos"] = client_view.places(services, task)
        detail["final_unit_deduction"] = task.units
    return detail
