"""Test an unconfirmed task, to the millisecond: its row, the time of its next query, and the effect of two denials."""

from dataclasses import replace
from typing import Any

import pytest
from kling_relay.lifecycle import confirm
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.polling import GRACE_SECONDS, LOOKUP_SECONDS, PARKED_SECONDS
from kling_relay.lifecycle.step import AdvanceInput, Step
from kling_relay.provider.outcomes import Found, NotFound, QueryFailed
from kling_relay.tasks.task import Failure, Phase, Task

from tests.support.stack_in_memory import Cloud, World

IN_MEMORY = True
GRACE_MS = int(GRACE_SECONDS * 1000)
HALF = {"wait_scale": 0.5}  # whoever scales a wait that is none of ours is seen


def doubtful(world: World, fault: str = "dropped") -> Task:
    world.provider.submit_faults = [fault]
    task = world.create()
    assert task.phase is Phase.UNCONFIRMED
    return task


def look(world: World, task: Task, at: int | None = None, **inputs: Any) -> Step:
    """One look at `task`, at a moment (ms)."""
    if at is not None:
        world.clock.now = at
    return advance(world.services, task.id, AdvanceInput("callback", **inputs))


class TestInDoubt:
    def test_what_the_row_holds(self, cloud: Cloud) -> None:
        world = World(cloud, **HALF)
        task = doubtful(world)
        now = world.clock.now
        assert (task.unsure_since, task.updated_at, task.denials, task.lease_until) == (now, now, 0, None)
        assert task.retry_at == now + LOOKUP_SECONDS * 500 and task.due_at == now + GRACE_MS
        assert (task.waits_for, task.reason) == ("proof of its submission (ConnectionError)", "")

    def test_earlier_denials_count_for_an_earlier_post(self, world: World) -> None:
        task = doubtful(world)
        world.table.move(task, None, denials=7, updated_at=world.clock.now)
        world.table.move(world.task(task.id), Phase.ACCEPTED, updated_at=world.clock.now)
        claimed = world.table.claim(world.task(task.id), attempt=2, updated_at=world.clock.now)
        confirm.in_doubt(world.services, claimed, "again")
        assert world.task(task.id).denials == 0

    def test_a_lease_that_runs_is_waited_for(self, cloud: Cloud) -> None:
        world = World(cloud, **HALF)
        task = doubtful(world)
        now = world.clock.now
        world.table.move(task, Phase.ACCEPTED, updated_at=now)
        world.table.claim(world.task(task.id), attempt=2, lease_until=now + 2_002_000, updated_at=now)
        assert look(world, task).wait_seconds == 2002
        assert look(world, task, now + 2_001_999).wait_seconds == 1

    def test_a_sender_that_did_not_come_back_is_looked_up_at_once(self, cloud: Cloud) -> None:
        world = World(cloud, **HALF)
        task = doubtful(world)
        world.table.move(task, Phase.ACCEPTED, updated_at=world.clock.now)
        world.table.claim(world.task(task.id), attempt=2, lease_until=world.clock.now + 1, updated_at=1)
        world.provider.queries.clear()
        look(world, task, world.clock.now + 1)
        seen = world.task(task.id)
        assert (seen.phase, seen.denials, seen.lease_until) == (Phase.UNCONFIRMED, 1, None)
        assert world.provider.queries == [task.id]
        assert seen.waits_for == "proof of its submission (the sender did not come back)"


class TestLookUp:
    def test_a_look_before_its_time_counts_for_nothing(self, cloud: Cloud) -> None:
        world = World(cloud, **HALF)
        task = doubtful(world)
        assert task.retry_at is not None
        assert look(world, task, task.retry_at - 2_000).wait_seconds == 2
        later = world.table.move(world.task(task.id), None, retry_at=world.clock.now + 2_002_000, updated_at=1)
        assert look(world, later).wait_seconds == 2002
        world.table.move(world.task(task.id), None, retry_at=task.retry_at, updated_at=1)
        assert look(world, task, task.retry_at - 1).wait_seconds == 1
        assert world.task(task.id).denials == 0
        look(world, task, task.retry_at)
        assert world.task(task.id).denials == 1

    def test_when_the_next_look_comes(self, cloud: Cloud) -> None:
        """Every gap of two denials until the settle window is over; then seldom, and parked."""
        world = World(cloud, on_unconfirmed="park", settle_seconds=100)
        task = doubtful(world)
        assert task.retry_at is not None and task.unsure_since is not None
        settles = task.unsure_since + 100_000
        assert look(world, task, task.retry_at).wait_seconds == 30
        assert look(world, task, settles - 1).wait_seconds == 30 and world.task(task.id).parked_at is None
        world.table.move(world.task(task.id), None, retry_at=settles, updated_at=1)
        assert look(world, task, settles).wait_seconds == PARKED_SECONDS
        seen = world.task(task.id)
        assert (seen.denials, seen.parked_at, seen.updated_at) == (3, settles, settles)
        assert seen.waits_for == "proof of its submission (ConnectionError); parked"
        assert seen.retry_at == settles + PARKED_SECONDS * 1000

    @pytest.mark.parametrize(("answer", "seconds"), [(NotFound(), 30), (QueryFailed("HTTP 502"), 300)])
    def test_a_first_denial_after_the_window_asks_for_a_second_one_soon(
        self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, answer: Any, seconds: int
    ) -> None:
        world = World(cloud, on_unconfirmed="park", settle_seconds=1)
        task = doubtful(world)
        monkeypatch.setattr(world.provider, "query", lambda *_: answer)
        assert look(world, task, world.clock.now + 5_000).wait_seconds == seconds
        world.table.move(world.task(task.id), None, retry_at=None, updated_at=1)
        assert look(world, task, world.clock.now + 30_000).wait_seconds == 300

    def test_trouble_after_a_denial_is_no_second_denial(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        task = doubtful(world)
        for answer in (NotFound(), QueryFailed("HTTP 502"), QueryFailed("HTTP 502")):
            monkeypatch.setattr(world.provider, "query", lambda *_, given=answer: given)
            look(world, task, world.clock.now + 400_000)
        seen = world.task(task.id)
        assert (seen.phase, seen.denials) == (Phase.UNCONFIRMED, 1)

    def test_its_deadline(self, cloud: Cloud) -> None:
        world = World(cloud, deadline_seconds=600, on_unconfirmed="park")
        task = doubtful(world)
        look(world, task, task.created_at + 599_999)
        assert world.task(task.id).phase is Phase.UNCONFIRMED
        look(world, task, task.created_at + 600_000)
        seen = world.task(task.id)
        assert (seen.phase, seen.failure) == (Phase.EXPIRED, Failure.EXPIRED)

    @pytest.mark.parametrize("policy", ["auto", "park"])
    def test_without_evidence_its_client_waits_so_long(self, cloud: Cloud, policy: str) -> None:
        world = World(cloud, on_unconfirmed=policy, unconfirmed_deadline_seconds=1000, **HALF)
        task = doubtful(world)
        assert task.unsure_since is not None
        look(world, task, task.unsure_since + 499_999)
        assert world.task(task.id).phase is Phase.UNCONFIRMED
        world.table.move(world.task(task.id), None, retry_at=None, updated_at=1)
        look(world, task, task.unsure_since + 500_000)
        seen = world.task(task.id)
        assert seen.phase is (Phase.EXPIRED if policy == "auto" else Phase.UNCONFIRMED)
        if policy == "auto":
            assert seen.reason == (
                "submission unconfirmed; it was not repeated, to avoid a double charge; "
                "still watched: a late video will be delivered"
            )


class TestTwoDenials:
    def test_they_send_it_back_to_be_sent_soon(self, cloud: Cloud) -> None:
        world = World(cloud, on_unconfirmed="retry", settle_seconds=10)
        task = doubtful(world)
        look(world, task, world.clock.now + 5_000)
        step = look(world, task, world.clock.now + 30_000)
        seen = world.task(task.id)
        assert (seen.phase, seen.denials, seen.retry_at, seen.updated_at) == (Phase.ACCEPTED, 0, None, world.clock.now)
        assert (step.next, step.wait_seconds) == ("wait", 1)

    @pytest.mark.parametrize(
        ("words", "failure"), [("prompt: too rude", Failure.REFUSED), ("risk control", Failure.CONTENT)]
    )
    def test_what_a_second_post_was_refused_with_is_the_reason(
        self, cloud: Cloud, words: str, failure: Failure
    ) -> None:
        world = World(cloud, on_unconfirmed="retry", settle_seconds=1)
        task = doubtful(world)
        world.table.move(task, None, reason=words, denials=1, updated_at=1)
        look(world, task, world.clock.now + 5_000)
        seen = world.task(task.id)
        assert (seen.phase, seen.reason, seen.failure) == (Phase.FAILED, words, failure)
        assert seen.updated_at == world.clock.now

    @pytest.mark.parametrize(
        ("policy", "phase"),
        [("retry", Phase.FAILED), ("fail", Phase.FAILED), ("auto", Phase.UNCONFIRMED), ("park", Phase.UNCONFIRMED)],
    )
    def test_a_refusal_of_the_second_post_ends_it_if_a_denial_counts(
        self, cloud: Cloud, policy: str, phase: Phase
    ) -> None:
        """A denial counts by the operator's choice, or by proof. There is no proof here."""
        world = World(cloud, on_unconfirmed=policy, settle_seconds=1)
        task = doubtful(world)
        world.table.move(task, None, reason="prompt: too rude", denials=1, updated_at=1)
        look(world, task, world.clock.now + 5_000)
        seen = world.task(task.id)
        assert (seen.phase, seen.reason) == (phase, "prompt: too rude")
        assert (seen.parked_at is None) == (phase is Phase.FAILED)


class TestHints:
    BLIND = {"ask_by_reference": False, "hides_reference": True}  # noqa: RUF012

    def test_a_callbacks_own_hint_is_asked_for_first(self, cloud: Cloud) -> None:
        world = World(cloud, profile=self.BLIND, on_unconfirmed="park")
        task = doubtful(world, "lost")
        world.table.keep_hint(task, "up-9")
        world.provider.queries.clear()
        look(world, task, hint="up-1")
        assert world.provider.queries == ["up-1", "up-1"] and world.task(task.id).upstream_id == "up-1"

    def test_a_provider_in_trouble_is_not_asked_for_each_hint(
        self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World(cloud, profile=self.BLIND, on_unconfirmed="park")
        task = doubtful(world, "lost")
        world.table.keep_hint(task, "up-8")
        world.table.keep_hint(world.task(task.id), "up-9")
        asked: list[str] = []
        monkeypatch.setattr(world.provider, "query", lambda _, one: (asked.append(one), QueryFailed("HTTP 502"))[1])
        look(world, task)
        assert asked == ["up-9"]

    def test_what_is_learned_without_a_reference_is_nothing(self, cloud: Cloud) -> None:
        world = World(cloud, profile=self.BLIND, on_unconfirmed="retry", settle_seconds=1)
        task = doubtful(world)
        assert isinstance(confirm.find_at_provider(world.services, task, AdvanceInput("callback")), QueryFailed)


class TestOurs:
    @pytest.mark.parametrize(("late", "ours"), [(-5_001, False), (-5_000, True), (0, True)])
    def test_clocks_may_differ_by_five_seconds(
        self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, late: int, ours: bool
    ) -> None:
        world = World(cloud, profile={"hides_reference": True}, on_unconfirmed="park")
        task = doubtful(world, "lost")
        found = world.provider._snapshot(world.provider.sold[0], "")
        answer = Found(replace(found, created_at=task.claimed_at + late))  # type: ignore[operator]
        monkeypatch.setattr(world.provider, "query", lambda *_: answer)
        look(world, task)
        assert (world.task(task.id).upstream_id is not None) is ours

    def test_our_reference_is_proof_whatever_its_time(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        task = doubtful(world, "lost")
        answer = Found(replace(world.provider._snapshot(world.provider.sold[0], ""), created_at=1))
        monkeypatch.setattr(world.provider, "query", lambda *_: answer)
        look(world, task)
        assert world.task(task.id).upstream_id == "up-1"

    def test_a_row_that_kept_its_last_claim_alone(self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """As c90a538 wrote it."""
        world = World(cloud, profile={"hides_reference": True}, on_unconfirmed="park")
        task = doubtful(world, "lost")
        world.table.move(task, None, posted_since=None, updated_at=1)
        look(world, task)
        assert world.task(task.id).upstream_id == "up-1"

    def test_an_owner_that_an_older_version_wrote_counts(self, cloud: Cloud) -> None:
        """By the profile alone. Whose it is already is found again: an answer to our own write was lost."""
        world = World(cloud, profile={"hides_reference": True}, on_unconfirmed="park")
        task = doubtful(world, "lost")
        row = {"pk": {"S": "upstream#kling#up-1"}, "task_id": {"S": "somebody"}}
        world.dynamodb.put_item(TableName=world.table.rows.name, Item=row)
        look(world, task)
        assert world.task(task.id).upstream_id is None
        world.dynamodb.put_item(TableName=world.table.rows.name, Item={**row, "task_id": {"S": task.id}})
        look(world, task)
        assert world.task(task.id).upstream_id == "up-1"
