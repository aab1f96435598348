"""Test histories: any order of actions of clients, provider, callbacks, polls, time, sweeps, copies and deaths.

Hypothesis draws them, and shortens one that breaks an invariant; the seed is the campaigns' own. No client gets a retry
hint for a task that is paid for. No function raises or catches an error without a planned fault.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from kling_relay.tasks.task import Task

from tests.reliability import invariants
from tests.reliability.campaign import Campaign
from tests.reliability.life import OFFICIAL, TRY_AGAIN, history
from tests.support.counted_effects import DEATHS, LATE, LOST, Crash, planned
from tests.support.dynamodb_indexes import Lag
from tests.support.fake_cloud import MemoryCloud
from tests.support.stack_in_memory import BODY, CLOSED, World

POST_FAULTS = ["accept", "lost", "lost:40", "dropped", "not_sent", "no_room", "arrears", "refused"]
POST_FAULTS += [
    "named_full",
    "named_refused",
    "named_down",
    "named_200",
    "maintenance",
    "moved",
    "forbidden",
    "firewall",
]
QUERY_FAULTS = ["trouble", "unknown", "odd", "no_url", "foreign", "mixed"]
# Each history has one of these. What they are believed after: life.py.
PROVIDERS: list[dict[str, Any]] = [{}, {"hides_reference": True}, OFFICIAL["profile"]]
ANSWERS = (200, 400, 403, 429, 500, 503)
DEADLINE = 1200
PARTS = 4  # so that processes share them


class History(RuleBasedStateMachine):
    campaign: ClassVar[Campaign]

    @initialize(profile=st.sampled_from(PROVIDERS), lag=st.none() | st.integers(0, 2**32))
    def begin(self, profile: dict[str, Any], lag: int | None) -> None:
        """`lag`: the seed of the indexes' lag; None: they show every write at once."""
        self.world = World(MemoryCloud(), deadline_seconds=DEADLINE, profile=profile)  # type: ignore[arg-type]
        if lag is not None:
            self.world.dynamodb.lag = Lag(lambda: self.world.clock.now, random.Random(lag))
        self.world.key("a")
        self.world.key("b")
        self.acknowledged: set[str] = set()
        self.told_again: set[str] = set()  # tasks whose client was told to send the same again, and has no name for it
        self.ids: list[str] = []
        self.history: list[invariants.Change] = []
        self.checked = 0  # of the table's writes

    def some(self, data: st.DataObject) -> Task | None:
        return self.world.task(data.draw(st.sampled_from(self.ids))) if self.ids else None

    @rule(tenant=st.sampled_from("ab"), order=st.integers(0, 3), fault=st.sampled_from(POST_FAULTS))
    def post(self, tenant: str, order: int, fault: str) -> None:
        """Order 0 has no name of its own."""
        world = self.world
        world.provider.submit_faults[:0] = [fault]
        writes, sales = len(world.dynamodb.history), len(world.provider.sold)
        named = {"external_task_id": f"order-{order}"} if order else {}
        with suppress(Crash):
            status, answer = world.post({**BODY, **named}, tenant=tenant)
            assert status in ANSWERS, answer
            if status == 200:
                self.acknowledged.add(answer["data"]["task_id"])
                return
            made = {task.id for was, task in history(world, writes) if was is None}
            untold = {task_id for task_id in made if task_id not in answer["message"]}
            sold = {sold.reference for sold in world.provider.sold[sales:]}
            assert not untold & sold, f"{status}, and sold: {answer}"
            if status in TRY_AGAIN and not order:
                self.told_again |= untold

    @rule(fault=st.sampled_from(QUERY_FAULTS), times=st.integers(1, 3))
    def provider_talks_nonsense(self, fault: str, times: int) -> None:
        self.world.provider.query_faults += [fault] * times

    @rule(end=st.sampled_from(["succeed", "failed"]), seconds=st.sampled_from([5, 60, 4000]))
    def provider_changes(self, end: str, seconds: int) -> None:
        self.world.provider.end, self.world.provider.seconds = end, seconds

    @rule(reason=st.sampled_from(["source_expired", "storage"]))
    def copy_will_fail(self, reason: str) -> None:
        self.world.copy_faults.append(reason)

    @rule(data=st.data(), hint=st.sampled_from(["true", "up-1", "up-2", "nonsense"]), times=st.integers(1, 3))
    def callback(self, data: st.DataObject, hint: str, times: int) -> None:
        if task := self.some(data):
            own = [sold.upstream_id for sold in self.world.provider.sold if sold.reference == task.id]
            for _ in range(times):
                with suppress(Crash):
                    named = (own or ["up-0"])[0] if hint == "true" else hint
                    if not self.provable(named, own):
                        named = "nonsense"
                    assert self.world.callback(task, {"task_id": named}) in (200, 503)  # 503: it could not be kept

    def provable(self, upstream_id: str, own: list[str]) -> bool:
        """Whether the relay can find out that a callback names a task of somebody else. It cannot if the provider hides
        references and no row owns the id yet. Only the provider has the callback's token, so only it could lie so."""
        world = self.world
        if upstream_id in own or not world.provider.profile.hides_reference:
            return True
        sold = {sold.upstream_id for sold in world.provider.sold}
        owned = {task.upstream_id for task in world.tasks()}
        return upstream_id not in sold or upstream_id in owned

    @rule(data=st.data(), function=st.sampled_from(["advance_task", "archive_video"]), old=st.booleans())
    def step_comes_again(self, data: st.DataObject, function: str, old: bool) -> None:
        """A poll or a copy of an execution: once more, or too late."""
        if task := self.some(data):
            event = {"task_id": task.id, "execution": task.id if old else task.execution}
            self.survive(lambda: self.world.call(function, event))

    def survive(self, act: Callable[[], Any]) -> None:
        """AWS repeats a function that dies or raises; only a planned fault may be the reason."""
        try:
            act()
        except (Exception, Crash) as exc:
            if not planned(exc):
                raise

    @rule(seconds=st.sampled_from([1, 7, 31, 61, 400, 1300, 22_000]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.tick(seconds)
        self.world.states.run()

    @rule()
    def sweep(self) -> None:
        self.survive(self.world.sweep)

    @rule()
    def workflows_die(self) -> None:
        self.world.states.kill()

    @rule(effects=st.integers(1, 6), fault=st.sampled_from([*DEATHS, *LOST, *LATE]))
    def something_will_fail(self, effects: int, fault: str) -> None:
        self.world.effects.after(effects, fault)

    @invariant()
    def nothing_is_lost_or_bought_twice(self) -> None:
        new = history(self.world, self.checked)
        self.checked = len(self.world.dynamodb.history)
        self.ids += [task.id for was, task in new if was is None]
        for task_id in {task.id for _, task in new}:
            self.world.sound(self.world.row(f"task#{task_id}"))
        self.history += new
        assert self.acknowledged <= set(self.ids)
        assert {sold.reference for sold in self.world.provider.sold} <= set(self.ids)

    def teardown(self) -> None:
        world = self.world
        world.effects.plan.clear()
        world.provider.submit_faults.clear()
        world.provider.query_faults.clear()
        world.copy_faults.clear()
        world.provider.seconds = 60  # of what is sent from here on
        for _ in range(6):
            if not all(task.phase in CLOSED for task in world.tasks()):
                world.run(DEADLINE / 2, step=150)
        self.history += history(world, self.checked)
        invariants.hold(world, self.acknowledged, self.history)
        assert not self.told_again & {sold.reference for sold in world.provider.sold}, "told to try again, and sold"
        self.campaign.expect_no_surprise()
        self.campaign.figures["lives"] += 1
        self.campaign.figures["effects"] += len(world.effects.names)


def play(campaign: Campaign, part: int, *phases: Phase) -> None:
    History.campaign = campaign
    wanted = settings(
        max_examples=campaign.size(600, 10_000) // PARTS,
        stateful_step_count=25,
        phases=phases or tuple(Phase),
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(seed(campaign.seed * PARTS + part)(History), settings=wanted)
    assert campaign.lives >= wanted.max_examples


@pytest.mark.parametrize("part", range(PARTS))
def test_histories(campaign: Campaign, part: int) -> None:
    play(campaign, part)
