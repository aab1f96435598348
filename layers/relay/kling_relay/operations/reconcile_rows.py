"""Read rows for reconciliation: those of a window, without client content, and the owners of provider tasks."""

from collections.abc import Collection, Iterator
from dataclasses import fields
from typing import Any

from kling_relay.dynamodb import Rows, plain, value
from kling_relay.operations.discrepancies import Row
from kling_relay.tasks.task import Phase
from kling_relay.tasks.task_row import upstream_pk

_BATCH_SIZE = 100
_ROW_FIELDS = [one.name for one in fields(Row) if one.name != "task_id"]


class TaskRows:
    """The rows of the table for one provider: `spaces` are the names of its id space, the newest first.

    `unreadable`: ids whose rows cannot be parsed.
    """

    def __init__(self, rows: Rows, *spaces: str) -> None:
        self._rows = rows
        self._spaces = spaces
        self.unreadable: set[str] = set()

    def created_since(self, since: int) -> Iterator[list[str]]:
        """Yield ids of the tasks recorded since `since` (ms), unordered, at most a hundred at a time.

        The scanned index holds keys alone: nothing else is read of tasks outside the window.
        """
        scan: dict[str, Any] = {
            "TableName": self._rows.name,
            "IndexName": "by_owner",
            "ProjectionExpression": "pk",
            "FilterExpression": "birth >= :since",
            "ExpressionAttributeValues": {":since": value(f"{since:013}")},
        }
        while True:
            page = self._rows.client.scan(**scan)
            ids = [plain(item["pk"]).removeprefix("task#") for item in page["Items"]]
            yield from (ids[start : start + _BATCH_SIZE] for start in range(0, len(ids), _BATCH_SIZE))
            if "LastEvaluatedKey" not in page:
                return
            scan["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def rows(self, task_ids: Collection[str]) -> dict[str, Row]:
        """Return the current rows of `task_ids` by id, without those that do not exist."""
        items = self._rows.get_all([f"task#{task_id}" for task_id in task_ids], ["pk", *_ROW_FIELDS])
        rows = {}
        for pk, item in items.items():
            task_id = pk.removeprefix("task#")
            try:
                read = {name: plain(stored) for name, stored in item.items() if name != "pk"}
                rows[task_id] = Row(task_id, **{**read, "phase": Phase(read["phase"])})
            except (KeyError, TypeError, ValueError):  # one bad row does not stop the run
                self.unreadable.add(task_id)
        return rows

    def owners(self, upstream_ids: Collection[str]) -> dict[str, str]:
        """Return the owned ones of the provider's tasks: provider id -> our task id."""
        pks = {upstream_pk(space, one): one for space in reversed(self._spaces) for one in upstream_ids}
        items = self._rows.get_all(list(pks), ["pk", "task_id"])
        return {pks[pk]: plain(items[pk]["task_id"]) for pk in pks if pk in items}
