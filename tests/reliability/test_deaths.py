"""Test a death, a lost answer of AWS and a late request at each effect in turn, with every kind of provider.

The effects are found by counting: the fault moves on by one until it never comes true. After each everything is started
again and time passes: the task ends, it was paid for at most once, and what was paid for arrives. The short form tries
the first effects, on which money hangs, and every sixth one of the others: each profile starts at another one.
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
STRIDE = 6
SKEWS = (-60_000, 0, 60_000)
# A task without our reference is ours only if it was made after our claim, by clocks that differ by at most 5 s
# (confirm.py). Guess: the provider's clock is that right.
SMALL_SKEWS = (-5_000, 0, 5_000)
LONGER_SECONDS = 1000  # the deadline of a life that takes some minutes more if the clocks differ


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

    offset = list(PROFILES).index(profile)
    story, stories = Story(callbacks=PROFILES[profile].callbacks), random.Random(f"{campaign.seed} {profile}")
    while campaign.lives < lives:
        for place, fault in enumerate(faults):
            for effect in range(1, MAX_EFFECTS):
                if not campaign.thorough and effect > FIRST and (effect + place + offset) % STRIDE:
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
    # Two POSTs that the provider surely did not take cost two waits in the queue, and a death between them costs a
    # workflow. Each of the three ends up to two minutes late here, and the deadline comes up to two minutes early. In
    # 500 s the task may then not be sent: it fails as unsent, rightly, since the ledger holds no sale. The longer
    # deadline keeps the expectation as strict as under true clocks: such a task succeeds.
    waits_twice = len(PROFILES[profile].posts) > 1

    def prepare(life: Life, dice: random.Random) -> None:
        life.world.skew = lambda: dice.choice(SMALL_SKEWS if hidden else SKEWS)
        if life.profile.settles or waits_twice:
            settings = life.world.services.settings
            life.world.services.settings = replace(settings, deadline_seconds=LONGER_SECONDS)

    at_every_effect(campaign, profile, DEATHS, campaign.size(12, 200), prepare)
