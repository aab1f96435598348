"""Any order of what clients, the provider, callbacks, time, the sweeper and deaths can do."""

from contextlib import suppress
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from kling_relay.task import Phase, Task

from tests.unit.world import BODY, CLOSED, Cloud, Crash, World

RANK = {Phase.SUBMITTED: 1, Phase.PROCESSING: 2, Phase.RENDERED: 3} | dict.fromkeys(CLOSED, 4)
POST_FAULTS = ["accept", "lost", "lost:40", "dropped", "not_sent", "no_room", "arrears", "refused"]
QUERY_FAULTS = ["trouble", "unknown", "odd", "no_url", "foreign"]
DEADLINE = 1200


class Life(RuleBasedStateMachine):
    cloud: ClassVar[Cloud]

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.cloud, deadline_seconds=DEADLINE)
        self.world.key("a")
        self.world.key("b")
        self.seen: dict[str, Task] = {}
        self.moved_late: set[str] = set()
        self.answered: set[str] = set()

    @rule(tenant=st.sampled_from("ab"), order=st.integers(1, 3), fault=st.sampled_from(POST_FAULTS))
    def post(self, tenant: str, order: int, fault: str) -> None:
        self.world.provider.submit_faults[:0] = [fault]
        with suppress(Crash):
            status, answer = self.world.post({**BODY, "external_task_id": f"order-{order}"}, tenant=tenant)
            assert status in (200, 400)
            if status == 200:
                self.answered.add(answer["data"]["task_id"])

    @rule(fault=st.sampled_from(QUERY_FAULTS), times=st.integers(1, 3))
    def provider_talks_nonsense(self, fault: str, times: int) -> None:
        self.world.provider.query_faults += [fault] * times

    @rule(end=st.sampled_from(["succeed", "failed"]), seconds=st.sampled_from([5, 60, 4000]))
    def provider_changes(self, end: str, seconds: int) -> None:
        self.world.provider.end, self.world.provider.seconds = end, seconds

    @rule(reason=st.sampled_from(["source_expired", "storage"]))
    def copy_will_fail(self, reason: str) -> None:
        self.world.copy_faults.append(reason)

    @rule(data=st.data(), hint=st.sampled_from(["up-1", "up-2", "nonsense"]))
    def callback(self, data: st.DataObject, hint: str) -> None:
        if self.seen:
            task = self.seen[data.draw(st.sampled_from(sorted(self.seen)))]
            with suppress(Crash):
                assert self.world.callback(task, {"task_id": hint}) == 200

    @rule(seconds=st.sampled_from([1, 7, 31, 61, 400, 1300, 22_000]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.tick(seconds)
        self.world.states.run()

    @rule()
    def sweep(self) -> None:
        with suppress(Crash):
            self.world.sweep()

    @rule()
    def workflows_die(self) -> None:
        self.world.states.kill()

    @rule(effects=st.integers(1, 6), before=st.booleans())
    def somebody_will_die(self, effects: int, before: bool) -> None:
        self.world.effects.after(effects, "dies before" if before else "dies after")

    @invariant()
    def rows_are_sound(self) -> None:
        now = {task.id: task for task in self.world.tasks()}  # checks due_at and the ledger, row by row
        assert set(self.seen) <= set(now) and self.answered <= set(now)
        for task_id, task in now.items():
            if task_id in self.seen:
                self._follows(self.seen[task_id], task)
        self.seen = now
        assert {sold.reference for sold in self.world.provider.sold} <= set(now)

    def _follows(self, was: Task, task: Task) -> None:
        if was.phase in (Phase.SUCCEEDED, Phase.FAILED):
            assert task == was, "an end is an end"
        if was.phase is Phase.EXPIRED and task.phase in (Phase.RENDERED, Phase.SUCCEEDED):
            assert task.id not in self.moved_late, "the late move happens once"
            self.moved_late.add(task.id)
            return
        assert RANK.get(task.phase, 0) >= RANK.get(was.phase, 0), f"{was.phase} -> {task.phase}"
        assert was.upstream_id in (None, task.upstream_id)

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
            self.rows_are_sound()
        assert all(task.phase in CLOSED for task in self.seen.values()), "a task is stuck"


def test_life(cloud: Cloud) -> None:
    Life.cloud = cloud
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    wanted = settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(Life, settings=wanted)
