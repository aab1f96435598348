"""Test API, callback, workflow and sweeper on one task at once: every order of their effects, to a depth."""

import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from kling_relay.api import create, request
from kling_relay.tasks.task import Phase

from tests.reliability.campaign import LONG, Campaign
from tests.reliability.interleaving import Actor, Stage, schedules
from tests.reliability.life import PROFILES, Life, Story
from tests.support.stack_in_memory import BODY

DEPTH = 7 if LONG else 6
QUIET = Story(callbacks=())
RENDER_MS = 60_000


def client(life: Life) -> None:
    """What task_api does with a POST; two of its handlers do not fit into one process."""
    asked = request.parse("image2video", json.dumps(BODY).encode())
    task = create.create(life.world.services, "acme", asked, "key-1", 28_000)
    life.acknowledged.add(task.id)


def callback(life: Life) -> None:
    assert life.world.callback(life.tasks[0], {"task_id": "up-1", "task_status": "succeed"}) == 200


def workflow(life: Life, which: Callable[[str], bool]) -> None:
    """Drive the executions of the names that `which` chooses until they sleep or end."""
    states = life.world.states
    moved = True
    while moved:
        moved = any([states._step(one) for one in list(states.executions.values()) if one.open and which(one.name)])


def first(name: str) -> bool:
    return "-r" not in name


def replacement(name: str) -> bool:
    return "-r" in name


def sweep(life: Life) -> None:
    """A sweep, and then the executions that replace others."""
    life.world.sweep()
    workflow(life, replacement)


def sold(life: Life) -> Callable[[], object]:
    return lambda: life.world.provider.sold


# Each scene brings a life to where its actors meet, and names them.


def two_clients(life: Life) -> list[Actor]:
    """The client's second try meets its first one; the provider calls back before we have noted its answer."""
    return [
        Actor(lambda: client(life)),
        Actor(lambda: client(life)),
        Actor(lambda: callback(life), sold(life)),
        Actor(lambda: workflow(life, first), lambda: life.world.states.executions),
    ]


def rendered_while_falling_asleep(life: Life) -> list[Actor]:
    """The workflow has decided to wait; the render ends, a callback (or two) comes, and the sweeper is at it too."""
    client(life)
    life.world.clock.tick(200)  # past due_at: this workflow is late
    return [
        Actor(lambda: workflow(life, first)),
        Actor(lambda: callback(life)),
        Actor(lambda: sweep(life)),
        *[Actor(lambda: callback(life))] * LONG,
    ]


def asleep(life: Life) -> list[Actor]:
    """The workflow sleeps; it is woken by a callback while its wait runs out."""
    client(life)
    life.world.states.run()
    for execution in life.world.states.executions.values():
        life.world.clock.now = max(life.world.clock.now, execution.wakes) + 200_000
    return rendered_now(life)


def rendered_now(life: Life) -> list[Actor]:
    return [
        Actor(lambda: callback(life)),
        Actor(lambda: workflow(life, first)),
        Actor(lambda: sweep(life)),
    ]


def in_doubt(life: Life) -> list[Actor]:
    """The answer to the POST was lost: the workflow looks it up while a callback names the task."""
    client(life)
    life.world.clock.tick(200)
    return rendered_now(life)


def sender_died(life: Life) -> list[Actor]:
    """Between claim and answer. Its lease is over: a callback, a workflow and the sweeper find it."""
    life.effects.after(3, "dies after")  # record, claim, POST
    life.ask()
    life.world.clock.tick(200)
    return rendered_now(life)


def two_copiers(life: Life) -> list[Actor]:
    """A copy takes longer than its Lambda may: the sweeper replaces its execution."""
    client(life)
    life.world.clock.tick(RENDER_MS / 1000 + 100)
    life.world.callback(life.tasks[0], {"task_id": "up-1"})
    life.world.clock.tick(300)
    assert life.tasks[0].phase is Phase.RENDERED
    return rendered_now(life)


def room(life: Life) -> list[Actor]:
    """It waits for room: two sweeps and the end of another task start it at once."""
    client(life)
    life.world.states.run()
    life.world.clock.tick(120)
    return [
        Actor(lambda: sweep(life)),
        Actor(lambda: sweep(life)),
        Actor(lambda: callback(life), sold(life)),
        Actor(lambda: workflow(life, first)),
    ]


def zombie(life: Life) -> list[Actor]:
    """A sender froze before it noted that nothing was sent; its claim ran out, and another is sending, unanswered."""
    life.world.provider.submit_faults = ["not_sent", "lost:25"]
    return [Actor(lambda: client(life)), Actor(lambda: another_sender(life)), Actor(lambda: callback(life), sold(life))]


def another_sender(life: Life) -> None:
    """Two denials and the settle window later the policy lets another execution send."""
    life.world.clock.tick(125)
    sweep(life)
    for seconds in (31, 2):
        life.world.clock.tick(seconds)
        workflow(life, replacement)


SCENES: dict[str, tuple[str, Any]] = {
    "two_clients": ("accepts", two_clients),
    "falling_asleep": ("accepts", rendered_while_falling_asleep),
    "asleep": ("accepts", asleep),
    "in_doubt": ("answer_lost", in_doubt),
    "sender_died": ("accepts", sender_died),
    "two_copiers": ("accepts", two_copiers),
    "room": ("no_room", room),
    "zombie": ("drops_retry", zombie),
}
# How a scene begins: the first sender to its outcome, the second one between its claim and its outcome.
BEGIN = {"zombie": [0] * 4 + [1] + [0] * 8}
# Where a callback comes after the render, nobody has to wait for the end.
AT_ONCE = {"falling_asleep", "asleep", "in_doubt", "two_copiers"}


@pytest.mark.parametrize("scene", SCENES)
def test_interleavings(campaign: Campaign, scene: str) -> None:
    profile, prepare = SCENES[scene]

    def live(choices: list[int], made: list[tuple[int, int]], dice: random.Random) -> None:
        life = Life(PROFILES[profile], QUIET)
        stage = Stage(life.effects, prepare(life))
        stage.play(choices)
        made.extend(stage.made)
        life.world.states.run()
        if scene in AT_ONCE:
            assert life.tasks[0].phase is Phase.SUCCEEDED, f"a lost wake-up: {life.tasks[0]}"
        life.end().check()
        refused_for_free = scene in ("room", "zombie")
        assert len(life.world.provider.posts) == 1 + refused_for_free, "one paid POST"

    for choices, made in schedules(DEPTH, BEGIN.get(scene, ())):
        campaign.live(choices, partial(live, choices, made))
    assert campaign.lives > 20
