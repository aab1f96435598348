"""Run one task's whole life under a plan of faults: a client with retries, a provider, callbacks, time, sweeps."""

import random
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from botocore.exceptions import BotoCoreError
from kling_relay.lifecycle.polling import WATCH_SECONDS
from kling_relay.tasks.task import CLOSED, Phase, Task

from tests.reliability import invariants
from tests.support import counted_effects
from tests.support.counted_effects import Crash, Effects
from tests.support.dynamodb_indexes import Lag
from tests.support.fake_cloud import MemoryCloud
from tests.support.fake_provider import Sold, reordered
from tests.support.image_files import png, text
from tests.support.stack_in_memory import BODY, World, as_task

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
    denies: bool = False  # it answers so, but denies every reference
    settles: bool = False  # every doubt ends before the deadline, a dead sender's too
    bystander: bool = False  # another tenant's task is at the same account
    proved: bool = False  # that task has ended, so that a control has found it by its reference
    switch: dict[str, str] = field(default_factory=dict)  # settings that change while the task is open
    two_videos: bool = False  # which each answer lists in another order
    queued: float = 1  # seconds before it processes a task
    callbacks: tuple[int, ...] = (95,)  # seconds after the POST, in the plain story


LATE = frozenset({Phase.SUCCEEDED, Phase.EXPIRED})
FAILED = frozenset({Phase.FAILED})
RETRY, PARK, FAIL = ({"on_unconfirmed": policy} for policy in ("retry", "park", "fail"))
# Capture of the official host: a second task of one reference is refused, an unknown one is denied, a new one is found
# at once. Document: 503 with code 5001 is maintenance. Guess: it makes no task then.
OFFICIAL: dict[str, Any] = {
    "settle_seconds": 0,  # the profile's own
    "profile": {"unique_reference": True, "settle_seconds": 20, "denial_gap_seconds": 10, "maintenance_refuses": True},
}
HIDDEN = {"profile": {"hides_reference": True}}  # capture of CometAPI
BLIND = {"profile": {"ask_by_reference": False, "hides_reference": True}}  # document: other relays promise nothing more
PROFILES = {
    # Captures: how a task is taken, rendered and denied. Document: the codes of refusals.
    "accepts": Profile(),
    "not_sent": Profile(("not_sent",)),
    "no_room": Profile(("no_room",)),
    "arrears": Profile(("arrears",)),
    "refuses": Profile(("refused",), FAILED),
    "forbids": Profile(("forbidden",), FAILED),
    "fails": Profile(ends=FAILED, end="failed"),
    # Guess: what a broken connection hides. How late a task may appear is a guess, too.
    "answer_lost": Profile(("lost",)),
    "accepts_late": Profile(("lost:45",), LATE, settings=PARK),
    "drops_park": Profile(("dropped",), LATE, settings=PARK),
    "drops_retry": Profile(("dropped",), settings=RETRY, settles=True),
    "drops_fail": Profile(("dropped",), FAILED, settings=FAIL),
    "drops_auto": Profile(("dropped",), settles=True, bystander=True, proved=True),
    "denies_auto": Profile(("lost",), LATE, settings=HIDDEN, denies=True, bystander=True, proved=True),
    "denies_fail": Profile(("lost",), LATE | FAILED, settings=HIDDEN | FAIL, denies=True, queued=50),
    "drops_unique": Profile(("dropped", "lost"), settings={"profile": {"unique_reference": True}}, settles=True),
    "blind": Profile(("lost",), LATE, settings=BLIND, asked=False, callbacks=(10,)),
    "official_drops": Profile(("dropped", "lost"), settings=OFFICIAL, settles=True),
    "official_maintenance": Profile(("maintenance", "maintenance"), settings=OFFICIAL, settles=True),
    # Guess: "already exists" and the look-up disagree. It was never observed.
    "official_lags": Profile(("lost:300",), settings=OFFICIAL, settles=True),
    # Guesses at what an operator's settings, a firewall and a relay may do.
    "moved": Profile(("moved",), FAILED | {Phase.SUCCEEDED}),  # it succeeds if its client has its answer before
    "moved_meanwhile": Profile(("no_room", "moved")),
    "firewall": Profile(("firewall",), FAILED),
    "named_full": Profile(("named_full",), settings=HIDDEN),
    "named_refused": Profile(("named_refused",)),
    "named_200": Profile(("named_200",), settings=HIDDEN),
    "mixed_hidden": Profile(queries=("mixed",) * 6, settings=HIDDEN, bystander=True),
    "mixed_doubt": Profile(("lost",), queries=("mixed",) * 6, bystander=True),
    "copy_fails": Profile(copies=("source_expired",)),
    "reordered": Profile(copies=("second", "second"), two_videos=True),
    "talks_nonsense": Profile(queries=("trouble", "odd", "unknown", "no_url", "foreign")),
    "switched": Profile(("lost",), switch={"provider": "cometapi"}),
    "switched_drops": Profile(
        ("dropped",), settings=RETRY, settles=True, switch={"kling_base_url": "https://b.example"}
    ),
    "switched_room": Profile(("no_room",), switch={"provider_account": "2"}),
}
# A sender that dies between claim and answer leaves a task that nobody may send again: it is parked to its deadline.
PARKED = frozenset({Phase.EXPIRED})
HARMLESS = ("answer lost", *counted_effects.LATE)  # the repetition is answered
# Capture of clients: they send the same again after these, without an Idempotency-Key.
TRY_AGAIN = (429, 503)


@dataclass(frozen=True)
class Story:
    """What differs between lives beside their faults."""

    render_seconds: float = 60
    callbacks: tuple[int, ...] = (95,)  # seconds after the POST
    inline: bool = False  # the image comes in the body: it is stored in S3 first
    gap_seconds: float = 1  # before the client repeats an unanswered request
    lag: int | None = None  # the seed of the indexes' lag; None: they show every write at once
    keyed: bool = True  # it sends an Idempotency-Key, as no known client does

    @classmethod
    def drawn(cls, dice: random.Random) -> "Story":
        callbacks = tuple(sorted(dice.choices(range(1, 400), k=dice.choice((0, 1, 1, 2, 5)))))
        seconds, inline, gap = dice.choice((3, 20, 60, 200)), dice.random() < 0.5, dice.choice((0.1, 1, 40))
        lag = dice.choice((None, dice.getrandbits(32)))
        return cls(seconds, callbacks, inline, gap, lag, dice.random() < 0.5)


def history(world: World, since: int = 0) -> list[invariants.Change]:
    """Every version of every task row, as (before, after), without the table's first `since` writes; none of moto."""
    kept = getattr(world.dynamodb, "history", [])[since:]
    rows = [(was, row) for was, row in kept if row["pk"]["S"].startswith("task#")]
    tasks: dict[int, Task | None] = {id(None): None}  # one version is the end of a write and the beginning of the next
    for pair in rows:
        tasks |= {id(row): as_task(row) for row in pair if id(row) not in tasks and row is not None}
    return [(tasks[id(was)], tasks[id(row)]) for was, row in rows]  # type: ignore[misc]


class Life:
    """A world with one request in it. `live` plays it to its end and leaves `world`, `acknowledged` and `tasks`."""

    def __init__(self, profile: Profile, story: Story, cloud: Any = None) -> None:
        self.profile, self.story = profile, story
        self.world = World(cloud or MemoryCloud(), **{**SHORT, **profile.settings})
        if story.lag is not None:
            self.world.dynamodb.lag = Lag(lambda: self.world.clock.now, random.Random(story.lag))
        self.world.key()
        self.acknowledged: set[str] = set()
        self.told_again: set[str] = set()  # tasks whose client was told to send the same again
        self.named: set[str] = set()  # upstream ids that a callback has named, and nothing went wrong with it
        self.broken = 0  # requests whose connection died
        self.kills: list[int] = []  # seconds at which every execution dies
        self._sweep_at = self.world.clock.now + 60_000
        self._prepare()

    def _prepare(self) -> None:
        world, profile, provider = self.world, self.profile, self.world.provider
        provider.denies, provider.end, provider.queued = profile.denies, profile.end, profile.queued
        if profile.two_videos:
            provider.videos = reordered()
        if profile.bystander:
            provider.seconds = 20 if profile.proved else 120
            provider.denies = False
            bystander = world.create(tenant="bystander")
            if profile.proved:
                self.until(world.clock.now + 180_000)
                assert world.task(bystander.id).phase is Phase.SUCCEEDED
            provider.denies = profile.denies
        provider.seconds = self.story.render_seconds
        provider.submit_faults, provider.query_faults = list(profile.posts), list(profile.queries)
        world.copy_faults = list(profile.copies)
        world.effects.names.clear()

    @property
    def effects(self) -> Effects:
        return self.world.effects

    @property
    def tasks(self) -> list[Task]:
        return [task for task in self.world.tasks() if task.tenant == "acme"]

    def live(self) -> "Life":
        self.ask()
        return self.end()

    def end(self) -> "Life":
        """From the answer to the end, with the story's callbacks and kills."""
        began = self.world.clock.now
        events = sorted([(at, "callback") for at in self.story.callbacks] + [(at, "kill") for at in self.kills])
        if self.profile.switch:
            events.insert(0, (0, "switch"))
        for minute in range(1, MINUTES + 1):
            while events and events[0][0] < minute * 60:
                at, what = events.pop(0)
                self.until(began + at * 1000)
                self._happen(what)
            self.until(began + minute * 60_000)
            if not events and all(task.phase in CLOSED for task in self.world.tasks()):
                break
        if self._watched():
            # The sweeper comes once a minute. Its clock, and that of the call before it, may each be a minute wrong.
            self.until(self.world.clock.now + int(WATCH_SECONDS * 1000) + 240_000)
        return self

    def _watched(self) -> bool:
        """Whether something was bought that its client has been told to have expired, and that can still be found."""
        return any(task.phase is Phase.EXPIRED and self._can_be_found(task) for task in self.tasks)

    def _sold(self, task: Task) -> list[Sold]:
        return [one for one in self.world.provider.sold if one.reference == task.id]

    def _can_be_found(self, task: Task) -> bool:
        by_reference = self.profile.asked and not self.profile.denies
        return any(by_reference or sold.upstream_id in self.named for sold in self._sold(task))

    def ask(self) -> None:
        """The client repeats what was not answered, and what it was told to try again, until it is served."""
        for _ in range(5):
            if self._served():
                return
            self.world.clock.tick(self.story.gap_seconds)
        raise AssertionError("no answer in five tries")

    def _served(self) -> bool:
        """One request; whether its client is content: with its task, or with an error that does not pass."""
        body = {**BODY, "image": text(png())} if self.story.inline else BODY
        key = {"Idempotency-Key": "key-1"} if self.story.keyed else {}
        before = {task.id for task in self.tasks}
        try:
            status, answer = self.world.post(body, **key)
        except Crash:
            self.broken += 1
            return False
        if status == 200:
            self.acknowledged.add(answer["data"]["task_id"])
        if status in TRY_AGAIN:
            self.told_again |= {task.id for task in self.tasks} - before
        return status not in TRY_AGAIN

    def _happen(self, what: str) -> None:
        if what == "kill":
            self.world.states.kill()
        if what == "switch":
            settings = self.world.services.settings
            self.world.services.settings = replace(settings, **self.profile.switch)
            self.world.provider = self.world.provider.another()
            self.world.services.provider = self.world.provider  # type: ignore[assignment]
        for task in self.tasks if what == "callback" else []:
            names = [sold.upstream_id for sold in self._sold(task)]
            fired = len(self.effects.fired)
            with suppress(Crash):
                body = {"task_id": (names or ["up-0"])[-1]}
                if self.world.callback(task, body) == 503:  # it could not be kept: the provider repeats it
                    assert self.world.callback(task, body) == 200
            if len(self.effects.fired) == fired:
                self.named.update(names)

    def until(self, ms: int) -> None:
        """Workflows wake when their wait is over, the sweeper comes every minute."""
        clock, states = self.world.clock, self.world.states
        while True:
            states.run()
            sleepers = [one.wakes for one in states.executions.values() if one.open and one.token is not None]
            clock.now = max(clock.now, min(ms, self._sweep_at, *sleepers))
            if clock.now >= self._sweep_at:
                self._sweep_at += 60_000
                try:
                    self.world.sweep()
                except (Crash, BotoCoreError) as exc:  # it fails as a whole, and comes again
                    self.world.record_error(exc)
            elif clock.now >= ms:
                return

    def check(self) -> None:
        """The invariants, and that every task ended as its profile allows."""
        world, fired, tasks = self.world, self.effects.fired, self.tasks
        invariants.hold(world, self.acknowledged, history(world))
        assert 1 <= len(tasks) <= 1 + (0 if self.story.keyed else self.broken), f"{fired}: {tasks}"
        for task in tasks:
            self._check(task, other=len(tasks) > 1)
        for task in world.tasks():
            assert task.tenant == "acme" or task.phase is Phase.SUCCEEDED, f"{fired}: a bystander: {task}"

    def _check(self, task: Task, other: bool) -> None:
        """`other`: its client has sent the request twice, and the provider's faults may have met the other task."""
        fired, ends = self.effects.fired, self.profile.ends
        harmful = [fault for fault in fired if not fault.startswith(HARMLESS)]
        if harmful and not self.profile.settles:
            ends |= PARKED
        if other and self.profile.end == "succeed":
            ends |= FAILED | {Phase.SUCCEEDED}
        sold = self._sold(task)
        assert task.phase in ends, f"{fired}: {task}; the provider sold {sold or 'nothing'}"
        if task.phase is Phase.EXPIRED:
            assert task.unsure_since is not None, f"{fired}: expired without a POST in doubt: {task}"
        if self.profile.end == "succeed" and self._can_be_found(task):
            assert task.phase in {Phase.SUCCEEDED} | (self.profile.ends & FAILED), (
                f"{fired}: a paid video is lost: {task}"
            )
        if not self.story.keyed and task.id in self.told_again:
            assert not sold, f"{fired}: its client was told to try again: {task}"
        if self.profile.two_videos and task.phase is Phase.SUCCEEDED:
            stored = [
                self.world.s3.get_object(Bucket="videos", Key=video["key"])["Body"].read() for video in task.videos
            ]
            assert sorted(stored) == [b"file-A", b"file-B"], f"{fired}: one twice, one lost: {task}"
