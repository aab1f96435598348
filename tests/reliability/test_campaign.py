"""Test that a seed repeats a life to the last byte."""

import random

from tests.reliability.campaign import Campaign, figures_of
from tests.reliability.life import PROFILES, Life, Story


def test_same_seed_same_history(campaign: Campaign) -> None:
    told: list[str] = []

    def live(dice: random.Random) -> None:
        life = Life(PROFILES["copy_fails"], Story.drawn(dice))
        life.effects.plan[dice.randint(3, 9)] = "dies after"
        told.append(repr([row for _, row in life.live().world.dynamodb.history]))

    for _ in range(2):
        campaign.figures["lives"] = 0  # the same life once more
        campaign.live("repeated", live)
    campaign.live("another", live)
    assert told[0] == told[1] != told[2]


def test_figures_are_added_up_over_variants_and_processes() -> None:
    class Report:
        def __init__(self, lives: int) -> None:
            self.user_properties = [("campaign", ("deaths", {"lives": lives, "seconds": 0.25})), ("other", 1)]

    assert figures_of([Report(2), object(), Report(3)]) == {"deaths": {"lives": 5, "seconds": 0.5}}
