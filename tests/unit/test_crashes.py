"""The process dies before and after every effect on the outside, with every kind of provider. The ledger is the truth.

After each death everything is started again and time passes: the task ends, and it was paid for at most once.
"""

from contextlib import suppress
from typing import Any

import pytest
from kling_relay.task import Phase, Task

from tests.unit.world import BODY, CLOSED, Cloud, Crash, World

SHORT = {"deadline_seconds": 500, "settle_seconds": 30}
# name: (what the provider does to POSTs, what else is set, the phases that a task may end in)
PROFILES: dict[str, tuple[list[str], dict[str, Any], set[Phase]]] = {
    "accepts": ([], {}, {Phase.SUCCEEDED}),
    "answer_lost": (["lost"], {}, {Phase.SUCCEEDED}),
    "accepts_late": (["lost:45"], {}, {Phase.SUCCEEDED, Phase.EXPIRED}),
    "drops_park": (["dropped"], {}, {Phase.EXPIRED, Phase.SUCCEEDED}),
    "drops_retry": (["dropped"], {"on_unconfirmed": "retry"}, {Phase.SUCCEEDED}),
    "drops_unique": (["dropped", "lost"], {"profile": {"unique_reference": True}}, {Phase.SUCCEEDED}),
    "not_sent": (["not_sent"], {}, {Phase.SUCCEEDED}),
    "no_room": (["no_room"], {}, {Phase.SUCCEEDED}),
    "arrears": (["arrears"], {}, {Phase.SUCCEEDED}),
    "refuses": (["refused"], {}, {Phase.FAILED}),
    "blind": (["lost"], {"profile": {"ask_by_reference": False}}, {Phase.EXPIRED, Phase.SUCCEEDED}),
    "fails": ([], {"end": "failed"}, {Phase.FAILED}),
    "copy_fails": ([], {"copies": ["source_expired"]}, {Phase.SUCCEEDED}),
}
# Dying after an effect is dying before the next one: both sides are tried where the provider is at its plainest.
BOTH_SIDES = {"accepts", "answer_lost", "copy_fails"}
# A process that dies between claim and answer leaves a task that nobody may send again: it is parked to its deadline.
PARKED = {Phase.EXPIRED}


def life(cloud: Cloud, name: str, crash_at: int, before: bool) -> tuple[World, list[Task]]:
    faults, options, _ = PROFILES[name]
    settings = {key: value for key, value in options.items() if key not in ("end", "copies")}
    world = World(cloud, **{**SHORT, **settings})
    world.key()
    world.provider.submit_faults, world.provider.end = list(faults), options.get("end", "succeed")
    world.copy_faults = list(options.get("copies", []))
    world.effects.crash_at, world.effects.crash_before = len(world.effects.names) + crash_at, before
    answered = None
    for _ in range(2):  # a client repeats what was not answered
        with suppress(Crash):
            answered = world.post(BODY, **{"Idempotency-Key": "key-1"})[1]
            break
        world.clock.tick(1)
    for minute in range(30):
        tasks = world.tasks()
        if tasks and all(task.phase in CLOSED for task in tasks):
            break
        with suppress(Crash):
            world.run(60)
            if minute == 1 and tasks:
                world.callback(tasks[0], {"task_id": "up-1"})
    assert answered is not None, "the second try is answered"
    return world, world.tasks()


@pytest.mark.parametrize("name", PROFILES)
def test_a_death_at_every_effect(cloud: Cloud, name: str) -> None:
    lives = 0
    for before in (False, True) if name in BOTH_SIDES else (False,):
        for crash_at in range(1, 100):
            world, tasks = life(cloud, name, crash_at, before)
            where = f"{name}: {'before' if before else 'after'} {world.effects.names[:crash_at][-1]} ({crash_at})"
            assert len(tasks) == 1, where
            (task,) = tasks
            assert task.phase in PROFILES[name][2] | (PARKED if world.effects.fired else set()), f"{where}: {task}"
            assert world.provider.billed(task.id) <= 1, where
            assert {sold.reference for sold in world.provider.sold} <= {task.id}, where
            bought = [sold for sold in world.provider.sold if sold.end == "succeed"]
            if bought and name not in ("blind", "accepts_late"):
                assert task.phase is Phase.SUCCEEDED, f"{where}: a paid video is lost"
            if task.phase is Phase.SUCCEEDED:
                world.cloud.s3.head_object(Bucket="videos", Key=task.videos[0]["key"])
            lives += 1
            if not world.effects.fired:
                break
        else:
            raise AssertionError("the crash never stopped firing")
    assert lives >= 5  # record, claim, POST, its outcome; and one life without a death


def test_the_sweep_would_notice_a_second_payment(cloud: Cloud) -> None:
    """The check bites: a relay that repeats a POST in doubt is caught."""
    world = World(cloud)
    world.provider.submit_faults = ["lost"]
    task = world.create()
    world.table.move(task, Phase.ACCEPTED, retry_at=None, updated_at=world.clock.now)
    with pytest.raises(AssertionError, match="billed twice"):
        world.run(600)
        world.task(task.id)
