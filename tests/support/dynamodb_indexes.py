"""Keep a global secondary index in memory: sorted, and delayed on request.

Beliefs, from AWS's documents: an index is updated after the write, usually within a second. A query of an index cannot
request a consistent read. Guesses: the changes of one item arrive in order. The worst lag is 30 s.
"""

import heapq
import random
import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from tests.support.dynamodb_expressions import Item

MAX_LAG_MS = 30_000
_LAST = "\U0010ffff"  # sorts after every pk
_TERM = re.compile(r"(#?\w+)\s*(<=|>=|=|<|>|BETWEEN)\s*(:\w+)(?:\s+AND\s+(:\w+))?")


class Index:
    """Hold the entries of one index of one table, in order within each value of the hash key."""

    def __init__(self, definition: dict[str, Any]) -> None:
        self.hash_key, self.range_key = (key["AttributeName"] for key in definition["KeySchema"])
        self.keys = {"pk", self.hash_key, self.range_key}
        self.shown = self.keys | set(definition["Projection"].get("NonKeyAttributes", []))
        self._seen: dict[str, Item] = {}
        self._parts: dict[str, list[tuple[Any, str]]] = {}
        self._late: list[tuple[int, int, str, Item]] = []  # (time at which it becomes visible, number, pk, item)
        self._last: dict[str, int] = {}  # time at which an item's last write becomes visible
        self._writes = 0

    def write(self, item: Item, seen_at: int | None) -> None:
        """Write `item`; the index shows it from `seen_at` (ms) on, None for at once."""
        pk = item["pk"]["S"]
        if seen_at is None:
            self._see(pk, item)
            return
        self._last[pk] = max(seen_at, self._last.get(pk, 0))
        self._writes += 1
        heapq.heappush(self._late, (self._last[pk], self._writes, pk, item))

    def catch_up(self, now: int) -> None:
        while self._late and self._late[0][0] <= now:
            _, _, pk, item = heapq.heappop(self._late)
            self._see(pk, item)

    def _see(self, pk: str, item: Item) -> None:
        if (before := self._seen.pop(pk, None)) is not None:
            part = self._parts[before[self.hash_key]["S"]]
            del part[bisect_left(part, self._place(before))]
        if self.hash_key in item and self.range_key in item:
            self._seen[pk] = item
            insort(self._parts.setdefault(item[self.hash_key]["S"], []), self._place(item))

    def _place(self, item: Item) -> tuple[Any, str]:
        return _plain(item[self.range_key]), item["pk"]["S"]

    def find(self, expression: str, options: dict[str, Any]) -> list[tuple[Any, str]]:
        """Return the places of the entries of a key condition, in the requested order, after the start key."""
        names, values = options["ExpressionAttributeNames"], options["ExpressionAttributeValues"]
        terms = {
            names.get(name, name): (sign, values[low], high) for name, sign, low, high in _TERM.findall(expression)
        }
        assert terms.keys() <= self.keys and terms[self.hash_key][0] == "=", expression
        part = self._parts.get(terms[self.hash_key][1]["S"], [])
        first, end = 0, len(part)
        if self.range_key in terms:
            sign, low, high = terms[self.range_key]
            given = _plain(low)
            if sign in (">", ">=", "=", "BETWEEN"):
                first = bisect_right(part, (given, _LAST)) if sign == ">" else bisect_left(part, (given,))
            if sign in ("<", "<=", "=", "BETWEEN"):
                maximum = _plain(values[high]) if sign == "BETWEEN" else given
                end = bisect_left(part, (maximum,)) if sign == "<" else bisect_right(part, (maximum, _LAST))
        forward, start = options.get("ScanIndexForward", True), options.get("ExclusiveStartKey")
        if start is not None and forward:
            first = max(first, bisect_right(part, self._place(start)))
        elif start is not None:
            end = min(end, bisect_left(part, self._place(start)))
        found = part[first : max(first, end)]
        return found if forward else found[::-1]

    def every(self) -> list[Item]:
        return list(self._seen.values())

    def items(self, places: list[tuple[Any, str]]) -> Iterator[Item]:
        return (self._seen[pk] for _, pk in places)


class Lag:
    """Draw when an index shows a write: half of the writes at once, the others up to `maximum` ms later."""

    def __init__(self, now: Callable[[], int], dice: random.Random, maximum: int = MAX_LAG_MS) -> None:
        self.now, self._dice, self._most = now, dice, maximum

    def seen_at(self) -> int:
        late = self._dice.random() < 0.5
        return self.now() + (self._dice.randint(0, self._most) if late else 0)


def _plain(stored: Any) -> Any:
    return Decimal(stored["N"]) if "N" in stored else stored["S"]
