"""Find the tasks with due notices, and store the progress of each notice. The notices are part of the task's row."""

from dataclasses import replace
from typing import Any

from kling_relay.dynamodb import Rows, new_token, plain, value
from kling_relay.tasks import notification
from kling_relay.tasks.notification import Notice
from kling_relay.tasks.task import Task

INDEX = "by_notice"
_DUE = "due"


class Outbox:
    """The sparse index `by_notice`: the tasks with undelivered notices, sorted by `notify_at` (ms)."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def due(self, now: int, limit: int) -> list[str]:
        """Return ids of at most `limit` tasks with notices due at `now` (ms), longest overdue first."""
        answer = self._rows.client.query(
            TableName=self._rows.name,
            IndexName=INDEX,
            KeyConditionExpression="#notify = :due AND #notify_at <= :now",
            ExpressionAttributeNames={"#notify": "notify", "#notify_at": "notify_at"},
            ExpressionAttributeValues={":due": value(_DUE), ":now": value(now)},
            Limit=limit,
        )
        return [plain(item["pk"]).partition("#")[2] for item in answer["Items"]]

    def note(self, task: Task, notice: Notice) -> Task:
        """Write the progress of `notice`, and the time of the task's next delivery. Return the task after it.

        Condition: no notice of the task has changed since `task` was read (`notice_seq` counts the changes). Otherwise
        the next time would be computed from old values. Raises ConflictError.
        """
        after = tuple(notice if one.number == notice.number else one for one in task.notices)
        left = notification.next_at(after)
        values: dict[str, Any] = {"text": notice.text(), "noted": new_token(), "seen": task.notice_seq, "one": 1}
        update = f"SET #{notice.attribute} = :text, #noted = :noted"
        if left is None:
            update += " REMOVE #notify, #notify_at"
        else:
            update += ", #notify = :due, #notify_at = :left"
            values |= {"due": _DUE, "left": left}
        condition = "#notice_seq = :seen"
        update += " ADD #notice_seq :one"
        self._rows.update(self._rows.expression(f"task#{task.id}", update, condition, **values), mark="noted")
        return replace(task, notices=after, notice_seq=task.notice_seq + 1)


def appended(notice: Notice) -> dict[str, Any]:
    """Return the attributes that a new notice adds to a row."""
    return {notice.attribute: notice.text(), "notify": _DUE, "notify_at": notice.at}
