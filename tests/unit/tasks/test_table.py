"""Test every condition of the table's writes, and the result of a write whose answer is lost."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from kling_relay import dynamodb
from kling_relay.dynamodb import ConflictError
from kling_relay.security.api_keys import KeyRow, Keys
from kling_relay.tasks import idempotency
from kling_relay.tasks.table import TaskTable
from kling_relay.tasks.task import CLOSED, ENDED, MOVES, Phase, Task

from tests.support.stack_in_memory import START, Cloud, World, client_error
from tests.support.table_fixtures import FailingClient, new_task, record_task


def in_phase(table: TaskTable, phase: Phase) -> Task:
    return record_task(table, phase=phase)


@pytest.mark.parametrize("to", Phase)
@pytest.mark.parametrize("at", Phase)
def test_only_allowed_moves_are_written(table: TaskTable, at: Phase, to: Phase) -> None:
    task = in_phase(table, at)
    if at in MOVES[to]:
        moved = table.move(task, to, updated_at=START + 5)
        assert moved == table.get(task.id) and moved.phase is to and moved.updated_at == START + 5
        assert (moved.due_at is None) == (to in ENDED)
        assert moved.wake_seq == (1 if to is Phase.RENDERED or to in CLOSED else 0)
    else:
        with pytest.raises(ValueError, match=f"{to} may not follow {at}"):
            table.move(task, to, updated_at=START + 5)
        assert table.get(task.id) == task


def test_a_claimer_of_an_earlier_attempt_writes_nothing(table: TaskTable) -> None:
    claimed = table.move(record_task(table), Phase.SUBMITTING, attempt=1, updated_at=START)
    back = table.move(claimed, Phase.ACCEPTED, updated_at=START)
    second = table.move(back, Phase.SUBMITTING, attempt=2, updated_at=START)
    for late in (
        lambda: table.move(claimed, Phase.FAILED, updated_at=START),
        lambda: table.move(claimed, None, denials=9, updated_at=START),
        lambda: table.adopt(claimed, Phase.SUBMITTED, "kling", "up-1", updated_at=START),
    ):
        with pytest.raises(ConflictError):
            late()
    assert table.get(second.id) == second
    assert table.owner("kling", "up-1") is None


def test_a_move_that_tells_something_counts_its_notice(table: TaskTable) -> None:
    task, counted = record_task(table), []
    for to in (Phase.SUBMITTING, Phase.SUBMITTED, Phase.PROCESSING, None, Phase.RENDERED, Phase.SUCCEEDED):
        moved = table.move(task, to, updated_at=START)
        counted.append((len(moved.notices) - len(task.notices), moved.notice_seq - task.notice_seq))
        task = moved
    assert counted == [(1, 1), (0, 0), (1, 1), (0, 0), (0, 0), (1, 1)]


def test_a_stale_reader_does_not_tell_over_what_was_told_meanwhile(table: TaskTable) -> None:
    """Its move is an allowed one, and its attempt the last: only the place of its notice is taken."""
    stale = in_phase(table, Phase.SUBMITTED)
    table.move(stale, Phase.PROCESSING, updated_at=START)
    with pytest.raises(ConflictError):
        table.move(stale, Phase.FAILED, updated_at=START)
    after = table.get(stale.id)
    assert after is not None and after.notices[-1].status == "processing"


def test_the_indexes_know_where_a_task_stands(table: TaskTable) -> None:
    task, ended = record_task(table), f"{START + 5:013}"
    for to, changes, expected in (
        (Phase.SUBMITTING, {}, ("open", "open", None, None)),
        (Phase.UNCONFIRMED, {}, ("open", "open", None, None)),
        (None, {"parked_at": START}, ("open", "parked", None, None)),
        (Phase.ACCEPTED, {}, ("open", "open", None, None)),
        (Phase.SUBMITTING, {}, ("open", "open", None, None)),
        (None, {"parked_at": START}, ("open", "parked", None, None)),
        (Phase.SUBMITTED, {}, ("open", "open", None, None)),
        (Phase.EXPIRED, {}, ("open", None, "failed", f"{ended}#{task.id}")),
        (Phase.RENDERED, {}, ("open", None, None, None)),
        (Phase.SUCCEEDED, {}, (None, None, "succeed", f"{ended}#{task.id}")),
    ):
        task = table.move(task, to, updated_at=START + 5, **changes)
        row = table.rows.get(f"task#{task.id}") or {}
        known = (row.get(name) for name in ("queue", "standing", "end", "ended"))
        assert tuple(one and dynamodb.plain(one) for one in known) == expected, to
        assert task.parked_at == changes.get("parked_at")


def test_attributes_are_named_by_placeholders(table: TaskTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """DynamoDB refuses a bare word that is one of its own, such as `end`."""
    update, texts = table.rows.update, list[str]()
    monkeypatch.setattr(table.rows, "update", lambda one: (texts.append(one["UpdateExpression"]), update(one))[1])
    table.move(record_task(table, phase=Phase.EXPIRED), Phase.RENDERED, updated_at=START)
    assert re.findall(r"(?<![#:\w])[A-Za-z]\w*", texts[0]) == ["SET", "REMOVE", "ADD"]


def test_nobody_comes_back_to_a_task_that_is_not_due_any_more(table: TaskTable) -> None:
    watched = record_task(table, phase=Phase.EXPIRED, lease_until=1, waits_for="a late video")
    over = table.move(watched, None, due_at=None, updated_at=START)
    kept_until = START // 1000 + 400 * 86_400
    assert over == replace(watched, due_at=None, lease_until=None, waits_for="", expires_at=kept_until)
    assert "queue" not in (table.rows.get(f"task#{over.id}") or {})


def test_a_copy_that_is_hurried_need_not_wait_and_wakes_who_sleeps(table: TaskTable) -> None:
    task = record_task(table, phase=Phase.RENDERED, retry_at=START + 9, wake_seq=3)
    assert table.retry_copy_now(task) == table.get(task.id) == replace(task, retry_at=None, wake_seq=4)
    with pytest.raises(ConflictError):
        table.retry_copy_now(record_task(table, phase=Phase.EXPIRED))


def test_two_claimers_one_claim(table: TaskTable) -> None:
    task = record_task(table)
    table.move(task, Phase.SUBMITTING, attempt=1, updated_at=START)
    with pytest.raises(ConflictError):
        table.move(task, Phase.SUBMITTING, attempt=1, updated_at=START)


def test_the_lost_answer_to_our_own_move_is_success(table: TaskTable, drop_response: Callable[[str], None]) -> None:
    task = record_task(table)
    drop_response("UpdateItem")
    claimed = table.move(task, Phase.SUBMITTING, attempt=1, updated_at=START + 1)
    assert claimed == table.get(task.id) and claimed.phase is Phase.SUBMITTING


def test_the_lost_answer_to_our_own_take_over_is_success(
    table: TaskTable, drop_response: Callable[[str], None]
) -> None:
    task = record_task(table)
    drop_response("UpdateItem")
    assert table.take_over(task, f"{task.id}-r1", START + 9).execution == f"{task.id}-r1"


def test_the_lost_answer_to_our_own_adoption_is_success(table: TaskTable, drop_response: Callable[[str], None]) -> None:
    task = in_phase(table, Phase.SUBMITTING)
    drop_response("TransactWriteItems")
    adopted = table.adopt(task, Phase.SUBMITTED, "kling", "up-1", updated_at=START)
    assert adopted.upstream_id == "up-1" and table.owner("kling", "up-1") == task.id


def test_the_lost_answer_to_a_new_key_is_success(world: World, drop_response: Callable[[str], None]) -> None:
    keys, key = world.services.keys, KeyRow("k", "acme", "hash", "k1", START)
    drop_response("TransactWriteItems")
    keys.put(key)
    assert keys.get("k") == key and keys.of("acme") == [key]
    with pytest.raises(Exception, match="ConditionalCheckFailed"):
        keys.put(replace(key, tenant="other"))
    assert keys.get("k") == key and keys.of("other") == []


def test_a_write_beside_a_transaction_is_repeated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamodb.time, "sleep", lambda _: None)
    busy = [client_error("TransactionConflictException") for _ in range(3)]
    table = TaskTable(FailingClient(world.cloud.dynamodb, "update_item", busy), world.table.rows.name)
    task = idempotency.record(table, new_task(), body_hash="h")
    assert table.move(task, Phase.SUBMITTING, attempt=1, updated_at=START).phase is Phase.SUBMITTING
    assert not busy


def test_who_hears_of_moves_hears_what_the_write_has_changed(table: TaskTable) -> None:
    heard: list[tuple[Task | None, Task]] = []
    table.on_move = lambda before, after: heard.append((before, after))
    task = in_phase(table, Phase.SUBMITTING)
    adopted = table.adopt(task, Phase.SUBMITTED, "kling", "up-1", updated_at=START + 5)
    moved = table.move(adopted, None, waits_for="a copy", updated_at=START + 6)
    assert heard == [
        (None, task),
        (task, replace(task, phase=Phase.SUBMITTED, upstream_id="up-1", updated_at=START + 5)),
        (adopted, replace(adopted, waits_for="a copy", updated_at=START + 6)),
    ]
    assert moved.phase is Phase.SUBMITTED


def test_an_adoption_is_won_although_somebody_moved_the_row_on_since(
    table: TaskTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, transact = in_phase(table, Phase.SUBMITTING), table.rows.transact

    def then_taken_over(items: list[dict[str, Any]], token: str) -> None:
        transact(items, token)
        table.take_over(task, "a later one", START + 9)

    monkeypatch.setattr(table.rows, "transact", then_taken_over)
    adopted = table.adopt(task, Phase.SUBMITTED, "kling", "up-1", updated_at=START)
    assert (adopted.upstream_id, adopted.execution) == ("up-1", "a later one")


def test_an_adoption_that_was_repeated_is_ours_and_one_that_failed_is_no_lost_race(
    table: TaskTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, transact = in_phase(table, Phase.SUBMITTING), table.rows.transact
    reasons = [{"Code": "ConditionalCheckFailed"}, {"Code": "None"}]

    def repeated(items: list[dict[str, Any]], token: str) -> None:
        transact(items, token)
        raise client_error("TransactionCanceledException", CancellationReasons=reasons)

    def broken(items: list[dict[str, Any]], token: str) -> None:
        raise client_error("InternalServerError")

    monkeypatch.setattr(table.rows, "transact", repeated)
    adopted = table.adopt(task, Phase.SUBMITTED, "kling", "up-1", updated_at=START)
    assert adopted.upstream_id == "up-1"
    monkeypatch.setattr(table.rows, "transact", broken)
    with pytest.raises(Exception, match="InternalServerError"):
        table.adopt(adopted, None, "kling", "up-1", updated_at=START)


def test_an_upstream_task_has_one_owner(table: TaskTable) -> None:
    first, second = in_phase(table, Phase.SUBMITTING), in_phase(table, Phase.SUBMITTING)
    table.adopt(first, Phase.SUBMITTED, "kling", "up-1", updated_at=START)
    with pytest.raises(ConflictError):
        table.adopt(second, Phase.SUBMITTED, "kling", "up-1", updated_at=START)
    assert table.get(second.id) == second
    assert table.owner("kling", "up-1") == first.id


def test_callbacks_pass_once_in_a_gap_and_the_rest_brings_due_at_forward(table: TaskTable) -> None:
    task = record_task(table, due_at=START + 60_000)
    assert table.claim_callback_slot(task, START, 5000)
    assert not table.claim_callback_slot(task, START + 4999, 5000)
    after = table.get(task.id)
    assert after is not None and after.due_at == START + 9999 and after.wake_seq == 1
    assert not table.claim_callback_slot(task, START + 4999, 5000)
    assert table.get(task.id) == after, "it comes nearer once, not at every callback"
    assert table.claim_callback_slot(task, START + 5000, 5000)


def test_a_callback_right_after_another_costs_no_write(table: TaskTable, monkeypatch: pytest.MonkeyPatch) -> None:
    task = record_task(table)
    for at in (START, START + 5000):
        assert table.claim_callback_slot(task, at, 5000)
        task = table.get(task.id) or task
    monkeypatch.setattr(table.rows, "update_if", lambda *_, **__: pytest.fail("a write"))
    assert not table.claim_callback_slot(task, START + 9999, 5000, urgent=False)


def test_a_callback_revives_no_ended_and_makes_no_new_row(table: TaskTable) -> None:
    task = table.move(record_task(table), Phase.FAILED, updated_at=START)
    table.claim_callback_slot(task, START, 5000)
    assert not table.claim_callback_slot(task, START, 5000)
    ended = table.get(task.id)
    assert ended is not None and ended.due_at is None
    assert not table.claim_callback_slot(new_task(), START, 5000)
    assert len(table.rows.client.scan(TableName=table.rows.name)["Items"]) == 1


def test_take_over_needs_an_open_row_and_the_execution_that_was_read(table: TaskTable) -> None:
    task = record_task(table)
    taken = table.take_over(task, f"{task.id}-r1", START + 9)
    assert (taken.execution, taken.due_at) == (f"{task.id}-r1", START + 9)
    with pytest.raises(ConflictError):
        table.take_over(task, f"{task.id}-r1b", START + 9)
    ended = table.move(taken, Phase.FAILED, updated_at=START)
    with pytest.raises(ConflictError):
        table.take_over(ended, f"{task.id}-r2", START + 9)


@pytest.mark.parametrize("at", sorted(CLOSED))
def test_a_deleted_task_has_ended_and_is_watched_no_more(table: TaskTable, at: Phase) -> None:
    task = record_task(table, phase=at)
    for since in (replace(task, attempt=1), replace(task, phase=Phase.RENDERED)):
        with pytest.raises(ConflictError):
            table.mark_deleted(since, START + 7)
    deleted = table.mark_deleted(task, START + 7)
    end = Phase.FAILED if at is Phase.EXPIRED else at
    kept_until = START // 1000 + 400 * 86_400
    assert deleted == replace(task, phase=end, deleted_at=START + 7, due_at=None, expires_at=kept_until)
    assert deleted == table.get(task.id) and table.queue.due(START + 9, 10) == []
    assert table.mark_deleted(deleted, START + 86_400_000).expires_at == kept_until


def test_a_deleted_task_may_stay_due_for_what_is_left_of_it(table: TaskTable) -> None:
    deleted = table.mark_deleted(record_task(table, phase=Phase.EXPIRED), START + 7, START + 8)
    assert (deleted.phase, deleted.due_at) == (Phase.FAILED, START + 8) and table.get(deleted.id) == deleted
    assert (table.queue.due(START + 7, 10), table.queue.due(START + 8, 10)) == ([], [deleted.id])


def test_a_scrubbed_row_keeps_its_frame(table: TaskTable) -> None:
    said = {"outputs": [{"id": "1"}], "callback_url": "https://client.example", "waits_for": "its copy"}
    task = record_task(table, phase=Phase.SUCCEEDED, reason="why", videos=[{"id": "1"}], task_token="token", **said)
    with pytest.raises(ConflictError):
        table.scrub(task)
    deleted = table.mark_deleted(task, START + 7)
    gone = {"request": {}, "outputs": [], "videos": [], "callback_url": None, "task_token": None, "waits_for": ""}
    assert table.scrub(deleted) == table.get(task.id) == replace(deleted, **gone)


def test_what_points_to_a_task_is_kept_for_its_longest_life_and_its_retention(table: TaskTable) -> None:
    assert table.ttl_after(START + 999) == {"expires_at": {"N": str(START // 1000 + (31 + 400) * 86_400)}}


def test_odd_texts_can_be_stored(table: TaskTable) -> None:
    task = table.move(record_task(table), Phase.FAILED, reason="broken \ud800 text", updated_at=START)
    assert task.reason == "broken ? text"


def test_other_errors_of_aws_pass_through(cloud: Cloud) -> None:
    table = TaskTable(cloud.dynamodb, "no-such-table")
    for call in (
        lambda: idempotency.record(table, new_task(), body_hash="h"),
        lambda: table.move(new_task(), None, updated_at=START),
        lambda: table.adopt(new_task(phase=Phase.SUBMITTING), Phase.SUBMITTED, "kling", "u", updated_at=START),
        lambda: table.claim_callback_slot(new_task(), START, 1),
        lambda: Keys(table.rows).put(KeyRow("k", "acme", "hash", "k1", START)),
    ):
        with pytest.raises(Exception, match="ResourceNotFound"):
            call()


def test_a_row_that_is_opened_again_does_not_expire(table: TaskTable) -> None:
    """The watch of an expired task was over, and the adoption of the same task arrives late."""
    task = table.move(record_task(table), Phase.EXPIRED, due_at=START + 9, queue="open", updated_at=START)
    over = table.move(task, None, due_at=None, updated_at=START)
    assert over.expires_at is not None
    assert table.move(over, None, due_at=START + 9, queue="open", updated_at=START).expires_at is None
