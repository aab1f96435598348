"""Test the reads of the table: a task as written, a tenant's own tasks, pages and queues."""

from dataclasses import replace
from typing import Any

import pytest
from kling_relay.tasks import idempotency
from kling_relay.tasks.table import TaskTable
from kling_relay.tasks.task import Failure, Phase

from tests.support.stack_in_memory import START
from tests.support.table_fixtures import new_task, record_task


def test_a_row_is_read_as_it_was_written(table: TaskTable) -> None:
    lists = {"outputs": [{"id": "1"}], "videos": [{"id": "2"}]}
    given = new_task(phase=Phase.FAILED, failure=Failure.CONTENT, source={"key": "inbox/a.json"}, **lists)
    idempotency.record(table, given, body_hash="h")
    read = table.get(given.id)
    assert read is not None and replace(read, notices=()) == given
    assert (type(read.phase), type(read.failure)) == (Phase, Failure)


def test_find_is_the_tenants_own_only(table: TaskTable) -> None:
    ours = record_task(table, external_task_id="order-1")
    assert table.find("acme", ours.id) == table.find("acme", "order-1") == ours
    assert table.find("umbrella", ours.id) is None and table.find("umbrella", "order-1") is None
    assert table.find("acme", "x" * 5000) is None
    theirs = record_task(table, tenant="umbrella", external_task_id=ours.id)
    assert table.find("umbrella", ours.id) == theirs


def test_a_pointer_that_leads_to_somebody_elses_task_finds_nothing(table: TaskTable) -> None:
    """None does: but all isolation hangs on this place."""
    theirs = record_task(table, tenant="umbrella")
    assert table.rows.update_if("external#acme#x", "SET #task_id = :id", "attribute_not_exists(#pk)", id=theirs.id)
    assert table.find("acme", "x") is None


def test_a_reference_is_as_long_as_the_schema_allows(table: TaskTable) -> None:
    longest = "x" * 256
    ours = record_task(table, external_task_id=longest)
    record_task(table, external_task_id=longest + "x")
    assert table.find("acme", longest) == ours and table.find("acme", longest + "x") is None


def test_a_page_counts_what_it_skips_and_reads_what_it_shows(table: TaskTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index answers in parts of its own size: here one key each."""
    tasks = [record_task(table, created_at=START + age) for age in range(6)]
    record_task(table, created_at=START, tenant="umbrella")
    client, asked = table.rows.client, list[dict[str, Any]]()
    query = client.query

    def in_parts(**options: Any) -> Any:
        asked.append(options)
        return query(**{**options, "Limit": 1})

    monkeypatch.setattr(client, "query", in_parts)
    assert table.page("acme", "image2video", 2, 2) == [tasks[3], tasks[2]]
    assert [(one.get("Select"), one["Limit"]) for one in asked] == [("COUNT", 2), ("COUNT", 1), (None, 2), (None, 1)]
    assert {one["ScanIndexForward"] for one in asked} == {False}
    assert table.page("acme", "image2video", 4, 9) == [tasks[1], tasks[0]]
    assert table.page("acme", "image2video", 9, 2) == []


def test_tasks_are_read_in_the_order_of_their_ids(table: TaskTable) -> None:
    first, second = record_task(table), record_task(table)
    assert table.read([second.id, "gone", first.id]) == [second, first]


def test_queues(table: TaskTable) -> None:
    late, later = record_task(table, due_at=START + 2), record_task(table, due_at=START + 1)
    record_task(table, due_at=START + 1000)
    assert table.queue.due(START + 2, 10) == [later.id, late.id]
    assert table.queue.due(START + 2, 1) == [later.id]
    table.move(late, None, queue="waiting", updated_at=START)
    assert table.queue.due(START + 2, 10) == [later.id]
    assert table.queue.waiting(10) == [(late.id, "acme")]
    assert table.queue.waiting(10, START + 2) == [(late.id, "acme")] and table.queue.waiting(10, START + 3) == []
    assert (
        table.queue.waiting_at_random(10, START) == [(late.id, "acme")]
        and table.queue.waiting_at_random(10, START + 3) == []
    )
    assert list(table.queue.late(START + 1)) == [[]] and list(table.queue.late(START + 2)) == [[late.id]]
    table.take_over(late, f"{late.id}-r1", START + 50)
    assert table.queue.waiting(10) == []
