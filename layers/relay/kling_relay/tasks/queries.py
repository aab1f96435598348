"""Query groups of tasks for operators: ended tasks by the sparse index `by_end`, and counts of open ones.

`end` is Kling's task_status at the end ("succeed", "failed"), and `ended` begins with the time. The index also holds
the cost of each ended task, so that a month is summed without reading its rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from kling_relay.dynamodb import Rows, plain, value
from kling_relay.tasks.spend_cap import milli_units

End = Literal["succeed", "failed"]
ENDS: tuple[End, ...] = ("succeed", "failed")
_MAX_PAGES = 10  # of one sum, 1 MB each: some 50,000 tasks

# Both attributes removed: the late move of an expired task reverts its end.
NOT_YET: dict[str, Any] = {"end": None, "ended": None}


def noted(task_id: str, end: str, at: int) -> dict[str, str]:
    """Return the attributes of a row that ended at `at` (ms)."""
    return {"end": end, "ended": f"{at:013}#{task_id}"}


@dataclass(slots=True)
class Spent:
    """The cost of tenants' tasks: `units` in thousandths, `tasks` counts the ended ones.

    `whole`: the sum is complete.
    """

    units: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    whole: bool = True


class Ended:
    """Ended tasks. Times are ms; a window includes `since` and excludes `until`."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def newest(self, end: End, since: int, until: int, limit: int) -> list[str]:
        """Return ids of at most `limit` tasks with this end in the window, newest first."""
        answer = self._query(end, since, until, ScanIndexForward=False, Limit=limit)
        return [plain(item["pk"]).partition("#")[2] for item in answer["Items"]]

    def count(self, end: End, since: int, until: int) -> tuple[int, bool]:
        """Count the tasks in one page of the index (1 MB), and return whether the count is complete."""
        answer = self._query(end, since, until, Select="COUNT")
        return int(answer["Count"]), "LastEvaluatedKey" not in answer

    def spent(self, since: int, until: int) -> Spent:
        """Return the cost of the tasks that ended in the window, failed ones included, by tenant.

        The cost is the provider's figure. Without one it is the estimate, for a video.
        """
        spent = Spent()
        for end in ENDS:
            for page in self._pages(end, since, until, spent):
                for item in page:
                    tenant = plain(item["tenant"])
                    units = milli_units(plain(item["units"])) if "units" in item else None
                    if units is None and end == "succeed" and "estimate" in item:
                        units = int(plain(item["estimate"]))
                    spent.units[tenant] = spent.units.get(tenant, 0) + (units or 0)
                    spent.tasks[tenant] = spent.tasks.get(tenant, 0) + 1
        return spent

    def _pages(self, end: End, since: int, until: int, spent: Spent) -> Iterator[list[dict[str, Any]]]:
        more: dict[str, Any] = {}
        for _ in range(_MAX_PAGES):
            answer = self._query(end, since, until, **more)
            yield answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        spent.whole = False

    def _query(self, end: End, since: int, until: int, **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._rows.client.query(
            TableName=self._rows.name,
            IndexName="by_end",
            KeyConditionExpression="#end = :end AND #ended BETWEEN :since AND :until",
            ExpressionAttributeNames={"#end": "end", "#ended": "ended"},
            ExpressionAttributeValues={
                ":end": value(end),
                ":since": value(f"{max(0, since):013}"),
                ":until": value(f"{max(0, until):013}"),  # a '#' follows the time, so `until` itself is excluded
            },
            **more,
        )
        return answer


class Backlog:
    """Counts and lists of open tasks.

    A count reads one page (1 MB): exact up to some thousands, above that "at least".
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def waiting(self) -> int:
        """Count the tasks that wait for a slot at the provider."""
        return self._count("by_due", "queue", "waiting")

    def parked(self) -> int:
        """Count the tasks whose submission stays in doubt for good."""
        return self._count("by_age", "standing", "parked")

    def oldest(self) -> int | None:
        """Return the creation time (ms) of the oldest task whose client sees no end yet."""
        pages = [self._query("by_age", "standing", standing, Limit=1)["Items"] for standing in ("open", "parked")]
        births = [str(plain(item["birth"])) for items in pages for item in items]
        return int(min(births).partition("#")[0]) if births else None

    def open(self) -> int:
        """Count the tasks whose client sees no end yet."""
        return self._count("by_age", "standing", "open") + self.parked()

    def oldest_open(self, limit: int) -> list[str]:
        """Return ids of at most `limit` tasks whose client sees no end yet, oldest first."""
        pages = [self._query("by_age", "standing", standing, Limit=limit)["Items"] for standing in ("open", "parked")]
        births = sorted(str(plain(item["birth"])) for items in pages for item in items)
        return [birth.partition("#")[2] for birth in births[:limit]]

    def _count(self, index: str, key: str, is_: str) -> int:
        return int(self._query(index, key, is_, Select="COUNT")["Count"])

    def _query(self, index: str, key: str, is_: str, **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._rows.client.query(
            TableName=self._rows.name,
            IndexName=index,
            KeyConditionExpression="#key = :is",
            ExpressionAttributeNames={"#key": key},
            ExpressionAttributeValues={":is": value(is_)},
            **more,
        )
        return answer
