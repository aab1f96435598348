"""Build rows and provider tasks, consistent and inconsistent ones, in the table and in the simulator's ledger."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from kling_relay.dynamodb import value
from kling_relay.operations import reconcile
from kling_relay.operations.discrepancies import FindingType
from kling_relay.tasks.task import Phase, Task, new_task_id
from kling_relay.tasks.task_row import new_item

from local.simulator import Simulator
from local.simulator.dialects import KINDS
from local.simulator.ledger import Entry
from tests.support.stack_in_memory import World

MINUTE, DAY = 60_000, 86_400_000
P = Phase


@dataclass
class RowBuilder:
    """Build rows and tasks. `expected`: (finding, our id, the provider's id) of every inconsistency built so far."""

    world: World
    sim: Simulator | None = None
    dialect: str = "official"
    provider: str = "kling"
    seed: int = 1
    expected: set[tuple[str, str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self._entries: list[Entry] = []

    def random_time(self) -> int:
        return self.world.clock.now - int(self.dice.uniform(0.02, 28) * DAY)

    def row(self, phase: Phase, *, owned: bool = True, by: str = "", kept: bool = True, **fields: Any) -> Task:
        """Store one of our tasks.

        `owned`: with the pointer of its upstream id, under the provider `by`. `kept`: False for a row that its TTL has
        removed.
        """
        task_id, born = new_task_id(), fields.pop("created_at", None) or self.random_time()
        known = {"claimed_at": born, "due_at": None if phase in (P.SUCCEEDED, P.FAILED) else born + DAY}
        known |= {"kind": self.dice.choice(KINDS), "updated_at": born, "request": {"prompt": "canary-prompt"}}
        task = Task(id=task_id, tenant="acme", phase=phase, created_at=born, **{**known, **fields})
        items = [new_item(task)] if kept else []
        if owned and task.upstream_id is not None:
            pk = f"upstream#{by or self.provider}#{task.upstream_id}"
            items.append({"pk": value(pk), "task_id": value(task.id)})
        for item in items:
            self.world.dynamodb.put_item(TableName=self.world.table.rows.name, Item=item)
        return task

    def provider_task(
        self, task: Task | None, status: str, *, upstream_id: str = "", reference: str | None = "", units: str = "1.5"
    ) -> Entry:
        """Add a task of the provider's; for `task`, if given, under its reference unless `reference` replaces it."""
        upstream_id = upstream_id or (task.upstream_id if task is not None else None) or self.number()
        at = self.random_time() if task is None else task.claimed_at or task.created_at
        entry = Entry(
            task_id=upstream_id,
            kling_id=upstream_id,
            dialect=self.dialect,
            kind=task.kind if task is not None else self.dice.choice(KINDS),
            external_task_id=task.id if reference == "" and task is not None else reference or None,
            model_name="kling-v3",
            accepted_at=at,
            units=units,
            request={"prompt": "canary-prompt"},
            callback_url=None,
            seconds=5,
            render_seconds=60,
            status=status,
            status_msg="blocked" if status == "failed" else "",
            video_id="v",
            video_seconds="5.1",
        )
        self._entries.append(entry)
        return entry

    def number(self) -> str:
        return str(self.dice.randrange(10**17, 10**18))

    def expect(self, what: FindingType, task: Task | None, entry: Entry | None) -> None:
        upstream_id = entry.task_id if entry is not None else task.upstream_id if task is not None else None
        ours = task.id if task is not None else entry.external_task_id if entry is not None else None
        self.expected.add((what, ours or "", upstream_id or ""))

    def list_at_provider(self, order: Callable[[Entry], Any] = lambda entry: entry.accepted_at) -> None:
        """Give all tasks to the provider, in the order in which it lists them (last first)."""
        assert self.sim is not None
        for entry in sorted(self._entries, key=order):
            self.sim.ledger.accept(entry)

    # -- consistent lives

    def sound(self, count: int) -> None:
        lives = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("_sound_")]
        for number in range(count):
            lives[number % len(lives)]()

    def _sound_succeeded(self) -> None:
        self.provider_task(self.row(P.SUCCEEDED, upstream_id=self.number(), units="1.50"), "succeed")

    def _sound_failed(self) -> None:
        self.provider_task(self.row(P.FAILED, upstream_id=self.number()), "failed")

    def _sound_running(self) -> None:
        phase, status = self.dice.choice(
            [(P.SUBMITTED, "processing"), (P.PROCESSING, "succeed"), (P.RENDERED, "succeed")]
        )
        self.provider_task(self.row(phase, upstream_id=self.number()), status)  # fmt: skip

    def _sound_expired(self) -> None:
        status = self.dice.choice(["processing", "failed"])
        self.provider_task(self.row(P.EXPIRED, upstream_id=self.number(), expired_at=1), status)

    def _sound_deleted(self) -> None:
        phase = self.dice.choice([P.SUCCEEDED, P.FAILED])
        self.provider_task(self.row(phase, upstream_id=self.number(), deleted_at=1, units="9"), "succeed")

    def _sound_refused(self) -> None:
        self.row(P.FAILED, refusal_code=1201)

    def _sound_waiting(self) -> None:
        self.row(P.ACCEPTED)

    def _sound_removed(self) -> None:
        self.provider_task(self.row(P.SUCCEEDED, upstream_id=self.number(), kept=False), "succeed")

    def _sound_in_flight(self) -> None:
        now = self.world.clock.now
        old: dict[str, Any] = {"created_at": now - DAY, "claimed_at": now - 5_000}
        rows: list[Callable[[], Task]] = [
            lambda: self.row(P.SUBMITTING, **old, lease_until=now + 20_000),
            lambda: self.row(P.SUBMITTING, created_at=now - 3 * MINUTE, lease_until=now - 60_000),
            lambda: self.row(P.UNCONFIRMED, **{**old, "claimed_at": now - DAY}, unsure_since=now - 60_000),
            lambda: self.row(P.ACCEPTED, created_at=now - 30_000),
        ]
        task = self.dice.choice(rows)()
        if self.dice.random() < 0.5:
            self.provider_task(task, "submitted")

    def _sound_just_adopted(self) -> None:
        self.row(P.SUBMITTED, created_at=self.world.clock.now - 10_000, upstream_id=self.number())

    def _sound_somebody_elses(self) -> None:
        reference = self.dice.choice([None, "order-4711", "a" * 31, "A" * 32, "z" * 32, "0" * 33, "text2video_final-1"])
        self.provider_task(None, self.dice.choice(["succeed", "failed", "processing"]), reference=reference)

    def _sound_with_another_provider(self) -> None:
        self.row(P.SUCCEEDED, upstream_id=self.number(), by="powertokens")

    def _sound_under_another_profile(self) -> None:
        self.provider_task(self.row(P.SUCCEEDED, upstream_id=self.number(), by="other-profile"), "succeed")

    def _sound_about_to_be_forgotten(self) -> None:
        born = self.world.clock.now - int(29.5 * DAY)
        self.row(P.SUCCEEDED, created_at=born, upstream_id=self.number())

    # -- inconsistencies

    def broken(self, count: int) -> None:
        for number in range(count):
            what = list(FindingType)[number % len(FindingType)]
            getattr(self, f"_{what}")()

    def _billed_twice(self) -> None:
        task = self.row(P.SUCCEEDED, upstream_id=self.number())
        self.provider_task(task, "succeed")
        self.expect(FindingType.BILLED_TWICE, task, self.provider_task(task, "succeed", upstream_id=self.number()))

    def _no_row(self) -> None:
        self.expect(FindingType.NO_ROW, None, self.provider_task(None, "succeed", reference=new_task_id()))

    def _not_adopted(self) -> None:
        task = self.row(self.dice.choice([P.FAILED, P.ACCEPTED]), unsure_since=self.random_time())
        self.expect(FindingType.NOT_ADOPTED, task, self.provider_task(task, "succeed"))

    def _not_kept(self) -> None:
        task = self.row(self.dice.choice([P.FAILED, P.EXPIRED]), upstream_id=self.number())
        self.expect(FindingType.NOT_KEPT, task, self.provider_task(task, "succeed"))

    def _unconfirmed(self) -> None:
        phase = self.dice.choice([P.UNCONFIRMED, P.EXPIRED, P.SUBMITTING])
        self.expect(FindingType.UNCONFIRMED, self.row(phase, unsure_since=self.random_time(), lease_until=1), None)

    def _denied(self) -> None:
        phase = self.dice.choice([P.SUCCEEDED, P.FAILED, P.PROCESSING, P.EXPIRED])
        self.expect(FindingType.DENIED, self.row(phase, upstream_id=self.number()), None)

    def _wrong_task(self) -> None:
        task = self.row(P.SUCCEEDED, upstream_id=self.number())
        reference = self.dice.choice([new_task_id(), "order-1"])
        self.expect(FindingType.WRONG_TASK, task, self.provider_task(task, "succeed", reference=reference))

    def _end_differs(self) -> None:
        task = self.row(P.SUCCEEDED, upstream_id=self.number())
        self.expect(FindingType.END_DIFFERS, task, self.provider_task(task, "failed"))

    def _units_differ(self) -> None:
        task = self.row(P.SUCCEEDED, upstream_id=self.number(), units="1")
        self.expect(FindingType.UNITS_DIFFER, task, self.provider_task(task, "succeed"))


@pytest.fixture
def builder(world: World, monkeypatch: pytest.MonkeyPatch) -> RowBuilder:
    """Return an empty builder; pauses of a report advance the clock."""
    monkeypatch.setattr(reconcile, "sleep", world.clock.tick)
    return RowBuilder(world)
