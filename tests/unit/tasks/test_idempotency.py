"""Test a new task and its pointers: one transaction, with a lost answer or concurrent writes of the same rows."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from kling_relay import dynamodb
from kling_relay.dynamodb import plain
from kling_relay.errors import KlingError
from kling_relay.tasks import idempotency, notification
from kling_relay.tasks.table import TaskTable
from kling_relay.tasks.task import Phase, Task
from kling_relay.tasks.task_row import new_item

from tests.support.stack_in_memory import START, World, client_error
from tests.support.table_fixtures import FailingClient, new_task, record_task

DAY = 86_400


def test_the_lost_answer_to_our_own_record_is_success(table: TaskTable, drop_response: Callable[[str], None]) -> None:
    for idempotency_key in (None, "key-1"):
        task = new_task(external_task_id=None)
        drop_response("TransactWriteItems")
        assert idempotency.record(table, task, body_hash="h", idempotency_key=idempotency_key) == task


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError"])
def test_two_transactions_at_once_are_repeated(world: World, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    reasons = [{"Code": "None"}, {"Code": code}]
    busy = [client_error("TransactionCanceledException", CancellationReasons=reasons) for _ in range(3)]
    pauses: list[float] = []
    monkeypatch.setattr(dynamodb.time, "sleep", pauses.append)
    table = TaskTable(FailingClient(world.cloud.dynamodb, "transact_write_items", busy), world.table.rows.name)
    task = new_task(external_task_id="double-click")
    assert idempotency.record(table, task, body_hash="h") == task
    assert len(pauses) == 3


def test_a_record_that_never_gets_through_is_too_many_requests(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(dynamodb.time, "sleep", pauses.append)
    reasons = [{"Code": "TransactionConflict"}]

    class Busy:
        calls = 0

        def transact_write_items(self, **_: Any) -> Any:
            self.calls += 1
            raise client_error("TransactionCanceledException", CancellationReasons=reasons)

        def get_item(self, **_: Any) -> Any:
            return {}

    busy = Busy()
    with pytest.raises(KlingError) as refused:
        idempotency.record(TaskTable(busy, "t"), new_task(), body_hash="h")
    assert (refused.value.http, refused.value.code, refused.value.retry_after) == (429, 1302, 1)
    assert busy.calls == 8 and len(set(pauses)) == 7, "jitter: those that met once do not meet again"
    assert sum(pauses) < 4, "a client waits for this"


def test_a_new_row_lies_in_every_index(table: TaskTable) -> None:
    told = notification.new((), "submitted", START, webhook=False)
    task = record_task(table, notices=(told,), created_at=999)
    row = {name: plain(stored) for name, stored in (table.rows.get(f"task#{task.id}") or {}).items()}
    assert (row["queue"], row["due_at"], row["standing"]) == ("open", START + 1, "open")
    assert (row["owner"], row["birth"]) == ("acme#image2video", f"0000000000999#{task.id}")
    assert (row["notify"], row["notify_at"], row[told.attribute]) == ("due", START, told.text())
    assert table.get(task.id) == task


@pytest.mark.parametrize("pointer", ["external", "idempotency", "both"])
def test_a_repeated_request_finds_its_task(table: TaskTable, pointer: str) -> None:
    external = None if pointer == "idempotency" else "order-1"
    key = None if pointer == "external" else "key-1"
    first = idempotency.record(table, new_task(external_task_id=external), body_hash="h", idempotency_key=key)
    assert (
        idempotency.record(table, new_task(external_task_id=external), body_hash="h", idempotency_key=key).id
        == first.id
    )
    named = "Idempotency-Key" if external is None else "external_task_id"
    with pytest.raises(KlingError, match=f"{named}: must be unique .* another request body"):
        idempotency.record(table, new_task(external_task_id=external), body_hash="other", idempotency_key=key)
    other = idempotency.record(
        table, new_task("umbrella", external_task_id=external), body_hash="other", idempotency_key=key
    )
    assert other.id != first.id and other.tenant == "umbrella"


def test_a_name_that_is_free_does_not_hide_one_that_is_taken(table: TaskTable) -> None:
    first = idempotency.record(table, new_task(), body_hash="h", idempotency_key="key-1")
    assert idempotency.earlier(table, "acme", "order-1", "key-1", "h") == first
    with pytest.raises(KlingError, match="Idempotency-Key: must be unique"):
        idempotency.record(table, new_task(external_task_id="order-1"), body_hash="other", idempotency_key="key-1")


def test_a_refused_repetition_leaves_nothing(table: TaskTable) -> None:
    record_task(table, external_task_id="order-1")
    refused = new_task(external_task_id="order-1")
    with pytest.raises(KlingError):
        idempotency.record(table, refused, body_hash="other", idempotency_key="key-9")
    assert table.get(refused.id) is None
    assert table.rows.get("idempotency#acme#key-9") is None


def test_a_value_of_a_removed_task_stays_taken(table: TaskTable) -> None:
    task = record_task(table, external_task_id="order-1")
    table.rows.client.delete_item(TableName=table.rows.name, Key={"pk": {"S": f"task#{task.id}"}})
    with pytest.raises(KlingError, match=r"external_task_id: .* removed task") as refused:
        record_task(table, external_task_id="order-1")
    assert refused.value.code == 1201


def test_pointers_are_removed_but_not_before_their_task(table: TaskTable) -> None:
    task = idempotency.record(table, new_task(external_task_id="o"), body_hash="h", idempotency_key="k")
    submitted = table.adopt(
        table.move(task, Phase.SUBMITTING, updated_at=START), Phase.SUBMITTED, "kling", "up", updated_at=START
    )
    last_end = START + 30 * DAY * 1000
    table.move(submitted, Phase.FAILED, updated_at=last_end)
    ends = int((table.rows.get(f"task#{task.id}") or {})["expires_at"]["N"])
    assert ends == last_end // 1000 + 400 * DAY
    for pk in ("external#acme#o", "idempotency#acme#k", "upstream#kling#up"):
        assert ends < int((table.rows.get(pk) or {})["expires_at"]["N"]) < ends + 40 * DAY


def test_a_pointer_that_is_removed_meanwhile_is_in_nobodys_way(world: World) -> None:
    """DynamoDB ends rows when it likes: also between the write that met one and the look at it."""
    met = [client_error("TransactionCanceledException", CancellationReasons=[{"Code": "ConditionalCheckFailed"}])]
    table = TaskTable(FailingClient(world.cloud.dynamodb, "transact_write_items", met), world.table.rows.name)
    task = new_task(external_task_id="order-1")
    assert idempotency.record(table, task, body_hash="h") == task == table.find("acme", "order-1")


class Silent:
    """A table that does not answer its transactions: `outcomes` one a call, an exception or None for one that is done.
    Time passes with every call."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, *outcomes: Exception | None) -> None:
        self.real, self.world = world.table.rows.client.transact_write_items, world
        self.left, self.tokens = list(outcomes), list[str]()
        monkeypatch.setattr(world.table.rows, "client", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world.dynamodb, name)

    def transact_write_items(self, **options: Any) -> Any:
        self.tokens.append(options["ClientRequestToken"])
        outcome = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if outcome is None:
            return self.real(**options)
        raise outcome


def recorded_with(world: World, task: Task) -> Task:
    return idempotency.record(world.table, task, body_hash="h", clock=world.clock)


TIMED_OUT = ReadTimeoutError(endpoint_url="https://dynamodb.example")


def test_the_same_transaction_is_repeated_until_it_is_answered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Silent(world, monkeypatch, TIMED_OUT, client_error("InternalServerError"), None)
    task, began = new_task(), world.clock.now
    assert recorded_with(world, task) == world.task(task.id)
    assert len(silent.tokens) == 3 and len(set(silent.tokens)) == 1 and silent.tokens[0].endswith("-0")
    assert world.clock.now - began == 500, "a quarter of a second before each"
    assert world.measured["Accepted"] == 1


def test_a_row_that_is_there_is_the_answer_and_is_counted_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    task = new_task()
    item = new_item(task)
    world.dynamodb.put_item(TableName=world.table.rows.name, Item=item)
    silent = Silent(world, monkeypatch, TIMED_OUT)
    assert recorded_with(world, task) == world.task(task.id)
    assert len(silent.tokens) == 1 and world.measured["Accepted"] == 1


def test_a_conflict_after_our_own_write_is_answered_with_the_row(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamodb.time, "sleep", lambda seconds: None)
    task = new_task()
    world.dynamodb.put_item(TableName=world.table.rows.name, Item=new_item(task))
    reasons = [{"Code": "TransactionConflict"}]
    Silent(world, monkeypatch, client_error("TransactionCanceledException", CancellationReasons=reasons))
    assert recorded_with(world, task).id == task.id


@pytest.mark.parametrize(
    "code",
    [
        *("TransactionCanceledException", "ValidationException", "AccessDeniedException"),
        *("ResourceNotFoundException", "UnrecognizedClientException"),
    ],
)
def test_a_request_that_is_at_fault_is_not_repeated(world: World, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    silent = Silent(world, monkeypatch, client_error(code))
    with pytest.raises(ClientError, match=code):
        recorded_with(world, new_task())
    assert len(silent.tokens) == 1


def test_after_twenty_seconds_the_client_gets_the_id(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    silent, began = Silent(world, monkeypatch, TIMED_OUT), world.clock.now
    task = new_task()
    with pytest.raises(KlingError) as unknown:
        recorded_with(world, task)
    assert (unknown.value.http, unknown.value.code, unknown.value.retry_after) == (500, 5000, None)
    assert unknown.value.message == (
        f"task {task.id} may have been recorded and may be sent; "
        f"GET .../image2video/{task.id} before you send the request again"
    )
    assert world.clock.now - began == 20_000 and len(silent.tokens) == 81
