"""Test that a refusal does not use up the client's external id or Idempotency-Key: the corrected body is a new task."""

import re
from dataclasses import replace
from typing import Any

import pytest
from kling_relay.errors import KlingError
from kling_relay.tasks import idempotency
from kling_relay.tasks.table import TaskTable
from kling_relay.tasks.task import Phase, Task

from tests.support.stack_in_memory import BODY, START, Cloud, World, client_error
from tests.support.table_fixtures import before_a_write, new_task

IN_MEMORY = True
WAYS = ["external", "header", "both"]
MUST = "must be unique (got a value used with another request body)"


def ask(world: World, way: str, prompt: str = "first", **more: Any) -> tuple[int, dict[str, Any]]:
    body = {**BODY, "prompt": prompt, **more}
    headers = {}
    if way != "header":
        body["external_task_id"] = "order-1"
    if way != "external":
        headers["Idempotency-Key"] = "key-1"
    return world.post(body, **headers)


def refused(world: World, way: str) -> Task:
    world.provider.submit_faults = ["refused"]
    status, answer = ask(world, way)
    assert (status, answer["code"], answer["message"]) == (400, 1201, "prompt: too rude")
    (task,) = world.tasks()
    return task


@pytest.mark.parametrize("way", WAYS)
def test_the_same_body_is_refused_in_the_same_words_and_not_sent_again(world: World, way: str) -> None:
    refused(world, way)
    world.clock.tick(3600)
    for _ in range(2):
        status, answer = ask(world, way)
        assert (status, answer["code"], answer["message"]) == (400, 1201, "prompt: too rude")
        assert "data" not in answer
    assert len(world.tasks()) == 1 == len(world.provider.posts)


@pytest.mark.parametrize("way", WAYS)
def test_a_corrected_body_is_a_new_task_and_keeps_what_it_took(world: World, way: str) -> None:
    first = refused(world, way)
    status, answer = ask(world, way, "corrected")
    assert status == 200 and answer["data"]["task_id"] != first.id
    task = world.task(answer["data"]["task_id"])
    assert task.phase is Phase.SUBMITTED and len(world.provider.posts) == 2
    assert ask(world, way, "corrected")[1]["data"]["task_id"] == task.id
    for prompt in ("first", "third"):
        status, answer = ask(world, way, prompt)
        assert (status, answer["code"]) == (400, 1201) and MUST in answer["message"]
    assert world.task(first.id) == first, "the refused one stays on record"
    if way != "header":
        found = world.http("GET", "/v1/videos/image2video/order-1", authorization=world.key())[1]
        assert found["data"]["task_id"] == task.id
    assert len(world.tasks()) == 2 == len(world.provider.posts)


def test_a_client_may_be_refused_often(world: World) -> None:
    for prompt in ("one", "two", "three"):
        world.provider.submit_faults = ["refused"]
        assert ask(world, "both", prompt)[0] == 400
    assert ask(world, "both", "four")[0] == 200
    assert len(world.tasks()) == 4 == len(world.provider.posts)


def test_refused_after_a_wait_for_room(world: World) -> None:
    """The client has its 200 long since: repeated, it learns what became of the task."""
    world.provider.submit_faults = ["no_room", "refused"]
    assert ask(world, "both")[0] == 200
    world.run(300)
    (task,) = world.tasks()
    assert task.phase is Phase.FAILED
    assert ask(world, "both")[:1] == (400,) and ask(world, "both", "corrected")[0] == 200


def test_two_handlers_of_one_request_both_tell_the_refusal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one comes while the first has the POST under way, and loses the claim."""
    world.provider.submit_faults = ["refused"]
    prepare, answers = world.provider.prepare, []

    def meanwhile(refresh: bool) -> None:
        monkeypatch.setattr(world.provider, "prepare", prepare)
        answers.append(ask(world, "both"))

    monkeypatch.setattr(world.provider, "prepare", meanwhile)
    answers.append(ask(world, "both"))
    assert [(status, answer["message"]) for status, answer in answers] == [(400, "prompt: too rude")] * 2
    assert len(world.provider.posts) == 1


def test_never_sent_within_the_deadline(cloud: Cloud) -> None:
    """No refusal: the client got an id and gets it again. Nothing was paid, so another body may take its place."""
    world = World(cloud, deadline_seconds=100)
    world.provider.submit_faults = ["not_sent"] * 100
    _, answer = ask(world, "both")
    task = world.until_closed(answer["data"]["task_id"])
    assert task.phase is Phase.FAILED and task.attempt and task.upstream_id is None
    status, again = ask(world, "both")
    assert (status, again["data"]["task_id"], again["data"]["task_status"]) == (200, task.id, "failed")
    world.provider.submit_faults = []
    status, corrected = ask(world, "both", "corrected")
    assert status == 200 and corrected["data"]["task_id"] != task.id


@pytest.mark.parametrize("end", ["running", "succeed", "failed"])
def test_what_was_accepted_keeps_its_values(world: World, end: str) -> None:
    world.provider.end = end if end != "running" else "succeed"
    _, answer = ask(world, "both")
    if end != "running":
        world.until_closed(answer["data"]["task_id"])
    for way in WAYS:
        status, refusal = ask(world, way, "another")
        assert (status, refusal["code"]) == (400, 1201) and MUST in refusal["message"]
    assert ask(world, "both")[1]["data"]["task_id"] == answer["data"]["task_id"]
    assert len(world.provider.posts) == 1


def test_what_may_have_been_accepted_keeps_its_values(cloud: Cloud) -> None:
    """Failed by the operator's policy, or refused at a second POST: the first one may still be billed."""
    world = World(cloud, on_unconfirmed="fail")
    world.provider.submit_faults = ["dropped"]
    _, answer = ask(world, "both")
    task = world.until_closed(answer["data"]["task_id"])
    assert task.phase is Phase.FAILED and task.upstream_id is None and not task.cost_nothing
    assert ask(world, "both", "another")[0] == 400
    assert ask(world, "both")[1]["data"]["task_id"] == task.id


def test_a_refusal_is_the_tenants_own(world: World) -> None:
    refused(world, "both")
    body = {**BODY, "prompt": "first", "external_task_id": "order-1"}
    assert world.post(body, tenant="umbrella", **{"Idempotency-Key": "key-1"})[0] == 200


# -- races, at the table


def failed(table: TaskTable, **fields: Any) -> Task:
    task = idempotency.record(
        table, new_task(external_task_id="order-1", **fields), body_hash="h", idempotency_key="key-1"
    )
    return table.move(task, Phase.FAILED, reason="no", refusal_code=1201, updated_at=START)


def corrected(table: TaskTable, body_hash: str, key: str | None = "key-1") -> Task:
    return idempotency.record(table, new_task(external_task_id="order-1"), body_hash=body_hash, idempotency_key=key)


def test_two_corrected_bodies_at_once_one_wins(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    failed(world.table)
    won: list[Task] = []
    before_a_write(world.table, monkeypatch, lambda: won.append(corrected(world.table, "h-other")), number=2)
    with pytest.raises(KlingError, match=re.escape(MUST)):
        corrected(world.table, "h-corrected")
    assert {task.id for task in world.tasks() if task.phase is Phase.ACCEPTED} == {won[0].id}
    assert world.table.find("acme", "order-1") == won[0]


def test_the_same_corrected_body_twice_at_once_is_one_task(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    failed(world.table)
    won: list[Task] = []
    before_a_write(world.table, monkeypatch, lambda: won.append(corrected(world.table, "h-corrected")), number=2)
    assert corrected(world.table, "h-corrected") == won[0] and len(world.tasks()) == 2


def test_the_winner_is_refused_too_before_the_other_looks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    failed(world.table)

    def other() -> None:
        world.table.move(corrected(world.table, "h-other"), Phase.FAILED, refusal_code=1201, updated_at=START)

    before_a_write(world.table, monkeypatch, other, number=2)
    task = corrected(world.table, "h-corrected")
    assert world.table.find("acme", "order-1") == task


def test_values_that_are_never_left_alone_end_in_try_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first, rows = failed(world.table), world.table.rows
    real, turns = rows.transact, iter(range(100))

    def transact(items: list[dict[str, Any]], token: str) -> None:
        if items[0]["Put"]["Item"]["pk"]["S"].startswith("task#"):
            elsewhere = replace(first, id=f"other-{next(turns)}")
            real([rows.put_new({"pk": {"S": f"task#{elsewhere.id}"}, **_without_pk(world, first)})], elsewhere.id)
            rows.client.update_item(
                TableName=rows.name,
                Key={"pk": {"S": "external#acme#order-1"}},
                UpdateExpression="SET task_id = :id",
                ExpressionAttributeValues={":id": {"S": elsewhere.id}},
            )
        real(items, token)

    monkeypatch.setattr(rows, "transact", transact)
    with pytest.raises(KlingError) as busy:
        corrected(world.table, "h-corrected")
    assert (busy.value.http, busy.value.retry_after) == (503, 1)
    assert next(turns) == 4, "tries"


def _without_pk(world: World, task: Task) -> dict[str, Any]:
    return {name: stored for name, stored in world.row(f"task#{task.id}").items() if name != "pk"}


def test_only_one_of_two_values_belongs_to_a_failed_task(world: World) -> None:
    """The external id could be taken, the key not: nothing is written at all."""
    first = failed(world.table)
    idempotency.record(world.table, new_task(), body_hash="h-9", idempotency_key="key-9")
    before = len(world.tasks())
    with pytest.raises(KlingError, match="Idempotency-Key"):
        corrected(world.table, "h-corrected", "key-9")
    assert len(world.tasks()) == before and world.table.find("acme", "order-1") == first
    assert corrected(world.table, "h-corrected", "key-new").id != first.id


def test_the_lost_answer_to_our_own_replacement_is_success(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even after the ten minutes for which DynamoDB knows the request's own token."""
    failed(world.table)
    real, turns = world.table.rows.transact, []

    def transact(items: list[dict[str, Any]], token: str) -> None:
        turns.append(token)
        real(items, token)
        if len(turns) == 2:
            real(items, f"{token}-repeated")

    monkeypatch.setattr(world.table.rows, "transact", transact)
    task = corrected(world.table, "h-corrected")
    assert world.table.find("acme", "order-1") == task and len(set(turns)) == len(turns)
    assert all(len(token) <= 36 for token in turns), "as long as DynamoDB takes"


def test_trouble_while_recording_is_not_taken_for_a_repetition(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where an earlier task of the same values could be answered: nothing is known of this write."""
    first = idempotency.record(world.table, new_task(external_task_id="order-1"), body_hash="h")

    def broken(items: Any, token: str) -> None:
        raise client_error("InternalServerError")

    monkeypatch.setattr(world.table.rows, "transact", broken)
    second = new_task(external_task_id="order-1")
    with pytest.raises(KlingError) as unknown:
        idempotency.record(world.table, second, body_hash="h", clock=world.clock)
    assert (unknown.value.http, unknown.value.code, unknown.value.retry_after) == (500, 5000, None)
    assert second.id in unknown.value.message
    assert world.task(first.id) == first
