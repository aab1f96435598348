"""Test executions that are killed at any step: the sweeper detects it by the row alone."""

import random
from types import SimpleNamespace

import pytest
from kling_relay.tasks.task import Phase

from tests.reliability.campaign import Campaign
from tests.reliability.life import PROFILES, Life, Story
from tests.support.dynamodb_indexes import MAX_LAG_MS

STEPS = 14
TWO_SWEEPS_MS = 120_000


def kill_at(life: Life, step: int) -> list[int]:
    """Kill every execution before its `step`-th step. Returns a list that gets the row's `due_at` of that moment."""
    states, due, steps = life.world.states, [], 0
    as_it_was = states._step

    def counting(one: SimpleNamespace) -> bool:
        nonlocal steps
        steps += 1
        if steps != step:
            return as_it_was(one)
        states.kill()
        due.append(life.tasks[0].due_at or 0)
        return True

    states._step = counting  # type: ignore[method-assign]
    return due


@pytest.mark.parametrize("profile", ["accepts", "answer_lost", "copy_fails", "fails"])
def test_killed_executions(campaign: Campaign, profile: str) -> None:
    """The end comes at most two sweeps after the wait that was lost, or after the render."""

    def live(dice: random.Random) -> None:
        lag = dice.choice((None, dice.getrandbits(32)))
        life = Life(PROFILES[profile], Story(dice.choice((5, 60, 200)), callbacks=(), lag=lag))
        due = kill_at(life, dice.randint(1, STEPS))
        life.live().check()
        (task,) = life.tasks
        if due:
            (sold,) = life.world.provider.sold
            rendered = sold.at + sold.seconds * 1000
            late = max(due[0], rendered)
            seen = 0 if lag is None else MAX_LAG_MS  # the sweeper reads due_at in an index
            assert task.updated_at <= late + TWO_SWEEPS_MS + seen, f"{task.updated_at - late} ms late: {task}"
            assert task.phase in (Phase.SUCCEEDED, Phase.FAILED)
            campaign.figures["killed"] += 1

    while campaign.figures["killed"] < campaign.size(60, 600):
        campaign.live("drawn", live)
