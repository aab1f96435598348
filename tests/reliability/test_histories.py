"""Histories: any order of what clients, the provider, callbacks, polls, time, sweeps, copies and deaths can do.

Hypothesis draws them, and shortens one that breaks an invariant; the seed is the campaigns' own.
"""

import random
from contextlib import suppress
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from kling_relay.task import Task

from tests.reliability import invariants
from tests.reliability.campaign import Campaign
from tests.reliability.indexes import Lag
from tests.reliability.life import history
from tests.reliability.memory import Memory
from tests.unit.effects import DEATHS, LOST, Crash
from tests.unit.world import BODY, CLOSED, World

POST_FAULTS = ["accept", "lost", "lost:40", "dropped", "not_sent", "no_room", "arrears", "refused"]
QUERY_FAULTS = ["trouble", "unknown", "odd", "no_url", "foreign"]
DEADLINE = 1200
PARTS = 4  # so that processes share them


class History(RuleBasedStateMachine):
    campaign: ClassVar[Campaign]

    def __init__(self) -> None:
        super().__init__()
        self.world = World(Memory(), deadline_seconds=DEADLINE)  # type: ignore[arg-type]
        self.world.key("a")
        self.world.key("b")
        self.acknowledged: set[str] = set()
        self.ids: list[str] = []
        self.history: list[invariants.Change] = []
        self.checked = 0  # of the table's writes

    @initialize(lag=st.none() | st.integers(0, 2**32))
    def indexes_lag(self, lag: int | None) -> None:
        if lag is not None:
            self.world.dynamodb.lag = Lag(lambda: self.world.clock.now, random.Random(lag))

    def some(self, data: st.DataObject) -> Task | None:
        return self.world.task(data.draw(st.sampled_from(self.ids))) if self.ids else None

    @rule(tenant=st.sampled_from("ab"), order=st.integers(1, 3), fault=st.sampled_from(POST_FAULTS))
    def post(self, tenant: str, order: int, fault: str) -> None:
        self.world.provider.submit_faults[:0] = [fault]
        with suppress(Crash):
            status, answer = self.world.post({**BODY, "external_task_id": f"order-{order}"}, tenant=tenant)
            assert status in (200, 400, 503)
            if status == 200:
                self.acknowledged.add(answer["data"]["task_id"])

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
                    said = (own or ["up-0"])[0] if hint == "true" else hint
                    assert self.world.callback(task, {"task_id": said}) == 200

    @rule(data=st.data(), function=st.sampled_from(["advance_task", "archive_video"]), old=st.booleans())
    def step_comes_again(self, data: st.DataObject, function: str, old: bool) -> None:
        """A poll or a copy of an execution: once more, or too late."""
        if task := self.some(data):
            with suppress(Crash, Exception):
                self.world.call(function, {"task_id": task.id, "execution": task.id if old else task.execution})

    @rule(seconds=st.sampled_from([1, 7, 31, 61, 400, 1300, 22_000]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.tick(seconds)
        self.world.states.run()

    @rule()
    def sweep(self) -> None:
        with suppress(Crash, Exception):
            self.world.sweep()

    @rule()
    def workflows_die(self) -> None:
        self.world.states.kill()

    @rule(effects=st.integers(1, 6), fault=st.sampled_from([*DEATHS, *LOST]))
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
        world.provider.seconds = 60
        for _ in range(6):
            if not all(task.phase in CLOSED for task in world.tasks()):
                world.run(DEADLINE / 2, step=150)
        self.history += history(world, self.checked)
        invariants.hold(world, self.acknowledged, self.history)
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
