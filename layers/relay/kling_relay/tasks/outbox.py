"""The outbox: which tasks have notices to tell, and how far each notice has come. The notices lie in the task's row."""

from dataclasses import replace
from typing import Any

from kling_relay.dynamodb import Rows, new_token, plain, value
from kling_relay.tasks import notification
from kling_relay.tasks.notification import Notice
from kling_relay.tasks.task import Task

INDEX = "by_notice"
_DUE = "due"


class Outbox:
    """The sparse index `by_notice` holds the tasks with something to tell, sorted by `notify_at` (ms)."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def due(self, now: int, limit: int) -> list[str]:
        """Ids of the tasks that should have told something by now, longest overdue first."""
        found = self._rows.client.query(
            TableName=self._rows.name,
            IndexName=INDEX,
            KeyConditionExpression="#notify = :due AND #notify_at <= :now",
            ExpressionAttributeNames={"#notify": "notify", "#notify_at": "notify_at"},
            ExpressionAttributeValues={":due": value(_DUE), ":now": value(now)},
            Limit=limit,
        )
        return [plain(item["pk"]).partition("#")[2] for item in found["Items"]]

    def note(self, task: Task, notice: Notice) -> Task:
        """Write how far `notice` has come, and when the task has to be looked at next. Condition: no notice of the
        task has changed since `task` was read (`notice_seq` counts that), or what is left to do would be reckoned from
        old figures. Returns the task after it. Raises ConflictError."""
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
    """The attributes that a row gets with a new notice."""
    return {notice.attribute: notice.text(), "notify": _DUE, "notify_at": notice.at}
