"""Test a death, a lost answer of AWS and a late request at each effect in turn, with every kind of provider.

The effects are found by counting: the fault moves on by one until it no longer occurs. After each fault everything
restarts and time passes. The task ends, it was paid for at most once, and a paid video arrives. The short form tests
the first effects, which the payment depends on, and every third one of the others.
"""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.reliability.campaign import Campaign
from tests.reliability.life import PROFILES, Life, Story
from tests.support.counted_effects import DEATHS, LATE, LOST

MAX_EFFECTS = 200
FIRST = 4  # record, claim, POST, its outcome
SKEWS = (-60_000, 0, 60_000)
# A task without our reference is ours only if it was made after our claim, by clocks that differ by at most 5 s
# (confirm.py). Guess: the provider's clock is that right.
SMALL_SKEWS = (-5_000, 0, 5_000)


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

    story, stories = Story(callbacks=PROFILES[profile].callbacks), random.Random(f"{campaign.seed} {profile}")
    while campaign.lives < lives:
        for place, fault in enumerate(faults):
            for effect in range(1, MAX_EFFECTS):
                if not campaign.thorough and effect > FIRST and (effect + place + len(profile)) % 3:
                    continue
                keyed = story.keyed is bool((effect + place) % 2)  # each fault meets both kinds of clients
                life = Life(PROFILES[profile], replace(story, keyed=keyed))
                campaign.live(f"{fault} {effect}, {story}", live)
                if life.effects.plan:
                    break  # it never came to so many effects
                campaign.figures["faults"] += 1
            else:
                raise AssertionError("the faults never stopped firing")
            assert effect > FIRST
        story = Story.drawn(stories)


@pytest.mark.parametrize("profile", PROFILES)
def test_deaths(campaign: Campaign, profile: str) -> None:
    at_every_effect(campaign, profile, DEATHS, campaign.size(12, 400))


@pytest.mark.parametrize("profile", PROFILES)
def test_lost_answers(campaign: Campaign, profile: str) -> None:
    """Of DynamoDB, S3 and Step Functions: the SDK repeats what was done already, or gives up on what was or was not."""
    at_every_effect(campaign, profile, LOST, campaign.size(12, 400))


@pytest.mark.parametrize("profile", PROFILES)
def test_late_requests(campaign: Campaign, profile: str) -> None:
    """The SDK repeats a write 5 s after it was done, or a write is that long on its way. A sweep, notify_client, a
    callback and the workflow's steps come in between: nothing is parked, and nothing is lost."""
    at_every_effect(campaign, profile, LATE, campaign.size(12, 400))


@pytest.mark.parametrize("profile", PROFILES)
def test_deaths_under_clocks_that_differ(campaign: Campaign, profile: str) -> None:
    """Each call of a function has a clock of its own, up to a minute wrong either way."""
    hidden = PROFILES[profile].settings.get("profile", {}).get("hides_reference", False)

    def prepare(life: Life, dice: random.Random) -> None:
        life.world.skew = lambda: dice.choice(SMALL_SKEWS if hidden else SKEWS)
        if life.profile.settles:  # which takes some minutes more
            life.world.services.settings = replace(life.world.services.settings, deadline_seconds=1000)

    at_every_effect(campaign, profile, DEATHS, campaign.size(12, 200), prepare)
