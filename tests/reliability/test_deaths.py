"""Deaths, and answers of AWS that are lost, at every effect in turn, with every kind of provider.

The effects are found by counting: the fault moves on by one until it never comes true. After each everything is started
again and time passes: the task ends, it was paid for at most once, and what was paid for arrives.
"""

import random
from collections.abc import Callable

import pytest

from tests.reliability.campaign import Campaign
from tests.reliability.life import PROFILES, Life, Story
from tests.unit.effects import DEATHS, LOST

MOST_EFFECTS = 200
SKEWS = (-60_000, 0, 60_000)


def nothing(life: Life, dice: random.Random) -> None:
    pass


def at_every_effect(
    campaign: Campaign,
    profile: str,
    faults: tuple[str, ...],
    lives: int,
    prepare: Callable[[Life, random.Random], None] = nothing,
) -> None:
    """At least `lives` lives: the first story is the plain one, then they are drawn; each is told to its end."""

    def live(dice: random.Random) -> None:
        life.effects.plan[effect] = fault
        prepare(life, dice)
        life.live().check()

    story, stories = Story(), random.Random(f"{campaign.seed} {profile}")
    while campaign.lives < lives:
        for fault in faults:
            for effect in range(1, MOST_EFFECTS):
                life = Life(PROFILES[profile], story)
                campaign.live(f"{fault} {effect}, {story}", live)
                if life.effects.plan:
                    break  # it never came to so many effects
                campaign.figures["faults"] += 1
            else:
                raise AssertionError("the faults never stopped firing")
            assert effect > 4  # record, claim, POST, its outcome
        story = Story.drawn(stories)


@pytest.mark.parametrize("profile", PROFILES)
def test_deaths(campaign: Campaign, profile: str) -> None:
    at_every_effect(campaign, profile, DEATHS, campaign.size(25, 400))


@pytest.mark.parametrize("profile", PROFILES)
def test_lost_answers(campaign: Campaign, profile: str) -> None:
    """Of DynamoDB, S3 and Step Functions: the SDK repeats what was done already, or gives up on what was or was not."""
    at_every_effect(campaign, profile, LOST, campaign.size(25, 400))


@pytest.mark.parametrize("profile", PROFILES)
def test_deaths_under_clocks_that_differ(campaign: Campaign, profile: str) -> None:
    """Each call of a function has a clock of its own, up to a minute wrong either way."""

    def prepare(life: Life, dice: random.Random) -> None:
        life.world.skew = lambda: dice.choice(SKEWS)

    at_every_effect(campaign, profile, DEATHS, campaign.size(12, 200), prepare)
