"""Test the DynamoDB in memory against moto: the same calls get the same answers and leave the same table."""

import random
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from kling_relay.dynamodb import ConflictError
from kling_relay.operations.reconcile_rows import TaskRows
from kling_relay.tasks.queries import Ended

from tests.reliability.campaign import LONG, Campaign
from tests.reliability.life import PROFILES, Life, Story
from tests.support import dynamodb_expressions
from tests.support.counted_effects import DEATHS, LOST
from tests.support.dynamodb_indexes import Lag
from tests.support.fake_cloud import MemoryCloud
from tests.support.fake_dynamodb import FakeDynamoDB
from tests.support.stack_in_memory import BODY, START, Cloud, World


class Both:
    """A client that calls two, and insists that they agree."""

    def __init__(self, memory: FakeDynamoDB, moto: Any) -> None:
        self.memory, self.moto = memory, moto
        self.history = memory.history
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        def call(**options: Any) -> Any:
            self.calls += 1
            ours, theirs = _answer(self.memory, name, options), _answer(self.moto, name, options)
            assert ours == theirs, f"{name} {options}"
            if isinstance(ours, ClientError):
                raise ours
            return ours

        return call


def _answer(client: Any, name: str, options: dict[str, Any]) -> Any:
    try:
        answer = getattr(client, name)(**options)
    except ClientError as exc:
        return ProviderRejectedError(exc.response, exc.operation_name)
    known = ("Item", "Items", "Attributes", "Count", "LastEvaluatedKey", "Responses")
    return {key: _in_order(answer[key]) for key in known if key in answer}


def _in_order(given: Any) -> Any:
    return sorted(given, key=lambda item: item["pk"]["S"]) if isinstance(given, list) else given


class ProviderRejectedError(ClientError):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProviderRejectedError) and self.told == other.told

    @property
    def told(self) -> Any:
        reasons = [reason["Code"] for reason in self.response.get("CancellationReasons", [])]
        return self.response["Error"]["Code"], reasons, self.response.get("Item")


@pytest.fixture
def both(cloud: Cloud) -> Both:
    return Both(FakeDynamoDB(), cloud.dynamodb)


# The short form tries every third one: moto takes most of the time.
@pytest.mark.parametrize("profile", [name for place, name in enumerate(PROFILES) if place % 3 == 0 or LONG])
def test_whole_lives(campaign: Campaign, both: Both, profile: str) -> None:
    def live(dice: random.Random) -> None:
        story = replace(Story.drawn(dice), lag=None)  # moto's indexes have none
        life = Life(PROFILES[profile], story, in_memory(both))
        # Not a lost answer of a transaction: moto does it twice, whatever its token.
        life.effects.plan[dice.randint(1, 15)] = dice.choice((*DEATHS, LOST[-1]))
        life.live().check()
        assert both.scan(TableName=life.world.table.rows.name, ConsistentRead=True)["Items"]

    for _ in range(campaign.size(1, 10)):
        campaign.live("drawn", live)
    assert both.calls > 20


def in_memory(both: Both) -> MemoryCloud:
    cloud = MemoryCloud()
    cloud.dynamodb = both  # type: ignore[assignment]
    return cloud


def test_lists_pointers_and_removals(both: Both) -> None:
    world = World(in_memory(both))
    for order in range(5):
        world.clock.tick(1)
        world.create({**BODY, "external_task_id": f"order-{order}"})
    first = world.create({**BODY, "external_task_id": "order-0"})
    assert len(world.tasks()) == 5
    assert world.post({**BODY, "prompt": "another", "external_task_id": "order-0"})[0] == 400
    for skip, size in ((0, 2), (1, 3), (3, 9), (7, 2)):
        assert len(world.table.page("acme", "image2video", skip, size)) == max(0, min(size, 5 - skip))
    world.run(600)
    assert world.table.mark_deleted(world.task(first.id), world.clock.now).deleted_at is not None
    assert world.table.scrub(first).request == {}
    with pytest.raises(ConflictError):
        world.table.scrub(world.create({**BODY, "external_task_id": "order-6"}))


def test_caps_and_months(both: Both) -> None:
    world = World(in_memory(both), monthly_cap_units=3)
    for cap in (4500, 4500, 3000, None, None):
        world.services.spending.set_cap("acme", cap)
    statuses = [world.post()[0] for _ in range(3)]
    assert statuses == [200, 200, 429]
    world.run(600)
    assert world.services.spending.committed("acme", "2026-09") == 3000


def test_tallies_of_lines(both: Both) -> None:
    """Sets of numbers, and conditions on how large they are."""
    batch_counts = World(in_memory(both)).services.batch_counts
    batch_counts.begin("t", lines=30, last=600, expires_at=1)
    for line in (*range(1, 25), 3, 600):
        batch_counts.tell("t", line, "rejected", f"reason {line}")
        batch_counts.tell("t", line, "accepted" if line % 2 else "failed")
    batch_counts.handed_out("t", 1)
    told = batch_counts.read("t")
    assert told is not None and batch_counts.begin("t", lines=30, last=600, expires_at=1)
    assert (told.accepted, told.rejected, told.failed, len(told.reasons)) == (12, 13, 13, 11)


def test_ends_within_a_window(both: Both) -> None:
    world = World(in_memory(both))
    for _ in range(4):
        world.create()
        world.run(600)
    both.put_item(TableName=world.table.rows.name, Item={"pk": {"S": "other"}, "end": {"S": "succeed"}})
    ended = Ended(world.table.rows)
    assert len(ended.newest("succeed", START, world.clock.now, 3)) == 3
    assert 0 < ended.count("succeed", START + 600_000, START + 1_800_000)[0] < 4
    assert ended.spent(START, world.clock.now).tasks == {"acme": 4}


def test_ids_of_a_window(both: Both) -> None:
    """A scan of an index, with a filter, and some columns of the rows."""
    world = World(in_memory(both))
    for _ in range(4):
        world.create()
        world.run(600)
    both.put_item(TableName=world.table.rows.name, Item={"pk": {"S": "other"}})
    books = TaskRows(world.table.rows, "kling")
    ids = [task_id for part in books.created_since(START + 600_000) for task_id in part]
    assert books.rows(ids).keys() == set(ids) and not books.unreadable
    assert sorted(ids) == sorted(task.id for task in world.tasks() if task.created_at >= START + 600_000)
    assert 0 < len(ids) < 4


@pytest.mark.parametrize(("pk", "queue"), [("", "q"), ("k" * 2049, "q"), ("k", ""), ("k", "q" * 410_000)])
def test_keys_that_are_empty_and_what_is_too_large_are_refused(pk: str, queue: str) -> None:
    """As DynamoDB does, and moto not always."""
    world = World(MemoryCloud())
    with pytest.raises(ClientError, match="ValidationException"):
        world.dynamodb.update_item(
            TableName=world.table.rows.name,
            Key={"pk": {"S": pk}},
            UpdateExpression="SET #queue = :queue",
            ExpressionAttributeNames={"#queue": "queue"},
            ExpressionAttributeValues={":queue": {"S": queue}},
        )


def test_words_that_the_relay_does_not_use_are_refused() -> None:
    for text in ("contains(#a, :b)", "#a.#b = :c"):
        with pytest.raises(AssertionError):
            dynamodb_expressions.condition(text)


def test_a_transaction_is_done_once_whoever_repeats_it() -> None:
    """As DynamoDB does within ten minutes, and moto does not."""
    memory = MemoryCloud()
    world = World(memory)
    table = world.table.rows.name
    add = {
        "TableName": table,
        "Key": {"pk": {"S": "sum"}},
        "UpdateExpression": "ADD #n :one",
        "ExpressionAttributeNames": {"#n": "n"},
        "ExpressionAttributeValues": {":one": {"N": "1"}},
    }
    for _ in range(2):
        memory.dynamodb.transact_write_items(TransactItems=[{"Update": add}], ClientRequestToken="t")
    assert memory.dynamodb.get_item(TableName=table, Key=add["Key"], ConsistentRead=True)["Item"]["n"] == {"N": "1"}
    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        memory.dynamodb.transact_write_items(TransactItems=[], ClientRequestToken="t")


def test_an_index_that_lags_shows_what_was_and_a_row_what_is() -> None:
    """No write is seen before the one before it of the same row; after the longest lag all are seen."""
    world = World(MemoryCloud())
    tasks = [world.create() for _ in range(40)]
    assert len(world.table.queue.due(world.clock.now + 10**9, 100)) == 40, "without lag"
    world.dynamodb.lag = Lag(lambda: world.clock.now, random.Random(1))
    for due in (2, 3):
        for task in tasks:
            world.table.move(world.task(task.id), None, due_at=START + due, updated_at=START)
    for _ in range(4):
        now = len(world.table.queue.due(START + 3, 100))
        assert {world.task(task.id).due_at for task in tasks} == {START + 3}
        assert 0 < now < 40 and len(world.table.queue.due(START + 2, 100)) > 0
        world.clock.tick(5)
    world.clock.tick(10)
    assert (len(world.table.queue.due(START + 3, 100)), world.table.queue.due(START + 2, 100)) == (40, [])
