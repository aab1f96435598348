"""Simulate many tasks at few slots: uneven tenants, a provider that sends callbacks, virtual time; count the costs."""

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from kling_relay.tasks.task import CLOSED, Phase, Task
from kling_relay.tasks.task_row import new_item

from tests.support.dynamodb_indexes import Lag
from tests.support.stack_in_memory import BODY, World

SWEEP_MS = 60_000
SHARES = {"globex": 140, "acme": 30, "initech": 20, "umbrella": 10}  # of 200 tasks: one tenant sends most


def uneven(tasks: int, dice: random.Random, gap: float = 0.5) -> list[tuple[float, str]]:
    """(second, tenant) of each POST: shares as above, in any order, one every `gap` seconds."""
    tenants = [tenant for tenant, share in SHARES.items() for _ in range(max(1, share * tasks // 200))]
    dice.shuffle(tenants)
    return [(number * gap, tenant) for number, tenant in enumerate(tenants)]


@dataclass
class Crowd:
    """Sends `arrivals` to the world's API and lives until all tasks have ended. `slots`: (second, how many the provider
    has from then on; -1 for none; or the name of what becomes of every POST from then on). `renders`: the shortest and
    the longest render (s). `lag`: the dice of the indexes' lag. `backlog`: a tenant and how many tasks of it wait from
    the start; the crowd need not live to their end."""

    world: World
    arrivals: list[tuple[float, str]]
    dice: random.Random
    slots: list[tuple[float, int | str]] = field(default_factory=lambda: [(0, 3)])
    renders: tuple[float, float] = (20.0, 30.0)  # about when kling-v2-5-turbo's first poll is due, at 25 s
    callbacks: bool = True
    lag: random.Random | None = None
    backlog: tuple[str, int] | None = None
    ids: list[str] = field(default_factory=list)
    errors: list[Any] = field(default_factory=list)  # what no client should have seen
    idle_ms: int = 0  # the longest time in which a slot was free while tasks waited
    _free_since: int | None = None

    def play(self, *, hours: float = 24) -> "Crowd":
        world, start = self.world, self.world.clock.now
        if self.lag is not None:
            world.dynamodb.lag = Lag(lambda: world.clock.now, self.lag)
        if self.backlog is not None:
            self._wait(*self.backlog)
        events: list[tuple[int, int, str, Any]] = []  # (ms, order, what, about)
        for second, about in self.slots:
            heapq.heappush(events, (start + int(second * 1000), len(events), "slots", about))
        for second, about in self.arrivals:
            heapq.heappush(events, (start + int(second * 1000), len(events), "post", about))
        heapq.heappush(events, (start + SWEEP_MS, len(events), "sweep", None))
        order, told, posts = len(events), 0, len(self.arrivals)
        while world.clock.now < start + hours * 3_600_000:
            world.provider.seconds = self.dice.uniform(*self.renders)
            world.states.run()
            for sold in world.provider.sold[told:]:
                order += 1
                heapq.heappush(events, (sold.at + int(sold.seconds * 1000) + 1, order, "end", sold.reference))
            told = len(world.provider.sold)
            self._watch_slots()
            if len(self.ids) + len(self.errors) >= posts and self._all_ended():
                break
            sleepers = [one.wakes for one in world.states.executions.values() if one.open and one.token is not None]
            world.clock.now = max(world.clock.now, min([*sleepers, events[0][0]]))
            if events[0][0] <= world.clock.now:
                at, _, what, about = heapq.heappop(events)
                getattr(self, f"_{what}")(about)
                if what == "sweep":
                    heapq.heappush(events, (at + SWEEP_MS, order, "sweep", None))
        return self

    def _wait(self, tenant: str, tasks: int) -> None:
        """Rows as `tasks` POSTs of `tenant` leave them at a provider without room; put past the API, which is slow."""
        self.world.services.admissions.stop(self.world.clock.now, "a long list")
        first = self.world.create(tenant=tenant)
        row = self.world.row(f"task#{first.id}")
        for number in range(1, tasks):
            name = f"{number:032x}"
            made = new_item(replace(first, id=name, execution=name))
            item = {**made, "queue": row["queue"], "due_at": row["due_at"]}
            self.world.dynamodb.put_item(TableName=self.world.table.rows.name, Item=item)
        self.world.services.admissions.resume()

    def _all_ended(self) -> bool:
        if self.backlog is not None:
            return all(self.world.task(task_id).phase in CLOSED for task_id in self.ids)
        busy = any(one.open for one in self.world.states.executions.values())
        return not busy and all(task.phase in CLOSED for task in self.world.tasks())

    def _slots(self, slots: int | str) -> None:
        if isinstance(slots, str):
            self.world.provider.usually = slots
        else:
            self.world.provider.slots = slots

    def _post(self, tenant: str) -> None:
        status, answer = self.world.post(BODY, tenant=tenant)
        if status == 200 and answer["data"]["task_status"] == "submitted":
            self.ids.append(answer["data"]["task_id"])
        else:
            self.errors.append((status, answer))

    def _end(self, task_id: str) -> None:
        if self.callbacks:
            assert self.world.callback(self.world.task(task_id)) == 200

    def _sweep(self, _: None) -> None:
        self.world.sweep()
        for task_id in self.dice.sample(self.ids, min(4, len(self.ids))):
            task = self.world.task(task_id)
            path = f"/kling/v1/videos/image2video/{task_id}"
            status, answer = self.world.http("GET", path, authorization=self.world.key(task.tenant))
            waits = task.phase is Phase.ACCEPTED
            if status != 200 or (waits and answer["data"]["task_status"] != "submitted"):
                self.errors.append((status, answer))

    def _watch_slots(self) -> None:
        provider, now = self.world.provider, self.world.clock.now
        if self._free_since is not None:
            self.idle_ms = max(self.idle_ms, now - self._free_since)
        if provider.running() >= provider.slots or not self.world.table.queue.waiting(1):
            self._free_since = None
        elif self._free_since is None:
            self._free_since = now

    # -- what it came to

    @property
    def posts(self) -> float:
        """POSTs to the provider a task."""
        return round(len(self.world.provider.posts) / len(self.ids), 2)

    @property
    def transitions(self) -> float:
        """State transitions a task."""
        return round(sum(self.world.states.transitions.values()) / len(self.ids), 2)

    def longest_wait(self) -> int:
        """In turns: the most tasks of others that the provider took while a tenant had a task waiting and got no place.
        Of the tenants that send to the API: the one of a backlog is not among them."""
        tasks = {task.id: task for task in self.world.tasks()}
        sold = [(tasks[one.reference].tenant, one.at) for one in self.world.provider.sold]
        return max(
            self._waits([tasks[one] for one in self.ids], name, sold) for name in {name for _, name in self.arrivals}
        )

    def _waits(self, tasks: list[Task], tenant: str, sold: list[tuple[str, int]]) -> int:
        place = {one.reference: number for number, one in enumerate(self.world.provider.sold)}
        mine = [(task.created_at, place[task.id]) for task in tasks if task.tenant == tenant]
        maximum = count = 0
        for number, (served, at) in enumerate(sold):
            if served == tenant:
                count = 0
            elif any(born < at and number < turn for born, turn in mine):
                count += 1
            maximum = max(maximum, count)
        return maximum

    def unbilled(self) -> Iterator[str]:
        """Tasks that were not billed exactly once."""
        return (task_id for task_id in self.ids if self.world.provider.billed(task_id) != 1)
