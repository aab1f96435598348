"""The tasks whose clients have seen an end, newest first: the sparse index `by_end`, for those who watch the stack.

`end` is Kling's word for it ("succeed", "failed"), and `ended` begins with the time. The index also holds what such a
task cost, so that a month can be added up without its rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from kling_relay.dynamodb import Rows, plain, value
from kling_relay.tasks.spend_cap import milli_units

End = Literal["succeed", "failed"]
ENDS: tuple[End, ...] = ("succeed", "failed")
_MAX_PAGES = 10  # of one sum, 1 MB each: some 50,000 tasks

# Both attributes removed: the late move of an expired task takes its end back.
NOT_YET: dict[str, Any] = {"end": None, "ended": None}


def noted(task_id: str, end: str, at: int) -> dict[str, str]:
    """The attributes of a row that has come to its end at `at` (ms)."""
    return {"end": end, "ended": f"{at:013}#{task_id}"}


@dataclass(slots=True)
class Spent:
    """What tenants' tasks cost: `units` in thousandths, `tasks` counts the ended ones. `whole`: all were added up."""

    units: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    whole: bool = True


class Ended:
    """Times are ms; `since` belongs to a window, `until` does not."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def newest(self, end: End, since: int, until: int, limit: int) -> list[str]:
        """Ids of at most `limit` tasks that came to this end in the window, newest first."""
        found = self._query(end, since, until, ScanIndexForward=False, Limit=limit)
        return [plain(item["pk"]).partition("#")[2] for item in found["Items"]]

    def count(self, end: End, since: int, until: int) -> tuple[int, bool]:
        """How many there are in one page of the index (1 MB), and whether that is all of them."""
        found = self._query(end, since, until, Select="COUNT")
        return int(found["Count"]), "LastEvaluatedKey" not in found

    def spent(self, since: int, until: int) -> Spent:
        """By tenant, what the tasks that ended in the window cost, failed ones as well: as the provider stated it, or
        for a video, where it stated nothing, as estimated."""
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
            found = self._query(end, since, until, **more)
            yield found["Items"]
            if "LastEvaluatedKey" not in found:
                return
            more = {"ExclusiveStartKey": found["LastEvaluatedKey"]}
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
                ":until": value(f"{max(0, until):013}"),  # a '#' follows the time: nothing of that moment is in it
            },
            **more,
        )
        return answer


class Backlog:
    """Reads indexes of the table. A count is of one page (1 MB): exact up to some thousands, from there "at least"."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def waiting(self) -> int:
        """Tasks that wait for room at the provider."""
        return self._count("by_due", "queue", "waiting")

    def parked(self) -> int:
        """Tasks whose submission is in doubt for good."""
        return self._count("by_age", "standing", "parked")

    def oldest(self) -> int | None:
        """When the oldest task was created whose client sees no end yet (ms)."""
        found = [self._query("by_age", "standing", standing, Limit=1)["Items"] for standing in ("open", "parked")]
        births = [str(plain(item["birth"])) for items in found for item in items]
        return int(min(births).partition("#")[0]) if births else None

    def open(self) -> int:
        """Tasks whose client sees no end yet."""
        return self._count("by_age", "standing", "open") + self.parked()

    def oldest_open(self, limit: int) -> list[str]:
        """Ids of at most `limit` tasks whose client sees no end yet, oldest first."""
        found = [self._query("by_age", "standing", standing, Limit=limit)["Items"] for standing in ("open", "parked")]
        births = sorted(str(plain(item["birth"])) for items in found for item in items)
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
