"""Every condition of the table's writes, and what becomes of a write whose answer is lost on its way back."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from kling_relay import recording, rows
from kling_relay.gate import Gate
from kling_relay.keys import KeyRow, Keys
from kling_relay.rows import LostRace
from kling_relay.table import TaskTable
from kling_relay.task import CLOSED, ENDED, MOVES, Phase, Task

from tests.unit.tables import Failing, fresh, recorded
from tests.unit.world import START, Cloud, World, client_error


def in_phase(table: TaskTable, phase: Phase) -> Task:
    return recorded(table, phase=phase)


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
        with pytest.raises(LostRace):
            table.move(task, to, updated_at=START + 5)
        assert table.get(task.id) == task


def test_a_claimer_of_an_earlier_attempt_writes_nothing(table: TaskTable) -> None:
    claimed = table.move(recorded(table), Phase.SUBMITTING, attempt=1, updated_at=START)
    back = table.move(claimed, Phase.ACCEPTED, updated_at=START)
    second = table.move(back, Phase.SUBMITTING, attempt=2, updated_at=START)
    for late in (
        lambda: table.move(claimed, Phase.FAILED, updated_at=START),
        lambda: table.move(claimed, None, denials=9, updated_at=START),
        lambda: table.adopt(claimed, Phase.SUBMITTED, "kling", "up-1", updated_at=START),
    ):
        with pytest.raises(LostRace):
            late()
    assert table.get(second.id) == second
    assert table.owner("kling", "up-1") is None


def test_a_move_that_tells_something_counts_its_notice(table: TaskTable) -> None:
    task, counted = recorded(table), []
    for to in (Phase.SUBMITTING, Phase.SUBMITTED, Phase.PROCESSING, None, Phase.RENDERED, Phase.SUCCEEDED):
        moved = table.move(task, to, updated_at=START)
        counted.append((len(moved.notices) - len(task.notices), moved.notice_seq - task.notice_seq))
        task = moved
    assert counted == [(1, 1), (0, 0), (1, 1), (0, 0), (0, 0), (1, 1)]


def test_two_claimers_one_claim(table: TaskTable) -> None:
    task = recorded(table)
    table.move(task, Phase.SUBMITTING, attempt=1, updated_at=START)
    with pytest.raises(LostRace):
        table.move(task, Phase.SUBMITTING, attempt=1, updated_at=START)


def test_the_lost_answer_to_our_own_move_is_success(table: TaskTable, lose_answers: Callable[[str], None]) -> None:
    task = recorded(table)
    lose_answers("UpdateItem")
    claimed = table.move(task, Phase.SUBMITTING, attempt=1, updated_at=START + 1)
    assert claimed == table.get(task.id) and claimed.phase is Phase.SUBMITTING


def test_the_lost_answer_to_our_own_take_over_is_success(table: TaskTable, lose_answers: Callable[[str], None]) -> None:
    task = recorded(table)
    lose_answers("UpdateItem")
    assert table.take_over(task, f"{task.id}-r1", START + 9).execution == f"{task.id}-r1"


def test_the_lost_answer_to_our_own_adoption_is_success(table: TaskTable, lose_answers: Callable[[str], None]) -> None:
    task = in_phase(table, Phase.SUBMITTING)
    lose_answers("TransactWriteItems")
    adopted = table.adopt(task, Phase.SUBMITTED, "kling", "up-1", updated_at=START)
    assert adopted.upstream_id == "up-1" and table.owner("kling", "up-1") == task.id


def test_the_lost_answer_to_a_new_key_is_success(world: World, lose_answers: Callable[[str], None]) -> None:
    keys, key = world.relay.keys, KeyRow("k", "acme", "hash", "k1", START)
    lose_answers("TransactWriteItems")
    keys.put(key)
    assert keys.get("k") == key and keys.of("acme") == [key]
    with pytest.raises(Exception, match="ConditionalCheckFailed"):
        keys.put(replace(key, tenant="other"))
    assert keys.get("k") == key and keys.of("other") == []


def test_a_write_beside_a_transaction_is_repeated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows.time, "sleep", lambda _: None)
    busy = [client_error("TransactionConflictException") for _ in range(3)]
    table = TaskTable(Failing(world.cloud.dynamodb, "update_item", busy), world.table.rows.name)
    task = recording.record(table, fresh(), body_hash="h")
    assert table.move(task, Phase.SUBMITTING, attempt=1, updated_at=START).phase is Phase.SUBMITTING
    assert not busy


def test_find_is_the_tenants_own_only(table: TaskTable) -> None:
    ours = recorded(table, external_task_id="order-1")
    assert table.find("acme", ours.id) == table.find("acme", "order-1") == ours
    assert table.find("umbrella", ours.id) is None and table.find("umbrella", "order-1") is None
    assert table.find("acme", "x" * 5000) is None
    theirs = recorded(table, tenant="umbrella", external_task_id=ours.id)
    assert table.find("umbrella", ours.id) == theirs


def test_an_upstream_task_has_one_owner(table: TaskTable) -> None:
    first, second = in_phase(table, Phase.SUBMITTING), in_phase(table, Phase.SUBMITTING)
    table.adopt(first, Phase.SUBMITTED, "kling", "up-1", updated_at=START)
    with pytest.raises(LostRace):
        table.adopt(second, Phase.SUBMITTED, "kling", "up-1", updated_at=START)
    assert table.get(second.id) == second
    assert table.owner("kling", "up-1") == first.id


def test_callbacks_pass_once_in_a_gap_and_the_rest_brings_due_at_forward(table: TaskTable) -> None:
    task = recorded(table, due_at=START + 60_000)
    assert table.pass_callback(task, START, 5000)
    assert not table.pass_callback(task, START + 4999, 5000)
    after = table.get(task.id)
    assert after is not None and after.due_at == START + 9999 and after.wake_seq == 1
    assert not table.pass_callback(task, START + 4999, 5000)
    assert table.get(task.id) == after, "it comes nearer once, not at every callback"
    assert table.pass_callback(task, START + 5000, 5000)


def test_a_callback_revives_no_ended_and_makes_no_new_row(table: TaskTable) -> None:
    task = table.move(recorded(table), Phase.FAILED, updated_at=START)
    table.pass_callback(task, START, 5000)
    assert not table.pass_callback(task, START, 5000)
    ended = table.get(task.id)
    assert ended is not None and ended.due_at is None
    assert not table.pass_callback(fresh(), START, 5000)
    assert len(table.rows.client.scan(TableName=table.rows.name)["Items"]) == 1


def test_take_over_needs_an_open_row_and_the_execution_that_was_read(table: TaskTable) -> None:
    task = recorded(table)
    taken = table.take_over(task, f"{task.id}-r1", START + 9)
    assert (taken.execution, taken.due_at) == (f"{task.id}-r1", START + 9)
    with pytest.raises(LostRace):
        table.take_over(task, f"{task.id}-r1b", START + 9)
    ended = table.move(taken, Phase.FAILED, updated_at=START)
    with pytest.raises(LostRace):
        table.take_over(ended, f"{task.id}-r2", START + 9)


def test_queues(table: TaskTable) -> None:
    late, later = recorded(table, due_at=START + 2), recorded(table, due_at=START + 1)
    recorded(table, due_at=START + 1000)
    assert table.due(START + 2, 10) == [later.id, late.id]
    assert table.due(START + 2, 1) == [later.id]
    table.move(late, None, queue="waiting", updated_at=START)
    assert table.due(START + 2, 10) == [later.id]
    assert table.waiting(10) == [(late.id, "acme")]
    assert table.waiting_since(START + 1, 10) == [] and table.waiting_since(START + 2, 10) == [late.id]
    table.take_over(late, f"{late.id}-r1", START + 50)
    assert table.waiting(10) == []


def test_gate(world: World) -> None:
    gates = world.relay.gates
    assert gates.get("kling") == Gate()
    gates.open("kling", Gate())
    assert gates.get("kling") == Gate()
    gates.close("kling", Gate(), not_before=1000, reason="full")
    closed = gates.get("kling")
    assert closed == Gate(1000, 0, "full", crowded=1)
    gates.close("kling", closed, not_before=900, reason="shorter")
    assert gates.get("kling") == closed
    for failures in (1, 2):
        gates.close("kling", gates.get("kling"), not_before=1000 + failures, reason="poor", cause="account")
        assert gates.get("kling") == Gate(1000 + failures, failures, "poor", cause="account", crowded=1)
    gates.close("kling", gates.get("kling"), not_before=2000, reason="longer")
    gates.open("kling", closed)
    assert gates.get("kling") == Gate(2000, 0, "longer", crowded=1), "closed anew since it was read"
    gates.doubt("kling", 2500)
    assert gates.get("kling").not_before == 2000, "that pause says already that nobody knows of room"
    gates.give_turn("kling", "acme")
    gates.open("kling", gates.get("kling"), crowded=True)
    assert gates.get("kling") == Gate(0, 0, "longer", crowded=1, turn="acme")
    gates.open("kling", gates.get("kling"))
    assert gates.get("kling") == Gate(0, 0, "longer", turn="acme")
    gates.doubt("kling", 2500)
    assert gates.get("kling") == Gate(2500, 0, "longer", crowded=1, turn="acme")
    gates.give_turn("other", "acme")
    assert gates.get("other") == Gate()


def test_odd_texts_can_be_stored(table: TaskTable) -> None:
    task = table.move(recorded(table), Phase.FAILED, reason="broken \ud800 text", updated_at=START)
    assert task.reason == "broken ? text"


def test_other_errors_of_aws_pass_through(cloud: Cloud) -> None:
    table = TaskTable(cloud.dynamodb, "no-such-table")
    for call in (
        lambda: recording.record(table, fresh(), body_hash="h"),
        lambda: table.move(fresh(), None, updated_at=START),
        lambda: table.adopt(fresh(phase=Phase.SUBMITTING), Phase.SUBMITTED, "kling", "u", updated_at=START),
        lambda: table.pass_callback(fresh(), START, 1),
        lambda: Keys(table.rows).put(KeyRow("k", "acme", "hash", "k1", START)),
    ):
        with pytest.raises(Exception, match="ResourceNotFound"):
            call()
