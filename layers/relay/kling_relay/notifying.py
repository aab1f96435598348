"""Tells what a task's notices have to tell: an event on the stack's bus, and a webhook to the client's `callback_url`.

At least once: a death between the telling and its note repeats it under the same id.
"""

import json
from dataclasses import replace
from typing import Any

from kling_relay import delivery, fetch, notices, webhooks
from kling_relay.fetch import FetchError
from kling_relay.notices import Notice
from kling_relay.observability import logger
from kling_relay.relay import Relay
from kling_relay.rows import LostRace
from kling_relay.task import Phase, Task

WEBHOOK_SECONDS = 15.0  # Standard Webhooks asks for 15 to 30
_MOST_LOOKS = 50  # a task has five notices at most: more than this in one call means that somebody is fighting with us


def hand_over(relay: Relay, task: Task) -> None:
    """Have functions/notify_client tell what is due now. Never raises: the sweeper does the same a minute later."""
    due = notices.next_at(task.notices)
    if due is None or due > relay.clock.now_ms():
        return
    try:
        relay.lambdas.invoke(
            FunctionName=relay.settings.need("notify_function"),
            InvocationType="Event",
            Payload=json.dumps({"task_id": task.id}),
        )
    except Exception as exc:
        logger.warning("notices_left_to_the_sweeper", extra={"error": type(exc).__name__})


def tell(relay: Relay, task_id: str, must_end_by: int) -> None:
    """Everything that is due of one task. Raises what AWS raises; a webhook that fails is no error, it has its slots."""
    unsent: set[int] = set()
    for _ in range(_MOST_LOOKS):
        task = relay.table.get(task_id)
        now = relay.clock.now_ms()
        if task is None or now + (WEBHOOK_SECONDS + 2) * 1000 > must_end_by:
            return
        notice = next((one for one in task.notices if _is_due(one, now, unsent)), None)
        if notice is None:
            return
        try:
            if notice.event:
                notice = _send_event(relay, task, notice, unsent)
            else:
                _send_webhook(relay, task, notice)
        except LostRace:  # somebody else told or appended one: look again
            continue


def _is_due(notice: Notice, now: int, unsent: set[int]) -> bool:
    if notice.event and notice.number not in unsent:
        return True
    return not notice.event and notice.webhook == "due" and notice.next_at <= now


def _send_event(relay: Relay, task: Task, notice: Notice, unsent: set[int]) -> Notice:
    entry = {
        "EventBusName": relay.settings.need("event_bus"),
        "Source": "kling-relay",
        "DetailType": notices.EVENTS[notice.status],
        "Detail": json.dumps(event_detail(relay, task, notice)),
    }
    answer = relay.events.put_events(Entries=[entry])
    if answer.get("FailedEntryCount"):
        unsent.add(notice.number)
        logger.warning("event_not_sent", extra={"task_id": task.id, "error": answer["Entries"][0].get("ErrorCode")})
        return notice
    told = replace(notice, event=False)
    relay.outbox.note(task, told)
    logger.info("event_sent", extra={"task_id": task.id, "task_status": notice.status})
    return told


def event_detail(relay: Relay, task: Task, notice: Notice) -> dict[str, Any]:
    """The `detail` of an event, version 1. Who reads it needs no key of ours: the videos are named by bucket and key,
    never by a signed URL, and prompts stay out."""
    detail: dict[str, Any] = {
        "version": notices.SCHEMA,
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
        bucket = relay.settings.need("video_bucket")
        detail["videos"] = [_video(bucket, video) for video in task.videos]
        detail["final_unit_deduction"] = task.units
    return detail


def _video(bucket: str, video: dict[str, Any]) -> dict[str, Any]:
    named = {"id": video["id"], "bucket": bucket, "key": video["key"], "duration": video["duration"]}
    return {**named, "size": video["size"], **{k: video[k] for k in ("watermark_key",) if k in video}}


def _send_webhook(relay: Relay, task: Task, notice: Notice) -> None:
    if task.callback_url is None:  # the client has deleted the task, and with it where to tell
        relay.outbox.note(task, replace(notice, webhook="gone"))
        return
    begun = notices.tried(notice, relay.clock.now_ms())
    relay.outbox.note(task, begun)
    body = notices.webhook_body(delivery.task_object(relay, task), notice)
    status, retry_after, answer = _post(relay, task, notice, body)
    now = relay.clock.now_ms()
    ended = notices.answered(begun, answer, status=status, retry_after=retry_after, now=now)
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
    relay.outbox.note(replace(task, notice_seq=task.notice_seq + 1), ended)


def _post(relay: Relay, task: Task, notice: Notice, body: bytes) -> tuple[int | None, int | None, str]:
    """The receiver's status and Retry-After (s), and what to remember of its answer: never its words."""
    now = relay.clock.now_ms() // 1000
    headers = webhooks.signed(
        relay.signing.secrets(relay.keyring, task.tenant, now), notice.id(task.id), str(now), body
    )
    headers["Content-Type"] = "application/json"
    try:
        answer = fetch.post(
            task.callback_url or "",
            body,
            headers,
            deadline_seconds=WEBHOOK_SECONDS,
            local=relay.settings.allow_local_webhooks == "1",
        )
    except FetchError as exc:
        return None, None, exc.reason
    return answer.status, answer.retry_after, str(answer.status)
