"""Test the provider's webhook: it wakes, its content is not trusted, it neither sends nor claims, and none is lost."""

import json
from dataclasses import replace
from typing import Any

import pytest
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.callback import on_callback
from kling_relay.lifecycle.polling import CALLED_BACK
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.provider.profiles import Account
from kling_relay.security import callback_tokens
from kling_relay.security.stored_secrets import Cached
from kling_relay.tasks.task import Phase, Task

from tests.support.counted_effects import Crash
from tests.support.fake_provider import Sold
from tests.support.stack_in_memory import BASE_URL, START, Cloud, World

IN_MEMORY = True


def test_a_callback_wakes_the_workflow_at_once(world: World) -> None:
    task = world.create()
    world.states.run()
    world.clock.tick(61)
    assert world.callback(task, {"task_id": "up-1", "task_status": "succeed"}) == 200
    world.states.run()
    assert world.task(task.id).phase is Phase.SUCCEEDED
    assert world.provider.queries == ["up-1"], "the workflow got the answer and did not ask again"


def slept(world: World) -> float:
    """For how many seconds the workflow of a new task begins to sleep."""
    task = world.create()
    world.states.run()
    return (world.states.executions[task.execution].wakes - world.clock.now) / 1000


def test_where_callbacks_come_a_task_is_asked_after_when_nearly_all_have_ended(world: World) -> None:
    p5 = slept(world)
    (first,) = world.tasks()
    world.clock.tick(61)
    world.callback(first, {"task_status": "succeed"})
    world.states.run()
    assert world.task(first.id).phase is Phase.SUCCEEDED
    assert slept(world) == CALLED_BACK * p5
    world.services._base_url = Cached(lambda: "http://127.0.0.1:8080")  # where nobody can call
    assert slept(world) == p5
    world.services._base_url = Cached(lambda: BASE_URL)
    world.run(CALLED_BACK * p5 + 60)  # the ends of both are found by polls: no callback came
    assert {task.phase for task in world.tasks()} == {Phase.SUCCEEDED}
    assert slept(world) == p5


@pytest.mark.parametrize("body", [{"task_status": "succeed"}, {"task_status": "failed"}, {"task_id": "up-2"}, [], None])
def test_a_lying_body_changes_nothing(world: World, body: Any) -> None:
    task = world.create()
    world.clock.tick(10)
    assert world.callback(task, body) == 200
    assert world.task(task.id).phase is Phase.PROCESSING


def decisions(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What callbacks were good for, as the log has it."""
    return [getattr(one, "decision", "") for one in caplog.records if one.message == "callback_received"]


def test_a_callback_before_the_post_is_good_for_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.provider.submit_faults = ["no_room"]
    world.callback(world.create())
    assert decisions(caplog) == ["ignore"] and world.provider.queries == []


@pytest.mark.parametrize(("early", "asks"), [(1, 0), (0, 1)])
def test_a_sender_is_left_alone_as_long_as_its_lease_runs(
    world: World, caplog: pytest.LogCaptureFixture, early: int, asks: int
) -> None:
    world.key()
    world.effects.after(3, "dies after")  # record, claim, POST
    with pytest.raises(Crash):
        world.post()
    (task,) = world.tasks()
    assert task.phase is Phase.SUBMITTING and task.lease_until is not None
    world.clock.now = task.lease_until - early
    world.callback(task)
    assert decisions(caplog) == ["query" if asks else "ignore"]
    assert len(world.provider.queries) == 2 * asks  # by our reference, then by the id that was found
    assert (world.task(task.id).phase is Phase.SUBMITTING) is not bool(asks)


def test_a_callback_before_the_workflow_sleeps_is_not_slept_over(world: World) -> None:
    """The step has been decided, the token is not stored yet: the condition on wake_seq sends it back."""
    task = world.create()
    world.clock.tick(61)
    world.callback(task)
    assert world.task(task.id).phase is Phase.RENDERED
    world.states.run()
    assert world.task(task.id).phase is Phase.SUCCEEDED


def test_a_callback_inside_the_gap_before_the_workflow_sleeps_is_not_slept_over(world: World) -> None:
    task = world.create()
    world.clock.tick(58)
    world.callback(task)
    world.clock.tick(3)
    asked = len(world.provider.queries)
    world.callback(task)
    assert len(world.provider.queries) == asked, "at most one query in five seconds"
    world.states.run()
    assert world.task(task.id).phase is Phase.SUCCEEDED


def test_a_callback_inside_the_gap_while_the_workflow_sleeps_brings_the_sweeper(world: World) -> None:
    task = world.create()
    world.states.run()
    world.clock.tick(58)
    world.callback(task)
    world.clock.tick(3)
    world.callback(task)
    assert world.task(task.id).due_at == world.clock.now + 5000
    world.clock.tick(5)
    assert world.sweep()["overdue"] == 1
    world.states.run()
    assert world.task(task.id).phase is Phase.SUCCEEDED


def test_the_usual_notices_at_the_start_do_not_disturb_the_sleeping_workflow(world: World) -> None:
    """Kling tells of submitted and processing within a second: one question, and nothing for the sweeper to replace."""
    task = world.create()
    world.states.run()
    due_at = world.task(task.id).due_at
    world.clock.tick(1)
    for status in ("submitted", "processing", "submitted", "processing", "processing"):
        world.clock.tick(0.5)
        assert world.callback(task, {"task_id": "up-1", "task_status": status}) == 200
    assert world.provider.queries == ["up-1"]
    assert world.task(task.id).phase is Phase.PROCESSING and world.task(task.id).due_at == due_at
    world.clock.tick(61)
    assert world.callback(task, {"task_id": "up-1", "task_status": "succeed"}) == 200
    assert world.sweep()["overdue"] == 0
    world.states.run()
    assert world.task(task.id).phase is Phase.SUCCEEDED


def test_a_flood_of_callbacks_asks_once_in_five_seconds(world: World) -> None:
    world.provider.seconds = 3600
    task = world.create()
    for _ in range(60):
        world.clock.tick(0.5)
        world.callback(task)
    assert len(world.provider.queries) <= 30 / 5 + 1


def test_before_our_own_write_the_sender_goes_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider calls back before its answer to the POST has been written down."""
    real = world.provider.submit

    def early(*args: Any, **options: Any) -> Any:
        outcome = real(*args, **options)
        (task,) = world.tasks()
        assert world.callback(task, {"task_id": "up-1"}) == 200
        assert world.task(task.id) == replace(task, hints="up-1"), "what the callback named is kept, and no more"
        return outcome

    monkeypatch.setattr(world.provider, "submit", early)
    task = world.create()
    assert task.phase is Phase.SUBMITTED and world.provider.queries == []


@pytest.mark.parametrize("lease", ["running", "over"])
def test_a_callback_neither_claims_nor_sends(cloud: Cloud, lease: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the task has become sendable between its two looks at the row."""
    world = World(cloud, on_unconfirmed="retry")
    world.provider.submit_faults = ["dropped"]
    task = world.create()
    assert task.phase is Phase.UNCONFIRMED
    real = world.table.claim_callback_slot

    def meanwhile(*args: Any, **options: Any) -> bool:
        world.table.move(world.task(task.id), Phase.ACCEPTED, retry_at=None, updated_at=world.clock.now)
        return real(*args, **options)

    monkeypatch.setattr(world.table, "claim_callback_slot", meanwhile)
    world.clock.tick(200 if lease == "over" else 1)
    assert world.callback(task) == 200
    after = world.task(task.id)
    assert after.phase is Phase.ACCEPTED and after.attempt == 1 and len(world.provider.posts) == 1


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED])
def test_after_the_end_it_has_no_effect(world: World, phase: Phase) -> None:
    world.provider.end = "succeed" if phase is Phase.SUCCEEDED else "failed"
    task = world.until_closed(world.create().id)
    assert task.phase is phase
    row, asked = world.row(f"task#{task.id}"), len(world.provider.queries)
    assert world.callback(task, {"task_id": "up-1"}) == 200
    assert world.row(f"task#{task.id}") == row and len(world.provider.queries) == asked


def test_it_brings_a_late_video_of_an_expired_task(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=600)
    world.provider.seconds = 2000
    task = world.until_closed(world.create().id)
    assert task.phase is Phase.EXPIRED
    world.run(1500)
    world.callback(task)
    world.run(180)
    assert world.task(task.id).phase is Phase.SUCCEEDED


# -- adoption by the id that a callback names


def parked(world: World) -> Task:
    world.provider.submit_faults = ["lost"]
    task = world.create()
    world.clock.tick(10)
    assert task.phase is Phase.UNCONFIRMED
    return task


def blind(cloud: Cloud, **profile: bool) -> World:
    return World(cloud, profile={"ask_by_reference": False, "hides_reference": True, **profile})


@pytest.mark.parametrize("hides", [True, False])
def test_adopted_by_hint(cloud: Cloud, hides: bool) -> None:
    world = blind(cloud, hides_reference=hides)
    task = parked(world)
    world.callback(task, {"task_id": "up-1"})
    assert world.task(task.id).upstream_id == "up-1"
    assert world.table.owner(Account.read(world.services.account).space, "up-1") == task.id
    assert world.until_closed(task.id).phase is Phase.SUCCEEDED and len(world.provider.posts) == 1


@pytest.mark.parametrize("hint", ["up-9", "../../x", 17, None, "x" * 500, "\ud800", ["up-1"]])
def test_a_hint_that_leads_nowhere(cloud: Cloud, hint: Any) -> None:
    world = blind(cloud)
    task = parked(world)
    assert world.callback(task, {"task_id": hint}) == 200
    assert world.task(task.id).upstream_id is None


def test_a_hint_at_a_task_that_another_row_owns(cloud: Cloud) -> None:
    world = blind(cloud)
    other, task = world.create(), parked(world)
    world.callback(task, {"task_id": other.upstream_id})
    assert world.task(task.id).upstream_id is None and world.task(other.id).upstream_id == "up-1"


def test_a_hint_at_a_task_from_before_our_claim(cloud: Cloud) -> None:
    world = blind(cloud)
    world.provider.sold.append(Sold("stranger", "up-old", START - 60_000, 60))
    task = parked(world)
    world.callback(task, {"task_id": "up-old"})
    assert world.task(task.id).upstream_id is None


def test_a_hint_at_a_task_with_another_reference(cloud: Cloud) -> None:
    world = blind(cloud, hides_reference=False)
    task = parked(world)
    world.provider.sold.append(Sold("stranger", "up-new", world.clock.now, 60))
    world.callback(task, {"task_id": "up-new"})
    assert world.task(task.id).upstream_id is None


def test_a_provider_that_shows_references_must_show_ours(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    world = blind(cloud, hides_reference=False)
    task = parked(world)
    monkeypatch.setattr(world.provider.sold[0], "reference", None)
    world.callback(task, {"task_id": "up-1"})
    assert world.task(task.id).upstream_id is None


def test_two_callbacks_that_name_the_same_task(cloud: Cloud) -> None:
    world = blind(cloud)
    first, second = parked(world), parked(world)
    world.provider.sold[0].at = world.clock.now
    world.callback(first, {"task_id": "up-1"})
    world.callback(second, {"task_id": "up-1"})
    assert world.task(first.id).upstream_id == "up-1" and world.task(second.id).upstream_id is None


def test_an_expired_unconfirmed_task_is_adopted_and_delivered(cloud: Cloud) -> None:
    world = World(cloud, profile={"ask_by_reference": False, "hides_reference": True}, deadline_seconds=600)
    task = world.until_closed(parked(world).id)
    assert task.phase is Phase.EXPIRED and task.upstream_id is None
    world.callback(task, {"task_id": "up-1"})
    world.run(180)
    assert world.task(task.id).phase is Phase.SUCCEEDED


def test_an_early_callback_is_no_denial(world: World) -> None:
    world.provider.submit_faults = ["dropped"]
    task = world.create()
    for _ in range(4):
        world.clock.tick(6)
        on_callback(world.services, task.id, None)
    assert world.task(task.id).denials <= 1


# -- the handler


def test_a_wrong_token_answers_one_constant(world: World) -> None:
    task = world.create()
    right = callback_tokens.callback_url(BASE_URL, world.services.keyring, task.id).rpartition("/")[2]
    other = callback_tokens.callback_url(BASE_URL, world.services.keyring, "b" * 32).rpartition("/")[2]
    wrong = ["", "k1.", right[:-1], right + "A", right.swapcase(), other, right.replace("k1", "k2"), "é", "k1.é"]
    events = [{"pathParameters": {"task_id": task.id, "token": token}, "body": "{}"} for token in wrong]
    events += [{"pathParameters": None}, {"pathParameters": {"task_id": "none", "token": right}}]
    names = len(world.effects.names)
    answers = {json.dumps(world.call("kling_callback", event)) for event in events}
    assert len(answers) == 1 and json.loads(answers.pop())["statusCode"] == 404
    assert world.provider.queries == [] and len(world.effects.names) == names


@pytest.mark.parametrize("body", [None, "", "{", "[" * 100_000, "x" * 70_000, '{"task_id": {}}', "\x00", "nul\ud800"])
def test_any_body_behind_a_right_token_is_200(world: World, body: str | None) -> None:
    task = world.create()
    token = callback_tokens.callback_url(BASE_URL, world.services.keyring, task.id).rpartition("/")[2]
    event = {"pathParameters": {"task_id": task.id, "token": token}, "body": body}
    assert world.call("kling_callback", event)["statusCode"] == 200
    assert world.call("kling_callback", {**event, "isBase64Encoded": True})["statusCode"] == 200


def test_trouble_inside_is_200_and_left_to_the_sweeper(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    task = world.create()
    world.states.run()
    world.clock.tick(61)

    def broken(**_: Any) -> None:
        raise ConnectionError("aws is away")

    monkeypatch.setattr(world.states, "send_task_success", broken)
    assert world.callback(task) == 200
    assert world.task(task.id).phase is Phase.RENDERED
    monkeypatch.undo()
    world.run(200)
    assert world.task(task.id).phase is Phase.SUCCEEDED


def test_a_callback_for_a_task_without_a_row(world: World) -> None:
    token = callback_tokens.callback_url(BASE_URL, world.services.keyring, "c" * 32).rpartition("/")[2]
    event = {"pathParameters": {"task_id": "c" * 32, "token": token}, "body": "{}"}
    assert world.call("kling_callback", event)["statusCode"] == 200
    assert world.tasks() == []


def test_no_time_was_given_so_nothing_is_sent(world: World) -> None:
    world.provider.submit_faults = ["not_sent"]
    task = world.create()
    world.clock.tick(10)
    assert advance(world.services, task.id, AdvanceInput("callback")).next == "wait"
    assert len(world.provider.posts) == 1


def test_a_callback_may_ask_again_when_the_gap_is_over_to_the_millisecond(world: World) -> None:
    task = world.create()
    assert world.table.claim_callback_slot(task, world.clock.now, 5000)
    asked = world.task(task.id)
    assert not world.table.claim_callback_slot(asked, world.clock.now + 4999, 5000)
    assert world.table.claim_callback_slot(asked, world.clock.now + 5000, 5000)
