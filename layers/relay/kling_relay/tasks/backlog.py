"""How many tasks are open, since when, and which: a query or two each, since the sweeper measures every minute."""

from typing import Any

from kling_relay.dynamodb import Rows, plain, value


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
