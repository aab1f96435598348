"""Test the guarantees from outside: at most one paid POST, no lost paid video, no access to another tenant's tasks.

The providers' behaviour is believed from captures of the official host. That a relay confuses tasks, or names one in an
error, is a guess about faults between the relay and this service.
"""

import itertools
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from kling_relay.dynamodb import ConflictError
from kling_relay.provider.outcomes import Found, NotFound, Throttled, Unknown
from kling_relay.tasks.task import Phase, Task

from tests.support.counted_effects import Crash
from tests.support.fake_provider import LedgerProvider
from tests.support.stack_in_memory import BODY, Cloud, World

IN_MEMORY = True
OFFICIAL = {"unique_reference": True, "settle_seconds": 20, "denial_gap_seconds": 10, "maintenance_refuses": True}
BLIND = {"ask_by_reference": False, "hides_reference": True}


def lost(world: World, fault: str = "lost") -> Task:
    world.provider.submit_faults = [fault]
    task = world.create()
    assert task.phase is Phase.UNCONFIRMED
    return task


def sender_dies(world: World, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task whose sender dies right after the provider has taken it."""
    real = world.provider.submit

    def submit(*given: Any, **options: Any) -> Any:
        real(*given, **options)
        raise Crash("POST")

    world.key()
    with monkeypatch.context() as patched, suppress(Crash):
        patched.setattr(world.provider, "submit", submit)
        world.post()
    (task,) = world.tasks()
    assert task.phase is Phase.SUBMITTING and len(world.provider.sold) == 1
    return task


class TestRecording:
    """The transaction that records a task is done, its answer is lost."""

    def break_transactions(self, world: World, monkeypatch: pytest.MonkeyPatch, *, written: bool, times: int) -> None:
        real, left = world.dynamodb.transact_write_items, [times]

        def transact(**options: Any) -> Any:
            if not left[0]:
                return real(**options)
            left[0] -= 1
            if written:
                real(**options)
            raise ReadTimeoutError(endpoint_url="https://dynamodb.example")

        monkeypatch.setattr(world.dynamodb, "transact_write_items", transact)

    @pytest.mark.parametrize("written", [True, False])
    def test_the_row_is_read_and_the_client_gets_its_id(
        self, world: World, monkeypatch: pytest.MonkeyPatch, written: bool
    ) -> None:
        world.key()
        self.break_transactions(world, monkeypatch, written=written, times=1)
        task = world.create()
        assert [one.id for one in world.tasks()] == [task.id] and len(world.provider.posts) == 1

    @pytest.mark.parametrize("written", [True, False])
    def test_without_any_answer_the_client_gets_the_id_and_no_word_of_trying_again(
        self, world: World, monkeypatch: pytest.MonkeyPatch, written: bool
    ) -> None:
        def unreadable(**_: Any) -> Any:
            raise ReadTimeoutError(endpoint_url="https://dynamodb.example")

        world.key()
        began = world.clock.now
        with monkeypatch.context() as broken:
            self.break_transactions(world, broken, written=written, times=10**6)
            real = world.dynamodb.get_item
            broken.setattr(
                world.dynamodb,
                "get_item",
                lambda **o: unreadable() if o["Key"]["pk"]["S"].startswith("task#") else real(**o),
            )
            event = {"httpMethod": "POST", "path": "/v1/videos/image2video", "requestContext": {"requestId": "r"}}
            event |= {"headers": {"authorization": world.key()}, "body": '{"image": "https://i.example/a.png"}'}
            answer = world.call("task_api", event)
        assert answer["statusCode"] == 500 and '"code": 5000' in answer["body"]
        assert "Retry-After" not in answer.get("headers", {}) | answer.get("multiValueHeaders", {})
        assert 20_000 <= world.clock.now - began < 22_000, "within the gateway's time"
        for task in world.tasks():
            assert task.id in answer["body"] and "GET" in answer["body"]
        world.run(600)
        assert [task.phase for task in world.tasks()] == [Phase.SUCCEEDED] * written, "what is on record is carried out"


class TestAnswers:
    """Another task's answer."""

    @pytest.mark.parametrize("hides", [True, False])
    def test_a_task_never_gets_the_video_of_another(
        self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, hides: bool
    ) -> None:
        world = World(cloud, profile={"hides_reference": hides})
        alice, bob = world.create(tenant="alice"), world.create(tenant="bob")
        ids = [world.task(task.id).upstream_id for task in (alice, bob)]
        real = world.provider.query
        mixed = [True]

        def query(kind: str, asked: str) -> Any:
            return real(kind, ids[1] if mixed[0] and asked == ids[0] else asked)

        monkeypatch.setattr(world.provider, "query", query)
        world.run(600)
        assert world.task(bob.id).phase is Phase.SUCCEEDED
        assert world.task(alice.id).phase is Phase.SUBMITTED, "no answer about another task is believed"
        mixed[0] = False
        done = world.until_closed(alice.id)
        assert done.phase is Phase.SUCCEEDED and done.videos[0]["id"] == f"v-{ids[0]}"

    @pytest.mark.parametrize("by", ["hint", "reference"])
    def test_a_task_that_was_made_before_our_claim_is_not_adopted(self, cloud: Cloud, by: str) -> None:
        profile = {"hides_reference": True, "ask_by_reference": by == "reference"}
        world = World(cloud, profile=profile, on_unconfirmed="park")
        task = lost(world)
        world.provider.sold[0].at -= 60_000
        if by == "hint":
            world.callback(task, {"task_id": "up-1", "task_status": "succeed"})
        world.run(3600)
        assert world.task(task.id).upstream_id is None

    def test_a_relays_callbacks_name_another_id_and_wake_the_task_all_the_same(self, world: World) -> None:
        """Kling's id, where the relay answers with its own: kling-api.md, "With relays that hand out their own ids"."""
        task = world.create()
        world.states.run()
        world.clock.tick(61)
        world.callback(task, {"task_id": "kling-1", "task_status": "succeed", "external_task_id": task.id})
        world.states.run()
        assert world.task(task.id).phase is Phase.SUCCEEDED and world.provider.queries == ["up-1"]

    def test_a_second_id_of_one_task_rings_the_alarm(self, cloud: Cloud) -> None:
        world = World(cloud, profile=OFFICIAL)
        task = world.create()
        world.clock.tick(10)
        twin = replace(world.provider.sold[0], upstream_id="up-9")
        world.provider.sold.append(twin)
        world.callback(task, {"task_id": "up-9", "task_status": "succeed", "external_task_id": task.id})
        assert world.measured["ReconcileFindings"] == 1
        world.provider.sold.remove(twin)
        assert world.until_closed(task.id).upstream_id == "up-1"
        assert world.measured["ReconcileFindings"] == 1


class TestClaims:
    def test_a_claim_that_the_sdk_repeats_late_is_the_claimers(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the write and its repetition the sweeper and notify_client write to the row."""
        real, done = world.dynamodb.update_item, []

        def update_item(**options: Any) -> Any:
            claims = options.get("ExpressionAttributeValues", {}).get(":phase", {}).get("S") == "submitting"
            if claims and not done:
                done.append(real(**options))
                world.clock.tick(5)
                world.sweep()
                world.run_notifier()
            return real(**options)

        monkeypatch.setattr(world.dynamodb, "update_item", update_item)
        task = world.create()
        assert task.phase is Phase.SUBMITTED and task.attempt == 1 and len(world.provider.posts) == 1

    def test_a_claim_that_came_back_too_late_sends_nothing(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        real = world.table.claim

        def late(*given: Any, **options: Any) -> Task:
            claimed = real(*given, **options)
            world.clock.tick(20)
            return claimed

        with monkeypatch.context() as slow:
            slow.setattr(world.table, "claim", late)
            task = world.create()
        assert task.phase is Phase.ACCEPTED and task.unsure_since is None and world.provider.posts == []
        assert world.until_closed(task.id).phase is Phase.SUCCEEDED and len(world.provider.posts) == 1

    def test_a_claim_whose_lease_ran_out_is_none(self, world: World) -> None:
        world.states.fail_starts = 99
        world.provider.submit_faults = ["not_sent"]
        task = world.create()
        claimed = world.table.claim(task, attempt=task.attempt + 1, lease_until=1, updated_at=world.clock.now)
        world.table.move(claimed, Phase.UNCONFIRMED, unsure_since=1, updated_at=world.clock.now)
        with pytest.raises(ConflictError):
            world.table.claim(task, attempt=task.attempt + 1, lease_until=1, updated_at=world.clock.now)


class TestStaleDecisions:
    def test_a_second_denial_that_is_late_fails_no_task_that_was_found(
        self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World(cloud, on_unconfirmed="fail", settle_seconds=30)
        world.provider.seconds = 120
        task = lost(world)
        real, asked = world.provider.query, []

        def query(kind: str, reference: str) -> Any:
            if reference != task.id:
                return real(kind, reference)
            asked.append(reference)
            if len(asked) == 2:  # while the second denial is on its way, a callback finds the task
                monkeypatch.setattr(world.provider, "query", real)
                world.callback(world.task(task.id), {"task_id": "up-1", "task_status": "submitted"})
                assert world.task(task.id).phase in (Phase.SUBMITTED, Phase.PROCESSING)
                monkeypatch.setattr(world.provider, "query", query)
            return NotFound() if len(asked) <= 2 else real(kind, reference)

        monkeypatch.setattr(world.provider, "query", query)
        assert world.until_closed(task.id).phase is Phase.SUCCEEDED

    def test_a_providers_failure_holds_however_far_the_task_had_come(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another look moves it to processing while the answer "failed" travels: it need not be asked again."""
        world.provider.end = "failed"
        task = world.create()
        world.clock.tick(61)
        real = world.provider.query

        def query(kind: str, asked: str) -> Any:
            answer = real(kind, asked)
            monkeypatch.setattr(world.provider, "query", real)
            world.table.move(world.task(task.id), Phase.PROCESSING, updated_at=world.clock.now)
            return answer

        monkeypatch.setattr(world.provider, "query", query)
        world.callback(task, {"task_id": "up-1", "task_status": "failed"})
        assert world.task(task.id).phase is Phase.FAILED


class TestCallbacksInTheLease:
    def test_the_only_copy_of_the_providers_id_is_kept(self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(cloud, profile=BLIND)
        world.provider.seconds = 20
        task = sender_dies(world, monkeypatch)
        world.clock.tick(20)
        assert world.callback(task, {"task_id": "up-1", "task_status": "succeed"}) == 200
        assert world.until_closed(task.id).phase is Phase.SUCCEEDED and len(world.provider.posts) == 1

    def test_a_callback_whose_id_could_not_be_written_has_to_come_again(
        self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That a provider repeats a callback after 503 is a guess: kling-api.md has no document on retries."""
        world = World(cloud, profile=BLIND)
        task = sender_dies(world, monkeypatch)
        body = {"task_id": "up-1", "task_status": "succeed"}
        with monkeypatch.context() as broken:
            broken.setattr(world.table, "keep_hint", lambda *_: 1 / 0)
            assert world.callback(task, body) == 503
        assert world.callback(task, body) == 200
        assert world.until_closed(task.id).phase is Phase.SUCCEEDED

    def test_ids_that_a_forger_names_do_not_hide_it(self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(cloud, profile=BLIND)
        task = sender_dies(world, monkeypatch)
        for named in ("up-1", "x", "two words", "", "x"):
            world.callback(task, {"task_id": named, "task_status": "succeed"})
        assert world.task(task.id).hints == "up-1 x"
        for number in range(9):
            world.callback(task, {"task_id": f"forged-{number}"})
        assert len(world.task(task.id).hints.split()) == 4


class TestAccounts:
    def switched(self, world: World, **settings: Any) -> LedgerProvider:
        """The stack sends to another account from now on; the provider behind it."""
        world.services.settings = replace(world.services.settings, **settings)
        other = LedgerProvider(SimpleNamespace(now_ms=lambda: world.clock.now), world.effects)
        other._numbers = itertools.count(1000)  # no two tasks of one host have the same id
        world.services.provider = other  # type: ignore[assignment]
        return other

    @pytest.mark.parametrize(
        "settings",
        [{"provider": "cometapi"}, {"kling_base_url": "https://other.example"}, {"provider_account": "2"}],
    )
    def test_what_was_sent_is_asked_for_where_it_was_sent(self, cloud: Cloud, settings: dict[str, str]) -> None:
        world = World(cloud, deadline_seconds=7200, on_unconfirmed="retry")
        world.provider.seconds = 300
        sent, doubtful = world.create(), lost(world)
        new = self.switched(world, **settings)
        world.run(3600)
        assert {world.task(task.id).phase for task in (sent, doubtful)} == {Phase.SUCCEEDED}
        assert new.posts == [] and new.queries == []
        assert world.create().phase is Phase.SUBMITTED and len(new.posts) == 1

    def test_a_repetition_goes_where_the_doubtful_post_went(self, cloud: Cloud) -> None:
        world = World(cloud, on_unconfirmed="retry")
        task = lost(world, "dropped")
        new = self.switched(world, provider="cometapi")
        assert world.until_closed(task.id).phase is Phase.SUCCEEDED
        assert world.provider.billed(task.id) == 1 and new.posts == []

    def test_what_was_surely_not_taken_goes_to_the_new_account(self, world: World) -> None:
        world.provider.submit_faults = ["no_room"]
        task = world.create()
        new = self.switched(world, provider="cometapi")
        world.run(300)
        assert new.billed(task.id) == 1 and world.task(task.id).account == world.services.account

    def test_a_row_without_an_account_belongs_to_the_stacks(self, world: World) -> None:
        """As c90a538 wrote it."""
        task = world.create()
        key = {"pk": {"S": f"task#{task.id}"}}
        world.dynamodb.update_item(
            TableName=world.table.rows.name,
            Key=key,
            UpdateExpression="REMOVE #a",
            ExpressionAttributeNames={"#a": "account"},
        )
        assert world.task(task.id).account is None and world.until_closed(task.id).phase is Phase.SUCCEEDED


class TestRefusals:
    @pytest.mark.slow
    def test_a_task_that_the_account_may_not_have_holds_nobody_back(self, world: World) -> None:
        for minute in range(30):
            world.provider.submit_faults = ["forbidden"] if minute % 3 == 0 else []
            status, answer = world.post({**BODY, "prompt": f"forbidden {minute % 2}"}, tenant="bad")
            assert (status, answer["code"]) == ((403, 1103) if minute % 3 == 0 else (200, 0))
            assert world.create(tenant="good").phase is Phase.SUBMITTED
            world.run(60)

    def test_three_different_requests_in_a_row_are_the_account(self, world: World) -> None:
        world.provider.submit_faults = ["forbidden"] * 5
        assert [world.post({**BODY, "prompt": "the same"})[0] for _ in range(3)] == [403] * 3
        assert world.post({**BODY, "prompt": "another"})[0] == 403
        third = world.create({**BODY, "prompt": "and another"})
        assert third.phase is Phase.ACCEPTED and world.services.admissions.get(world.services.account).account_trouble
        world.provider.submit_faults = []
        assert world.until_closed(third.id).phase is Phase.SUCCEEDED
        assert world.services.admissions.get(world.services.account).suspects == ""

    def test_an_address_that_has_moved_is_the_operators_error_at_once(self, world: World) -> None:
        world.provider.submit_faults = ["moved"]
        for _ in range(2):  # the second one is not sent at all
            status, answer = world.post()
            assert (status, answer["code"]) == (500, 5000)
            assert "HTTP 308" in answer["message"] and "KlingBaseUrl" in answer["message"]
        assert len(world.provider.posts) == 1 and world.services.admissions.get(world.services.account).account_trouble
        world.sweep()
        assert world.measured["AccountTrouble"] == 1

    def test_tasks_without_a_waiting_client_outlive_it(self, world: World) -> None:
        world.provider.submit_faults = ["no_room", "moved", "moved"]
        task = world.create()
        world.run(61)
        assert world.task(task.id).phase is Phase.ACCEPTED and len(world.provider.posts) == 2
        assert world.until_closed(task.id).phase is Phase.SUCCEEDED

    @pytest.mark.slow
    def test_ten_minutes_of_maintenance_lose_nothing(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        real, ends = world.provider._submit, world.clock.now + 600_000
        down = Throttled("HTTP 503, code 5001", maintenance=True)
        monkeypatch.setattr(world.provider, "_submit", lambda body: down if world.clock.now < ends else real(body))
        tasks = []
        for _ in range(50):
            tasks.append(world.create())
            world.run(11)
        world.run(1200)
        assert {world.task(task.id).phase for task in tasks} == {Phase.SUCCEEDED}
        assert [world.provider.billed(task.id) for task in tasks] == [1] * 50
        assert world.measured["AccountTrouble"] == 0, "no operator is called"


class TestAHandlerThatStandsStill:
    def test_it_refuses_no_task_whose_post_is_in_doubt(self, cloud: Cloud) -> None:
        """The client repeats its request while the first handler stands still before its claim. The second handler's
        POST is in doubt, the provider denies the task twice, and the repetition meets an address that has moved. Guess:
        the provider shows the task a minute late.
        """
        world = World(cloud, profile=OFFICIAL)
        world.key()
        world.provider.submit_faults = ["lost:60", "moved"]

        def stand_still(effect: str) -> None:
            if effect != "update_item":
                return
            world.effects.pause = lambda _: None
            task = world.create(**{"Idempotency-Key": "key-1"})
            world.run(27)  # the function's time is 28 s
            assert world.task(task.id).phase is Phase.ACCEPTED and len(world.provider.posts) == 2
            assert world.services.admissions.get(world.services.account).cause == "address"

        world.effects.pause = stand_still
        status, answer = world.post(**{"Idempotency-Key": "key-1"})
        assert status == 200, f"the POST may have been charged: {answer}"
        (task,) = world.tasks()
        assert task.phase is Phase.ACCEPTED and task.unsure_since is not None
        assert world.until_closed(task.id).phase is Phase.SUCCEEDED and world.provider.billed(task.id) == 1


class TestTheOfficialHost:
    """A reference is unique there: kling-surface.md 0.2, live."""

    @pytest.mark.parametrize("fault", ["dropped", "lost"])
    def test_a_dropped_answer_is_settled_within_a_minute(self, cloud: Cloud, fault: str) -> None:
        world = World(cloud, profile=OFFICIAL)
        world.provider.seconds = 3600
        task = lost(world, fault)
        world.run(60, step=60)
        assert world.task(task.id).phase in (Phase.SUBMITTED, Phase.PROCESSING)
        assert world.provider.billed(task.id) == 1 and len(world.provider.posts) == (2 if fault == "dropped" else 1)

    def test_already_exists_is_proof_though_the_look_up_denies_it(
        self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World(cloud, profile=OFFICIAL)
        task = lost(world, "lost:600")  # accepted, and for ten minutes not known to queries
        world.run(500)
        seen = world.task(task.id)
        assert seen.phase is Phase.UNCONFIRMED and seen.proved_at is not None and len(world.provider.posts) == 2
        assert world.until_closed(task.id).phase is Phase.SUCCEEDED and world.provider.billed(task.id) == 1

    def test_it_never_fails_as_unconfirmed(self, cloud: Cloud) -> None:
        world = World(cloud, profile=OFFICIAL, unconfirmed_deadline_seconds=600)
        task = lost(world, "lost:7200")
        world.run(7000)
        assert world.task(task.id).phase is Phase.UNCONFIRMED
        assert world.until_closed(task.id).phase is Phase.SUCCEEDED and world.provider.billed(task.id) == 1

    def test_already_exists_to_a_first_post_is_looked_up(self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """A connection that was broken below us, say, may carry a POST twice."""
        world = World(cloud, profile=OFFICIAL)
        real = world.provider._submit
        monkeypatch.setattr(world.provider, "_submit", lambda body: (real(body), real(body))[1])
        assert world.create().phase is Phase.SUBMITTED and len(world.provider.sold) == 1


class TestEvidence:
    """OnUnconfirmed=auto: a denial counts as far as a positive control has proved that denials mean something."""

    def test_without_proof_a_task_is_failed_for_its_client_and_still_delivered(
        self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World(cloud, profile=BLIND)
        task = lost(world)
        world.run(3500)
        assert world.task(task.id).phase is Phase.UNCONFIRMED and world.task(task.id).parked_at is not None
        world.run(600)
        closed = world.task(task.id)
        assert closed.phase is Phase.EXPIRED and "not repeated" in closed.reason and len(world.provider.posts) == 1
        world.callback(task, {"task_id": "up-1", "task_status": "succeed"})
        world.run(300)
        assert world.task(task.id).phase is Phase.SUCCEEDED

    def test_a_look_up_that_was_never_proved_allows_no_repetition(self, world: World) -> None:
        task = lost(world, "dropped")
        world.run(3600)
        assert world.task(task.id).denials >= 2 and len(world.provider.posts) == 1

    def test_a_proved_look_up_allows_it_after_two_denials(self, world: World) -> None:
        assert world.until_closed(world.create().id).phase is Phase.SUCCEEDED
        task = lost(world, "dropped")
        assert world.until_closed(task.id, maximum=900).phase is Phase.SUCCEEDED and world.provider.billed(task.id) == 1

    def test_an_old_proof_is_asked_for_once_more(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        first = world.until_closed(world.create().id)
        world.clock.tick(5 * 3600)
        task = lost(world, "dropped")
        real = world.provider.query
        denies = [True]

        def query(kind: str, asked: str) -> Any:
            return NotFound() if denies[0] and asked == first.id else real(kind, asked)

        monkeypatch.setattr(world.provider, "query", query)
        world.run(1800)
        assert len(world.provider.posts) == 2, "the control is missed now: earlier proof is void"
        denies[0] = False
        world.run(1200)
        assert world.task(task.id).phase is Phase.UNCONFIRMED and len(world.provider.posts) == 2

    def test_a_provider_that_has_forgotten_its_references_proves_nothing(self, world: World) -> None:
        """Guess: a relay that starts again breaks connections, and keeps no references beyond its memory."""
        assert world.until_closed(world.create().id).phase is Phase.SUCCEEDED
        task = lost(world)
        world.provider.denies = True
        world.run(1800)
        assert world.task(task.id).phase is Phase.UNCONFIRMED and len(world.provider.posts) == 2
        assert world.provider.billed(task.id) == 1

    def test_a_refused_repetition_fails_no_task_without_proof(self, world: World) -> None:
        """A refusal of the second POST may mean that the first one was taken. Guess: the first task appears an hour
        late, and the provider has forgotten its references by then."""
        assert world.until_closed(world.create().id).phase is Phase.SUCCEEDED
        world.provider.submit_faults = ["lost:3600", "refused"]
        task = world.create()
        while len(world.provider.posts) < 3:
            world.run(60)
        world.provider.denies = True
        world.run(2 * 3600)
        seen = world.task(task.id)
        assert seen.phase is Phase.EXPIRED and "not repeated" in seen.reason and world.provider.billed(task.id) == 1
        world.provider.denies = False
        world.run(7 * 3600)
        assert world.task(task.id).phase is Phase.SUCCEEDED and len(world.provider.posts) == 3

    def test_a_refused_repetition_fails_a_task_that_is_surely_not_there(self, world: World) -> None:
        assert world.until_closed(world.create().id).phase is Phase.SUCCEEDED
        world.provider.submit_faults = ["dropped", "refused"]
        task = world.until_closed(world.create().id)
        assert (task.phase, task.reason) == (Phase.FAILED, "prompt: too rude")

    def test_a_control_is_made_once_a_day_and_path(self, world: World) -> None:
        for _ in range(3):
            world.until_closed(world.create().id)
        assert len(world.provider.controls) == 1
        world.clock.tick(86_400)
        world.until_closed(world.create().id)
        assert len(world.provider.controls) == 2

    def test_a_control_that_is_answered_with_another_task_is_missed(
        self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A relay that answers any reference with its newest task proves nothing."""
        world = World(cloud, profile={"hides_reference": True})
        real = world.provider.query

        def query(kind: str, asked: str) -> Any:
            answer = real(kind, asked)
            if len(asked) == 32 and isinstance(answer, Found):
                return Found(replace(answer.provider_task, upstream_id="up-77", ids=()))
            return answer

        monkeypatch.setattr(world.provider, "query", query)
        world.until_closed(world.create().id)
        monkeypatch.setattr(world.provider, "query", real)
        task = lost(world, "dropped")
        world.run(1800)
        assert world.task(task.id).phase is Phase.UNCONFIRMED and len(world.provider.posts) == 2


def test_an_error_that_names_a_task_is_billed_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real, first = world.provider._submit, [True]

    def submit(body: dict[str, Any]) -> Any:
        outcome = real(body)
        return Unknown("HTTP 429, code 1303, with the id of a task: full") if first and first.pop() else outcome

    monkeypatch.setattr(world.provider, "_submit", submit)
    task = world.create()
    assert world.until_closed(task.id).phase is Phase.SUCCEEDED and world.provider.billed(task.id) == 1
