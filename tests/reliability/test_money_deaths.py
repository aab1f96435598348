"""Test the spend equation with deaths and lost answers at every effect: a month and its tasks always agree."""

import random

import pytest

from tests.reliability.campaign import LONG, Campaign
from tests.support.counted_effects import DEATHS, LOST
from tests.support.fake_cloud import MemoryCloud
from tests.support.spend_equation import verified_spend
from tests.support.stack_in_memory import CLOSED
from tests.unit.tasks.test_spend_equation import ENDS, MONTH, live, world_of

MAX_EFFECTS = 200


@pytest.mark.parametrize("name", ENDS)
def test_money_deaths(campaign: Campaign, name: str) -> None:
    reached = True

    def life(dice: random.Random) -> None:
        nonlocal reached
        world = world_of(MemoryCloud(), name)
        world.effects.after(effect, fault)
        live(world)  # looks at the equation after every step
        (task,) = world.tasks()
        assert task.phase in CLOSED and verified_spend(world) == {MONTH: task.committed}
        sold = [one for one in world.provider.sold if one.end == "succeed"]
        assert task.committed or not sold, "what was paid for is never released"
        assert task.committed == ENDS[name][2] or world.effects.fired
        reached = not world.effects.plan

    for fault in (*DEATHS, *LOST) if LONG else ("dies after", "answers lost"):
        for effect in range(1, MAX_EFFECTS):
            campaign.live(f"{fault} {effect}", life)
            if not reached:
                break  # it never came to so many effects
            campaign.figures["faults"] += 1
        else:
            raise AssertionError("the faults never stopped firing")
        assert effect > 4  # record, claim, POST, its outcome
