"""Test an upgrade from c90a538 in the middle of a task's life, at any effect of the old functions.

Sources of the beliefs. Capture: all writes of the old version (tests/fixtures/c90a538.json). Document (AWS): an update
of a stack replaces one function after the other, a running invocation ends with its old code, and an execution keeps
its definition. Guess: the time that an old invocation pauses while new ones act.
"""

import json
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError
from kling_relay.dynamodb import plain
from kling_relay.tasks.task import CLOSED, ENDED, Phase, Task

from tests.reliability import invariants
from tests.reliability.upgrade import OFFICIAL, Upgraded, fixture
from tests.support.fake_cloud import MemoryCloud
from tests.support.stack_in_memory import START

STORIES: dict[str, Any] = fixture()["stories"]
DEADLINE = 1200  # seconds, of the stories
WATCHED = 22_000  # seconds; more than the time between two looks at an expired task
EFFECTS = ("write", "sold", "object", "removed")
INVOCATION = 20  # seconds that an old function may stand still and still send: its lease is longer
COPIER = 200  # the same of an old copier, which sends nothing


class Played(Upgraded):
    """The first `count` entries of a story, and the new version from there on."""

    def __init__(self, name: str, count: int, patch: pytest.MonkeyPatch, profile: dict[str, Any]) -> None:
        story = STORIES[name]
        super().__init__(MemoryCloud(), patch, profile={**story["profile"], **profile}, **story["settings"])
        self.log, self.count = story["log"], count
        for entry in self.log[:count]:
            self.replay(entry)
        self.writes = len(self.world.dynamodb.history)
        self.world.clock.now = START + self.log[count - 1][0]
        self.before = {task.id: task for task in self.world.tasks()}

    # -- what the old invocation that is under way has left to do

    @property
    def rest(self) -> list[list[Any]]:
        """Its entries; none between two invocations."""
        following = [entry[1] for entry in self.log[self.count :]]
        ends = following.index("end") if "end" in following else 0
        return [] if "call" in following[:ends] else self.log[self.count : self.count + ends]

    @property
    def may_pause(self) -> int:
        """Seconds that it may stand still."""
        calls = [entry[2] for entry in self.log[: self.count] if entry[1] == "call"]
        return COPIER if calls[-1:] == ["archive_video"] else INVOCATION

    def come_late(self) -> None:
        """New functions act for a while. Then the old one does what is left, until a condition of its own does not hold
        any more: from there it would read the row again, and go on as new ones do."""
        world, rest = self.world, self.rest
        held = [one for one in world.states.executions.values() if one.open and one.token is None]
        for one in held:
            one.open = False  # Step Functions waits for the function's answer
        self.call_back()
        world.sweep()
        world.run(self.may_pause, step=self.may_pause / 2)
        with suppress(ClientError):
            for entry in rest:
                if entry[1] != "execution" or entry[2] not in world.states.executions:
                    self.replay(entry, at=world.clock.now)
        for one in held:
            one.open, one.state["next"] = True, "advance"

    # -- to the end

    def end(self, *, called_back: bool = False) -> None:
        """Let time pass until every task has ended, and a little longer."""
        world = self.world
        world.run(70)
        if called_back or not world.provider.profile.ask_by_reference:
            self.call_back()
        for _ in range(DEADLINE // 100 + 3):
            if all(task.phase in CLOSED for task in world.tasks()):
                break
            world.run(100)
        if any(task.phase is Phase.EXPIRED for task in world.tasks()):
            world.clock.tick(WATCHED)
            world.run(300)
        world.run(130)

    def check(self) -> None:
        tasks = self.world.tasks()
        for task in tasks:
            assert task.phase in CLOSED, task
            was = self.before.get(task.id)
            if task.deleted_at is None:
                if was is not None and was.phase in ENDED:
                    assert (task.phase, task.videos, task.reason) == (was.phase, was.videos, was.reason)
                videos = {self.video(video["key"]) for video in task.videos}
                assert videos == self.bought(task.id), f"paid: {self.bought(task.id)}: {task}"
            assert self.explained(task, was), task
        invariants.money_adds_up(self.world, tasks)
        for _, row in self.world.dynamodb.history[self.writes :]:
            if row["pk"]["S"].startswith("task#"):
                is_readable(row)

    def explained(self, task: Task, was: Task | None) -> bool:
        """Whether a task that was not sold has an end that has a cause: the old version's, the provider's, a doubt."""
        ended = was is not None and was.phase in ENDED
        refused = task.refusal_code is not None or task.deleted_at is not None
        return ended or refused or bool(self.world.provider.billed(task.id)) or task.unsure_since is not None


def is_readable(row: dict[str, Any]) -> None:
    """Old functions go on reading during a deployment, and after a rollback. They ignore attributes that they do not
    know, and fail on a value of another type, on another word, and on a field of a notice or of a source."""
    reader = fixture()["reader"]
    for name, stored in row.items():
        ((kind, text),) = stored.items()
        wanted = reader["task"].get(name)
        assert kind in ("N", "S"), f"{name}: {stored}"
        assert wanted is None or kind == ("N" if wanted == "int" else "S"), f"{name}: {stored}"
        if kind == "N":
            int(text)
        if wanted == "json":
            json.loads(text)
        if name.startswith("notice_") and name != "notice_seq":
            assert json.loads(text).keys() == set(reader["notice"]), text
    assert plain(row["phase"]) in reader["phases"]
    assert "failure" not in row or plain(row["failure"]) in reader["failures"]
    assert json.loads(row["source"]["S"]).keys() <= set(reader["source"]) if "source" in row else True


def moments(name: str) -> list[int]:
    """The effects of a story from the record of its task on, as numbers of entries so far."""
    counts: list[int] = []
    for count, entry in enumerate(STORIES[name]["log"], 1):
        if entry[1] in EFFECTS and (counts or '"task#' in json.dumps(entry)):
            counts.append(count)
    return counts


def profiles(name: str) -> list[dict[str, Any]]:
    """The provider as the old version described it; and as this one describes the official host, if it matters."""
    doubted = '"unconfirmed"' in json.dumps(STORIES[name]["log"])
    return [{}, OFFICIAL] if doubted and not STORIES[name]["profile"] else [{}]


def lived(played: Played, *, called_back: bool = False) -> None:
    try:
        played.end(called_back=called_back)
        played.check()
    except AssertionError as exc:
        raise AssertionError(f"upgraded after entry {played.count}, {played.log[played.count - 1]}") from exc


@pytest.mark.parametrize("name", STORIES)
def test_upgrade_after_any_effect(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for profile in profiles(name):
        for count in moments(name):
            lived(Played(name, count, monkeypatch, profile))


@pytest.mark.parametrize("called_back", [False, True])
@pytest.mark.parametrize("name", STORIES)
def test_upgrade_while_executions_die(name: str, called_back: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for count in moments(name)[called_back::2]:
        played = Played(name, count, monkeypatch, {})
        played.world.states.kill()
        lived(played, called_back=called_back)


@pytest.mark.parametrize("name", STORIES)
def test_an_old_invocation_goes_on_after_new_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    late = 0
    for count in moments(name):
        played = Played(name, count, monkeypatch, {})
        if played.rest:
            late += 1
            played.come_late()
            lived(played)
    assert late


def test_the_first_post_is_found_after_a_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old version took two wrong denials for the truth. This one sends again, and that POST is surely not taken."""
    found = 0
    for count in moments("denied_wrongly"):
        played = Played("denied_wrongly", count, monkeypatch, {})
        (task,) = played.before.values()
        if task.phase is Phase.ACCEPTED and task.unsure_since is not None:
            found += 1
            played.world.provider.query_faults, played.world.provider.submit_faults = ["unknown"], ["dropped"]
            lived(played)
            assert len(played.world.provider.posts) == 1 and played.world.task(task.id).attempt == 2
    assert found
