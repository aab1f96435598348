"""Read the open tasks in the order in which they are due: the sparse index `by_due`.

`queue` is "open", sorted by `due_at`, or "waiting" (for a slot at the provider), sorted by age.
"""

import random
from collections.abc import Iterator
from typing import Any

from kling_relay.dynamodb import Rows, plain, value

_LATE_PAGE = 100  # the number of rows that one BatchGetItem reads
_FOR_EVER = 10**15  # ms: later than any `due_at`


class TaskQueue:
    """The queues of open and waiting tasks. The index lags for a moment, so every caller reads the row again."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def due(self, now: int, limit: int) -> list[str]:
        """Return ids of open tasks whose `due_at` has passed, most overdue first."""
        return [task_id for task_id, _ in _ids_and_tenants(self._queue("open", until=now, Limit=limit))]

    def waiting(self, limit: int, since: int = 0) -> list[tuple[str, str]]:
        """Return (id, tenant) of the tasks that wait for room upstream and were created since `since` (ms), oldest
        first.
        """
        return _ids_and_tenants(self._queue("waiting", since, Limit=limit))

    def waiting_at_random(self, limit: int, since: int) -> list[tuple[str, str]]:
        """Return tasks as `waiting`, from a random time between the oldest task and the newest."""
        ends = [self._queue("waiting", since, Limit=1, ScanIndexForward=forward)["Items"] for forward in (True, False)]
        births = [plain(item["due_at"]) for items in ends for item in items]
        moment = random.randint(min(births), max(births)) if births else 0  # nosec B311 # noqa: S311  (a lot, no secret)
        return self.waiting(limit, moment) if births else []

    def late(self, until: int) -> Iterator[list[str]]:
        """Yield ids of the waiting tasks that were created before `until` (ms), oldest first, page after page."""
        more: dict[str, Any] = {"Limit": _LATE_PAGE}
        while True:
            answer = self._queue("waiting", until=until, **more)
            yield [task_id for task_id, _ in _ids_and_tenants(answer)]
            if "LastEvaluatedKey" not in answer:
                return
            more["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _queue(self, queue: str, since: int = 0, until: int = _FOR_EVER, **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._rows.client.query(
            TableName=self._rows.name,
            IndexName="by_due",
            KeyConditionExpression="#queue = :queue AND #due_at BETWEEN :since AND :until",
            ExpressionAttributeNames={"#queue": "queue", "#due_at": "due_at"},
            ExpressionAttributeValues={":queue": value(queue), ":since": value(since), ":until": value(until)},
            **more,
        )
        return answer


def _ids_and_tenants(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(plain(item["pk"]).partition("#")[2], plain(item["tenant"])) for item in answer["Items"]]
