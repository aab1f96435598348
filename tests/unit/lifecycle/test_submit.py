"""Test at most one paid POST per accepted task, for every answer of the provider and every late retry."""

import pytest
from kling_relay.lifecycle import polling
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.provider.admission import Admission
from kling_relay.security.stored_secrets import Cached
from kling_relay.settings import SettingsError
from kling_relay.tasks.task import Phase, Task

from tests.support.fake_provider import Sold
from tests.support.stack_in_memory import START, Cloud, World

IN_MEMORY = True


def lost(world: World, fault: str = "dropped") -> Task:
    """A task whose POST ended in doubt."""
    world.provider.submit_faults = [fault]
    task = world.create()
    assert task.phase is Phase.UNCONFIRMED
    return task


def go(world: World, task: Task, left_ms: int = 60_000) -> Task:
    advance(world.services, task.id, AdvanceInput("poll", must_end_by=world.clock.now + left_ms))
    return world.task(task.id)


def test_the_post_carries_our_reference_and_not_the_clients(world: World) -> None:
    body = {"image": "https://i.example/a.png", "external_task_id": "order-1", "callback_url": "https://c.example/h"}
    task = world.create(body)
    (sent,) = world.provider.posts
    assert sent["external_task_id"] == task.id and sent["model_name"] == "kling-v3"
    assert sent["callback_url"].startswith(f"https://relay.example/hooks/kling/{task.id}/k1.")
    assert "order-1" not in str(sent) and "c.example" not in str(sent)


def test_a_laptop_before_the_real_provider_names_no_address_that_it_cannot_reach(world: World) -> None:
    world.services._base_url = Cached(lambda: "http://127.0.0.1:8080")
    world.create()
    (sent,) = world.provider.posts
    assert world.provider.profile.base_url.startswith("https://") and "callback_url" not in sent


def test_refused(world: World) -> None:
    world.provider.submit_faults = ["refused"]
    status, answer = world.post()
    assert (status, answer["code"], answer["message"]) == (400, 1201, "prompt: too rude")
    (task,) = world.tasks()
    assert task.phase is Phase.FAILED and task.reason == "prompt: too rude"
    world.run(600)
    assert len(world.provider.posts) == 1


def test_not_sent_is_sent_again_later(world: World) -> None:
    world.provider.submit_faults = ["not_sent", "not_sent"]
    task = world.until_closed(world.create().id)
    assert task.phase is Phase.SUCCEEDED and task.attempt == 3 and len(world.provider.posts) == 3


def test_found_after_a_lost_answer(world: World) -> None:
    task = world.until_closed(lost(world, "lost").id)
    assert task.phase is Phase.SUCCEEDED and len(world.provider.posts) == 1


def test_accepted_late_after_the_first_looks(world: World) -> None:
    task = world.until_closed(lost(world, "lost:100").id)
    assert task.phase is Phase.SUCCEEDED and len(world.provider.posts) == 1


def test_parked_until_the_deadline_then_watched_and_still_delivered(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=900)
    task = world.until_closed(lost(world, "lost:5000").id)
    assert task.phase is Phase.EXPIRED and task.denials >= 2
    assert "not repeated" in task.reason and "still watched" in task.reason
    assert len(world.provider.posts) == 1
    world.run(7 * 3600)
    done = world.task(task.id)
    assert done.phase is Phase.SUCCEEDED and len(world.provider.posts) == 1
    assert done.reason == "", "it says no more that it was not delivered"


def test_two_denials_thirty_seconds_apart_and_the_settle_window(cloud: Cloud) -> None:
    world = World(cloud, on_unconfirmed="retry", settle_seconds=20)
    task = lost(world)
    asked = []
    while world.task(task.id).phase is Phase.UNCONFIRMED:
        world.clock.tick(1)
        before = len(world.provider.queries)
        go(world, task)
        asked += [(world.clock.now - START) // 1000] * (world.task(task.id).denials > len(asked))
        assert len(world.provider.queries) == before + 1
        assert world.clock.now < START + 100_000
    assert asked == [5] and (world.clock.now - START) // 1000 == 35
    assert go(world, task).phase is Phase.SUBMITTED and world.provider.billed(task.id) == 1


def test_the_last_denial_must_come_after_the_settle_window(cloud: Cloud) -> None:
    """Denials from before it, and then a query that fails, are no reason to pay again."""
    world = World(cloud, on_unconfirmed="retry", settle_seconds=100)
    task = lost(world, "lost:98")
    for _ in range(3):
        world.clock.tick(31)
        go(world, task)
    assert world.task(task.id).denials >= 2
    world.clock.tick(31)
    world.provider.query_faults = ["trouble"]
    assert go(world, task).phase is Phase.UNCONFIRMED
    world.run(600)
    assert world.task(task.id).phase is Phase.SUCCEEDED and world.provider.billed(task.id) == 1


def test_the_first_look_may_come_late_and_the_second_follows_it_soon(cloud: Cloud) -> None:
    """A sender that died is found by the sweeper, after the settle window: one more denial is missing, not a pause."""
    world = World(cloud, on_unconfirmed="retry", settle_seconds=20)
    task = lost(world)
    world.clock.tick(100)
    go(world, task)
    world.clock.tick(31)
    go(world, task)
    assert go(world, task).phase is Phase.SUBMITTED and world.provider.billed(task.id) == 1


@pytest.mark.parametrize(("answer", "posts"), [("found", 1), ("trouble", 1), ("denied", 2)])
def test_denials_are_old_by_the_time_of_another_post(cloud: Cloud, answer: str, posts: int) -> None:
    """Whoever was to repeat the POST died, or had no room: before it is repeated the provider is asked once more."""
    world = World(cloud, on_unconfirmed="retry", settle_seconds=20)
    task = lost(world, "lost:70" if answer == "found" else "dropped")
    for _ in range(2):
        world.clock.tick(31)
        world.sweep()
        go(world, task, left_ms=1)
    assert world.task(task.id).phase is Phase.ACCEPTED
    world.clock.tick(60)
    world.provider.query_faults = ["trouble"] * (answer == "trouble")
    go(world, task)
    assert len(world.provider.posts) == posts and world.provider.billed(task.id) == (answer != "trouble")
    world.run(300)
    assert world.task(task.id).phase is Phase.SUCCEEDED and world.provider.billed(task.id) == 1


def test_a_query_that_fails_is_no_denial(world: World) -> None:
    world.provider.query_faults = ["trouble"] * 1000
    task = lost(world)
    world.run(3600)
    assert world.task(task.id).denials == 0 and len(world.provider.posts) == 1


def test_policy_fail(cloud: Cloud) -> None:
    world = World(cloud, on_unconfirmed="fail")
    task = world.until_closed(lost(world).id)
    assert task.phase is Phase.FAILED
    assert task.reason == "submission unconfirmed; it was not repeated, to avoid a double charge"


def test_policy_retry(cloud: Cloud) -> None:
    world = World(cloud, on_unconfirmed="retry")
    task = world.until_closed(lost(world).id)
    assert task.phase is Phase.SUCCEEDED and len(world.provider.posts) == 2 and world.provider.billed(task.id) == 1


def test_a_provider_that_refuses_duplicates_is_asked_again(cloud: Cloud) -> None:
    """The first POST arrives after everything: the second is refused, which leads to the first."""
    world = World(cloud, profile={"unique_reference": True})
    task = lost(world, "dropped")
    world.run(115)
    world.provider.sold.append(Sold(task.id, "up-late", world.clock.now + 20_000, 60))
    done = world.until_closed(task.id)
    assert done.phase is Phase.SUCCEEDED and done.upstream_id == "up-late"
    assert len(world.provider.posts) == 2 and world.provider.billed(task.id) == 1


def test_refused_after_a_post_in_doubt_ends_with_the_reason_once_the_first_is_not_found(cloud: Cloud) -> None:
    world = World(cloud, on_unconfirmed="retry")
    world.provider.submit_faults = ["dropped", "refused"]
    task = world.until_closed(world.create().id)
    assert (task.phase, task.reason) == (Phase.FAILED, "prompt: too rude")
    assert len(world.provider.posts) == 2


def test_no_post_from_a_lookup_where_references_cannot_be_asked(cloud: Cloud) -> None:
    world = World(cloud, profile={"ask_by_reference": False}, on_unconfirmed="retry", deadline_seconds=900)
    task = world.until_closed(lost(world).id)
    assert task.phase is Phase.EXPIRED and len(world.provider.posts) == 1


@pytest.mark.parametrize("owner", ["somebody", None])
def test_an_answer_about_somebody_elses_task_is_not_ours(cloud: Cloud, owner: str | None) -> None:
    """A relay that hides references and answers any reference with its newest task."""
    world = World(cloud, profile={"hides_reference": True}, deadline_seconds=900, on_unconfirmed="park")
    first = world.create()
    task = lost(world)
    world.provider.sold[0].reference = task.id if owner else first.id
    done = world.until_closed(task.id)
    assert done.phase is Phase.EXPIRED and done.upstream_id is None
    assert world.task(first.id).phase is Phase.SUCCEEDED


def test_no_post_without_the_time_to_see_its_answer(world: World) -> None:
    task = world.call("task_api", _create(world), left_ms=19_000)
    (row,) = world.tasks()
    assert task["statusCode"] == 200 and row.phase is Phase.ACCEPTED and world.provider.posts == []
    assert world.until_closed(row.id).phase is Phase.SUCCEEDED


def _create(world: World) -> dict[str, object]:
    headers = {"authorization": world.key()}
    path = "/v1/videos/image2video"
    body = '{"image": "https://i.example/a.png"}'
    return {"httpMethod": "POST", "path": path, "headers": headers, "body": body, "requestContext": {"requestId": "r"}}


def test_while_a_lease_runs_nobody_looks_and_after_it_nobody_posts(world: World) -> None:
    world.provider.submit_faults = ["accept"]
    world.effects.after(4, "dies after")  # key, record, claim, POST
    with pytest.raises(BaseException, match="POST"):
        world.post()
    (task,) = world.tasks()
    assert task.phase is Phase.SUBMITTING and task.lease_until == START + 30_000
    world.clock.tick(29)
    step = advance(world.services, task.id, AdvanceInput("poll", must_end_by=world.clock.now + 60_000))
    assert (step.next, step.wait_seconds) == ("wait", 1) and world.provider.queries == []
    assert world.until_closed(task.id).phase is Phase.SUCCEEDED and len(world.provider.posts) == 1


@pytest.mark.parametrize("fault", ["accept", "lost", "dropped", "not_sent", "no_room", "refused"])
def test_a_claimer_that_comes_back_late(cloud: Cloud, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease is over and another has looked the task up, or even sent it again, before its answer is written."""
    world = World(cloud, on_unconfirmed="retry", deadline_seconds=900)
    real = world.provider.submit
    world.provider.submit_faults = [fault]

    def slow(*args: object, **options: object) -> object:
        monkeypatch.setattr(world.provider, "submit", real)
        outcome = real(*args, **options)  # type: ignore[arg-type]
        world.clock.tick(125)
        world.sweep()
        world.states.run()
        return outcome

    monkeypatch.setattr(world.provider, "submit", slow)
    world.post()
    (task,) = world.tasks()
    world.until_closed(task.id)
    assert world.provider.billed(task.id) <= 1


def test_two_claimers_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = world.provider.prepare
    inner: list[str] = []

    def meanwhile(refresh: bool) -> None:
        monkeypatch.setattr(world.provider, "prepare", real)
        (task,) = world.tasks()
        inner.append(advance(world.services, task.id, AdvanceInput("poll", must_end_by=world.clock.now + 60_000)).next)

    monkeypatch.setattr(world.provider, "prepare", meanwhile)
    task = world.create()
    assert inner == ["wait"] and task.attempt == 1 and len(world.provider.posts) == 1


# -- room at the provider, and trouble with its account


def test_no_room_waits_its_turn(world: World) -> None:
    world.provider.slots = 1
    first, second = world.create(), world.create()
    assert first.phase is Phase.SUBMITTED and second.phase is Phase.ACCEPTED
    assert world.row(f"task#{second.id}")["queue"]["S"] == "waiting" and second.due_at == second.created_at
    third = world.create()
    assert third.attempt == 0 and len(world.provider.posts) == 2, "a closed gate spares the POST"
    for task in (first, second, third):
        assert world.until_closed(task.id).phase is Phase.SUCCEEDED
    assert world.provider.billed(third.id) == 1


def test_who_comes_new_joins_those_who_wait(world: World) -> None:
    """Also once the gate's pause is over: the room that there may be is theirs."""
    world.provider.submit_faults = ["no_room"]
    first = world.create()
    world.clock.tick(polling.NO_ROOM_SECONDS)
    second = world.create()
    assert second.attempt == 0 and world.row(f"task#{second.id}")["queue"]["S"] == "waiting"
    assert second.waits_for == "its turn, behind others" and len(world.provider.posts) == 1
    world.clock.tick(60)
    world.sweep()
    world.states.run()
    assert {world.task(task.id).phase for task in (first, second)} == {Phase.SUBMITTED}
    assert (
        world.create().phase is Phase.SUBMITTED and world.services.admissions.get(world.services.account).crowded == 0
    )


def test_no_room_makes_no_pause_longer(world: World) -> None:
    world.provider.submit_faults = ["no_room"] * 4
    world.create()
    for _ in range(3):
        assert world.services.admissions.get(world.services.account).failures == 0
        assert world.services.admissions.get(world.services.account).not_before - world.clock.now == 30_000
        world.clock.tick(60)
        assert world.sweep()["waiting"] == 1
        world.states.run()
    assert len(world.provider.posts) == 4


def test_who_was_only_too_fast_keeps_its_place(world: World) -> None:
    """1302 for a task that has had its turn: once more in a few seconds, then it waits for another turn."""
    world.provider.submit_faults = ["too_fast", "too_fast"]
    task = world.create()
    assert world.row(f"task#{task.id}")["queue"]["S"] == "waiting", "a client's new task has no turn yet"
    world.clock.tick(60)
    world.sweep()
    world.states.run()
    again = world.task(task.id)
    assert again.phase is Phase.ACCEPTED and again.retry_at is not None and "1302" in again.waits_for
    assert 2_000 <= again.retry_at - world.clock.now <= 4_000 and world.row(f"task#{task.id}")["queue"]["S"] == "open"
    world.provider.submit_faults = ["too_fast"]
    world.run(5)
    queued = world.task(task.id)
    assert (queued.retry_at, queued.attempt) == (None, 3)
    assert world.row(f"task#{task.id}")["queue"]["S"] == "waiting"
    assert world.until_closed(task.id).phase is Phase.SUCCEEDED and len(world.provider.posts) == 4


def test_arrears_for_an_hour(world: World) -> None:
    world.provider.submit_faults = ["arrears"] * 1000
    tasks = [world.create() for _ in range(3)]
    world.run(3600)
    assert {world.task(task.id).phase for task in tasks} == {Phase.ACCEPTED}
    assert len(world.provider.posts) < 30
    world.provider.submit_faults.clear()
    for task in tasks:
        assert world.until_closed(task.id).phase is Phase.SUCCEEDED
    assert world.services.admissions.get(world.services.account).failures == 0


def test_without_a_provider_key_tasks_wait(world: World) -> None:
    world.provider.prepared = SettingsError("no key")
    task = world.create()
    assert task.phase is Phase.ACCEPTED and "no key" in task.waits_for and task.attempt == 0
    world.provider.prepared = None
    assert world.until_closed(task.id).phase is Phase.SUCCEEDED


def test_room_that_never_comes_ends_at_the_deadline(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=900)
    world.provider.submit_faults = ["no_room"] * 1000
    task = world.until_closed(world.create().id)
    assert task.phase is Phase.FAILED and "not sent within 900 s" in task.reason and "1303" in task.reason
    assert world.clock.now <= START + 1_000_000


def test_an_accepted_task_resets_the_gates_memory(world: World) -> None:
    world.services.admissions.close(
        world.services.account, Admission(failures=3), not_before=START - 1, reason="poor", cause="account"
    )
    world.create()
    assert world.services.admissions.get(world.services.account).failures == 0


def test_trouble_again_and_again_pauses_longer(world: World) -> None:
    pauses = []
    for failures in range(1, 7):
        world.provider.submit_faults = ["arrears"]
        if failures == 1:
            world.create()
        world.states.run()
        admission = world.services.admissions.get(world.services.account)
        assert admission.failures == failures
        pauses.append(admission.not_before - world.clock.now)
        world.clock.now = admission.not_before
        world.sweep()
    for pause, longest in zip(pauses, [60_000, 120_000, 240_000, 480_000, 600_000, 600_000], strict=True):
        assert longest / 2 <= pause <= longest


def test_a_deadline_at_the_first_step_costs_nothing(cloud: Cloud) -> None:
    world = World(cloud, deadline_seconds=60)
    world.states.fail_starts = 99
    world.provider.submit_faults = ["not_sent"]
    task = world.create()
    world.clock.tick(61)
    assert go(world, task).phase is Phase.FAILED and world.provider.billed(task.id) == 0
