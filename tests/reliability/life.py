"""One task's whole life under a plan of faults: a client that repeats itself, a provider, callbacks, time, sweeps."""

import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError
from kling_relay.schedule import WATCH_SECONDS
from kling_relay.task import CLOSED, Phase, Task

from tests.reliability import invariants
from tests.reliability.indexes import Lag
from tests.reliability.memory import Memory
from tests.unit.effects import Crash, Effects
from tests.unit.pictures import png, text
from tests.unit.world import BODY, World, as_task

SHORT = {"deadline_seconds": 500, "settle_seconds": 30}
MINUTES = 30  # more than the deadline and all pauses together


@dataclass(frozen=True)
class Profile:
    """How the provider behaves. `ends`: how a task may end if nothing else goes wrong."""

    posts: tuple[str, ...] = ()  # what becomes of one POST after the other
    ends: frozenset[Phase] = frozenset({Phase.SUCCEEDED})
    queries: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    end: str = "succeed"
    settings: dict[str, Any] = field(default_factory=dict)
    asked: bool = True  # whether it can be asked by our reference


LATE = frozenset({Phase.SUCCEEDED, Phase.EXPIRED})
PROFILES = {
    "accepts": Profile(),
    "answer_lost": Profile(("lost",)),
    "accepts_late": Profile(("lost:45",), LATE),
    "drops_park": Profile(("dropped",), LATE),
    "drops_retry": Profile(("dropped",), settings={"on_unconfirmed": "retry"}),
    "drops_unique": Profile(("dropped", "lost"), settings={"profile": {"unique_reference": True}}),
    "not_sent": Profile(("not_sent",)),
    "no_room": Profile(("no_room",)),
    "arrears": Profile(("arrears",)),
    "refuses": Profile(("refused",), frozenset({Phase.FAILED})),
    "blind": Profile(("lost",), LATE, settings={"profile": {"ask_by_reference": False}}, asked=False),
    "fails": Profile(ends=frozenset({Phase.FAILED}), end="failed"),
    "copy_fails": Profile(copies=("source_expired",)),
    "talks_nonsense": Profile(queries=("trouble", "odd", "unknown", "no_url", "foreign")),
}
# A sender that dies between claim and answer leaves a task that nobody may send again: it is parked to its deadline.
PARKED = frozenset({Phase.EXPIRED})


@dataclass(frozen=True)
class Story:
    """What differs between lives beside their faults."""

    render_seconds: float = 60
    callbacks: tuple[int, ...] = (95,)  # seconds after the POST
    inline: bool = False  # the image comes in the body: it is stored in S3 first
    gap_seconds: float = 1  # before the client repeats an unanswered request
    lag: int | None = None  # the seed of the indexes' lag; None: they show every write at once

    @classmethod
    def drawn(cls, dice: random.Random) -> "Story":
        callbacks = tuple(sorted(dice.choices(range(1, 400), k=dice.choice((0, 1, 1, 2, 5)))))
        seconds, inline, gap = dice.choice((3, 20, 60, 200)), dice.random() < 0.5, dice.choice((0.1, 1, 40))
        return cls(seconds, callbacks, inline, gap, dice.choice((None, dice.getrandbits(32))))


def history(world: World, since: int = 0) -> list[invariants.Change]:
    """Every version of every task row, as (before, after), without the table's first `since` writes; none of moto."""
    kept = getattr(world.dynamodb, "history", [])[since:]
    rows = [(was, row) for was, row in kept if row["pk"]["S"].startswith("task#")]
    return [(None if was is None else as_task(was), as_task(row)) for was, row in rows]


class Life:
    """A world with one request in it. `live` plays it to its end and leaves `world`, `answered` and `tasks`."""

    def __init__(self, profile: Profile, story: Story, cloud: Any = None) -> None:
        self.profile, self.story = profile, story
        self.world = World(cloud or Memory(), **{**SHORT, **profile.settings})
        if story.lag is not None:
            self.world.dynamodb.lag = Lag(lambda: self.world.clock.now, random.Random(story.lag))
        self.world.key()
        self.world.effects.names.clear()
        provider = self.world.provider
        provider.submit_faults, provider.query_faults = list(profile.posts), list(profile.queries)
        provider.end, provider.seconds = profile.end, story.render_seconds
        self.world.copy_faults = list(profile.copies)
        self.acknowledged: set[str] = set()
        self.kills: list[int] = []  # seconds at which every execution dies
        self._sweep_at = self.world.clock.now + 60_000

    @property
    def effects(self) -> Effects:
        return self.world.effects

    @property
    def tasks(self) -> list[Task]:
        return self.world.tasks()

    def live(self) -> "Life":
        self.ask()
        return self.end()

    def end(self) -> "Life":
        """From the answer to the end, with the story's callbacks and kills."""
        began = self.world.clock.now
        events = sorted([(at, "callback") for at in self.story.callbacks] + [(at, "kill") for at in self.kills])
        for minute in range(1, MINUTES + 1):
            while events and events[0][0] < minute * 60:
                at, what = events.pop(0)
                self.until(began + at * 1000)
                self._happen(what)
            self.until(began + minute * 60_000)
            if not events and all(task.phase in CLOSED for task in self.tasks):
                break
        if self._watched():
            self.until(self.world.clock.now + int(WATCH_SECONDS * 1000) + 120_000)
        return self

    def _watched(self) -> bool:
        """Whether something was bought that its client has been told to have expired, and that can still be found."""
        bought = self.world.provider.sold and self.profile.asked
        return bool(bought) and any(task.phase is Phase.EXPIRED for task in self.tasks)

    def ask(self) -> None:
        """The client repeats what was not answered, or answered with an error of ours, until it is served."""
        body = {**BODY, "image": text(png())} if self.story.inline else BODY
        for _ in range(5):
            with suppress(Crash):
                status, answer = self.world.post(body, **{"Idempotency-Key": "key-1"})
                if status == 200:
                    self.acknowledged.add(answer["data"]["task_id"])
                if status < 500:
                    return
            self.world.clock.tick(self.story.gap_seconds)
        raise AssertionError("no answer in five tries")

    def _happen(self, what: str) -> None:
        if what == "kill":
            self.world.states.kill()
        with suppress(Crash):
            for task in self.tasks if what == "callback" else []:
                sold = [one.upstream_id for one in self.world.provider.sold]
                assert self.world.callback(task, {"task_id": (sold or ["up-0"])[-1]}) == 200

    def until(self, ms: int) -> None:
        """Workflows wake when their wait is over, the sweeper comes every minute."""
        clock, states = self.world.clock, self.world.states
        while True:
            states.run()
            sleepers = [one.wakes for one in states.executions.values() if one.open and one.token is not None]
            clock.now = max(clock.now, min(ms, self._sweep_at, *sleepers))
            if clock.now >= self._sweep_at:
                self._sweep_at += 60_000
                with suppress(Crash, BotoCoreError):  # it fails as a whole, and comes again
                    self.world.sweep()
            elif clock.now >= ms:
                return

    def check(self) -> None:
        """The invariants, and that the task ended as its profile allows."""
        world, fired = self.world, self.effects.fired
        invariants.hold(world, self.acknowledged, history(world))
        assert len(self.tasks) == 1, f"{fired}: {self.tasks}"
        (task,) = self.tasks
        harmful = [fault for fault in fired if not fault.startswith("answer lost")]  # its repetition is answered
        assert task.phase in self.profile.ends | (PARKED if harmful else frozenset()), f"{fired}: {task}"
        if task.phase is Phase.EXPIRED:
            assert task.unsure_since is not None, f"{fired}: expired without a POST in doubt: {task}"
        bought = [sold for sold in world.provider.sold if sold.end == "succeed"]
        if bought and self.profile.asked:
            assert task.phase is Phase.SUCCEEDED, f"{fired}: a paid video is lost: {task}"
