"""Test that the reads of a list's page do not grow with the number of tasks, of its tenant or of others.

Counted from DynamoDB's own answers. moto sorts a whole index for each query, so `make scale` has the largest number.
"""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kling_relay.tasks.task import Phase, Task
from kling_relay.tasks.task_row import new_item
from moto.core import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType, Item

from tests.support.stack_in_memory import START, World

pytestmark = pytest.mark.slow

COUNTS = [int(count) for count in os.environ.get("LIST_SIZES", "10 10000").split()]


def stock(world: World, tenant: str, kind: str, count: int) -> list[str]:
    """`count` ended tasks, one a millisecond, put past DynamoDB's door; their ids, newest first."""
    table = dynamodb_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].tables[world.table.rows.name]
    ids = [f"{len(table.items) + number:032x}" for number in range(count)]
    first: dict[str, Any] = {}
    for number, task_id in enumerate(ids):
        at = START + number
        row = new_item(Task(task_id, tenant, kind, Phase.FAILED, {"prompt": "p" * 200}, at, at, reason="no"))
        if not first:
            first = row
            like = Item(hash_key=DynamoType(row["pk"]), range_key=None, attrs=row)
        own = {name: DynamoType(value) for name, value in row.items() if value != first.get(name) or name == "pk"}
        item = copy.copy(like)
        item.hash_key, item.attrs = own["pk"], {**like.attrs, **own}
        table.items[item.hash_key] = item
    return ids[::-1]


@contextmanager
def counted(world: World) -> Iterator[dict[str, int]]:
    """What is read from the table meanwhile: rows, and keys of the index (also those that are only counted)."""
    seen = {"rows": 0, "keys": 0}

    def note(parsed: dict[str, Any], model: Any, **_: Any) -> None:
        assert model.name in ("Query", "BatchGetItem"), f"{model.name} is no way to read a page"
        seen["keys"] += parsed.get("ScannedCount", 0)
        for item in parsed.get("Items", []):
            assert set(item) == {"pk", "owner", "birth"}
        seen["rows"] += sum(len(items) for items in parsed.get("Responses", {}).values())

    events = world.dynamodb.meta.events
    events.register("after-call.dynamodb", note, unique_id="counted")
    try:
        yield seen
    finally:
        events.unregister("after-call.dynamodb", unique_id="counted")


@pytest.mark.timeout(0)
@pytest.mark.parametrize("count", COUNTS)
def test_a_page_reads_its_own_rows_and_the_keys_up_to_it(world: World, count: int) -> None:
    every = stock(world, "acme", "image2video", count)
    stock(world, "umbrella", "image2video", count)
    stock(world, "acme", "text2video", 100)
    assert world.table.get(every[0]).created_at == START + count - 1
    last = min(count // 30, 999) + 1
    for number, size in {(1, 5), (2, 5), (1, 30), (last, 30), (min(count // 500, 20) + 1, 500)}:
        before = (number - 1) * size
        with counted(world) as seen:
            found = world.table.page("acme", "image2video", before, size)
        assert [task.id for task in found] == every[before : before + size]
        assert seen == {"rows": len(found), "keys": min(before + size, count)}
