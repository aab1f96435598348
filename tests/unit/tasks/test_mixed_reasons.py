"""Test a transaction that DynamoDB cancels for several reasons at once: a failed condition in it proves nothing.

The other transaction may change the row, so the condition may hold a moment later. One reason for each part is from a
document (TransactWriteItems). That a condition and a conflict come in one answer is a guess.
"""

from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError
from kling_relay import dynamodb
from kling_relay.errors import KlingError
from kling_relay.tasks import idempotency
from kling_relay.tasks.table import TaskTable
from kling_relay.tasks.task import Phase, Task

from tests.support.stack_in_memory import START, World, client_error
from tests.support.table_fixtures import FailingClient, new_task, record_task

IN_MEMORY = True
FAILED = "ConditionalCheckFailed"
TRANSIENT = ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"]
MOST = 8  # tries of one write


def adopt(table: TaskTable, task: Task) -> Task:
    return table.adopt(task, Phase.SUBMITTED, "kling", "up-1", updated_at=START)


def settle(table: TaskTable, task: Task) -> Task:
    """A move that corrects the tenant's month in the same transaction."""
    return table.move(task, Phase.FAILED, units="1.4", updated_at=START)


def record(table: TaskTable, task: Task) -> Task:
    return idempotency.record(table, new_task(external_task_id="order-1"), body_hash="h")


Write = Callable[[TaskTable, Task], Task]


@pytest.fixture
def task(world: World, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(dynamodb.time, "sleep", lambda _: None)
    return record_task(world.table, phase=Phase.SUBMITTING, reserved=1500, spend_month="2026-09")


def cancelled(world: World, times: int, *reasons: str) -> tuple[TaskTable, list[ClientError]]:
    """The table as DynamoDB answers `times` transactions, and the answers that are left."""
    given = [{"Code": code} for code in reasons]
    answers = [client_error("TransactionCanceledException", CancellationReasons=given) for _ in range(times)]
    return TaskTable(FailingClient(world.dynamodb, "transact_write_items", answers), world.table.rows.name), answers


@pytest.mark.parametrize("write", [adopt, settle, record])
@pytest.mark.parametrize("other", TRANSIENT)
@pytest.mark.parametrize("first", [True, False])
def test_it_is_repeated(world: World, task: Task, write: Write, other: str, first: bool) -> None:
    table, answers = cancelled(world, MOST - 1, *([FAILED, other] if first else [other, FAILED]))
    done = write(table, task)
    assert answers == [] and done == world.table.get(done.id)
    assert (done.upstream_id, done.settled, done.external_task_id) == {
        adopt: ("up-1", None, None),
        settle: (None, 1400, None),
        record: (None, None, "order-1"),
    }[write]


@pytest.mark.parametrize("write", [adopt, settle])
@pytest.mark.parametrize(("other", "times"), [*((code, MOST) for code in TRANSIENT), ("ValidationError", 1)])
def test_in_the_end_it_is_an_error_and_no_lost_race(
    world: World, task: Task, write: Write, other: str, times: int
) -> None:
    table, answers = cancelled(world, times, FAILED, other)
    with pytest.raises(ClientError, match="TransactionCanceledException"):
        write(table, task)
    assert answers == [] and world.table.get(task.id) == task


@pytest.mark.parametrize("other", TRANSIENT)
def test_a_record_that_never_gets_through_is_no_duplicate(world: World, task: Task, other: str) -> None:
    """Not even where the same request made a task before: its pointer is not read."""
    before = record(world.table, task)
    table, answers = cancelled(world, MOST, "None", FAILED, other)
    with pytest.raises(KlingError) as refused:
        record(table, task)
    assert (refused.value.http, refused.value.code, answers) == (429, 1302, [])
    assert record(world.table, task) == before, "asked again, it is found"


def test_a_record_that_fails_for_another_reason_is_no_duplicate(world: World, task: Task) -> None:
    record(world.table, task)
    table, answers = cancelled(world, 1, "None", FAILED, "ValidationError")
    with pytest.raises(ClientError, match="TransactionCanceledException"):
        record(table, task)
    assert answers == []
