"""Test the shared writes: our own write is recognised, and a throttled table gets retries."""

from typing import Any

import pytest
from kling_relay import dynamodb as module
from kling_relay.dynamodb import ConflictError, Rows, conflicted, new_token, plain

from tests.support.stack_in_memory import World, client_error

BUSY = ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"]


class Busy:
    """A client that refuses the first `times` calls for the reason `code`, and remembers how it was asked."""

    def __init__(self, code: str, times: int) -> None:
        self.code, self.times, self.asked = code, times, list[dict[str, Any]]()

    def transact_write_items(self, **options: Any) -> dict[str, Any]:
        self.asked.append(options)
        if len(self.asked) <= self.times:
            reasons = [{"Code": "None"}, {"Code": self.code}]
            raise client_error("TransactionCanceledException", CancellationReasons=reasons)
        return {}

    def batch_get_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(RequestItems)
        left = RequestItems if len(self.asked) <= self.times else {}
        return {"Responses": {}, "UnprocessedKeys": left}


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the code would have slept at the most."""
    pauses: list[float] = []
    monkeypatch.setattr(module.random, "uniform", lambda minimum, maximum: minimum + maximum)
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    return pauses


def test_our_own_write_is_known_again(world: World) -> None:
    """The SDK repeats a write whose answer was lost: its condition fails on what the first one wrote."""
    rows = world.table.rows
    rows.update_if("x#1", "SET #state = :old", "attribute_not_exists(#pk)", old="old")
    ours = rows.expression(
        "x#1", "SET #state = :new, #write = :write", "#state = :old", old="old", new="new", write="w1"
    )
    first = rows.update(ours)
    assert (first["state"], first["write"]) == ({"S": "new"}, {"S": "w1"})
    assert rows.update(ours) == first
    others = {**ours, "ExpressionAttributeValues": {**ours["ExpressionAttributeValues"], ":write": {"S": "w2"}}}
    with pytest.raises(ConflictError):
        rows.update(others)
    with pytest.raises(ConflictError):
        rows.update({**ours, "Key": {"pk": {"S": "x#2"}}})
    assert new_token() != new_token() and len(new_token()) == 32


@pytest.mark.parametrize("code", BUSY)
def test_a_busy_row_is_tried_again_for_three_seconds(code: str, slept: list[float]) -> None:
    client = Busy(code, 7)
    Rows(client, "t").transact([{"Put": {}}], "token")
    assert slept == [0.05, 0.1, 0.2, 0.4, 0.8, 0.8, 0.8]
    assert client.asked == [{"TransactItems": [{"Put": {}}], "ClientRequestToken": "token"}] * 8
    slept.clear()
    with pytest.raises(Exception, match="TransactionCanceledException") as caught:
        Rows(Busy(code, 8), "t").transact([{"Put": {}}], "token")
    assert conflicted(caught.value) and len(slept) == 7  # type: ignore[arg-type]


def test_a_condition_that_failed_is_not_tried_again(slept: list[float]) -> None:
    client = Busy("ConditionalCheckFailed", 1)
    with pytest.raises(Exception, match="TransactionCanceledException"):
        Rows(client, "t").transact([{"Put": {}}], "token")
    assert len(client.asked) == 1 and slept == []


def test_keys_that_were_left_are_asked_for_again(slept: list[float]) -> None:
    client = Busy("", 5)
    assert Rows(client, "t").get_all(["a"]) == {}
    assert slept == [0.05, 0.1, 0.2, 0.4, 0.8]
    assert client.asked == [{"t": {"Keys": [{"pk": {"S": "a"}}], "ConsistentRead": True}}] * 6
    with pytest.raises(RuntimeError, match="1 rows could not be read"):
        Rows(Busy("", 6), "t").get_all(["a"])


def test_a_hundred_keys_a_request(slept: list[float]) -> None:
    client = Busy("", 0)
    Rows(client, "t").get_all([str(number) for number in range(201)])
    assert [len(asked["t"]["Keys"]) for asked in client.asked] == [100, 100, 1]


def test_only_what_is_asked_for(world: World) -> None:
    task = world.create()
    (row,) = world.table.rows.get_all([f"task#{task.id}", "task#none"], only=("pk", "phase")).values()
    assert {name: plain(stored) for name, stored in row.items()} == {"pk": f"task#{task.id}", "phase": "submitted"}


def test_attributes_are_named_by_placeholders(slept: list[float]) -> None:
    """DynamoDB takes no word of its own, such as `status`, and no placeholder without a `#`: moto takes both."""
    client = Busy("", 0)
    Rows(client, "t").get_all(["a"], only=("pk", "status"))
    (asked,) = client.asked
    assert asked["t"]["ProjectionExpression"] == "#pk, #status"
    assert asked["t"]["ExpressionAttributeNames"] == {"#pk": "pk", "#status": "status"}


def test_a_row_is_read_as_it_is_now(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    client, name = world.table.rows.client, world.table.rows.name
    monkeypatch.setattr(client, "get_item", lambda **options: (asked.append(options), {})[1])
    assert Rows(client, name).get("x") is None
    assert asked == [{"TableName": name, "Key": {"pk": {"S": "x"}}, "ConsistentRead": True}]


def test_numbers_texts_and_what_is_missing(world: World) -> None:
    rows = world.table.rows
    assert rows.get("x#3") is None
    assert rows.update_if("x#3", "SET #n = :n, #t = :t", "attribute_not_exists(#pk)", n=-5, t="5")
    assert not rows.update_if("x#3", "SET #n = :n", "attribute_not_exists(#pk)", n=6)
    assert rows.get("x#3") == {"pk": {"S": "x#3"}, "n": {"N": "-5"}, "t": {"S": "5"}}
    assert rows.update_if("x#3", "REMOVE #t", "attribute_exists(#t)"), "an expression without values"
    assert rows.get("x#3") == {"pk": {"S": "x#3"}, "n": {"N": "-5"}}
