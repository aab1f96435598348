"""Test two random faults per life: deaths, lost or late answers, provider faults, killed executions, bad copies."""

import random
from dataclasses import replace

from kling_relay.tasks.task import CLOSED

from tests.reliability.campaign import Campaign
from tests.reliability.life import PROFILES, Life, Story
from tests.support.counted_effects import DEATHS, LATE, LOST

# What comes later than the settle window is the risk of who lets a POST be repeated; PROFILES has it where none is.
POSTS = ("lost", "lost:25", "dropped", "not_sent", "no_room", "arrears", "maintenance")
POSTS += ("moved", "forbidden", "firewall", "named_full", "named_refused", "named_down", "named_200")
QUERIES = ("trouble", "unknown", "odd", "no_url", "foreign", "mixed")
COPIES = ("source_expired", "storage", "second")
EFFECTS = 20  # most lives have about so many


def effect_fault(life: Life, dice: random.Random) -> None:
    life.effects.plan[dice.randint(1, EFFECTS)] = dice.choice((*DEATHS, *LOST, *LATE))


def death(life: Life, dice: random.Random) -> None:
    life.effects.plan[dice.randint(1, EFFECTS)] = dice.choice(DEATHS)


def provider_fault(life: Life, dice: random.Random) -> None:
    where, what = dice.choice(
        (
            (life.world.provider.submit_faults, POSTS),
            (life.world.provider.query_faults, QUERIES),
            (life.world.copy_faults, COPIES),
        )
    )
    where[:0] = dice.choices(what, k=dice.randint(1, 3))
    life.profile = replace(life.profile, ends=CLOSED)  # it may be too late then for any other POST


def kill(life: Life, dice: random.Random) -> None:
    life.kills.append(dice.randint(0, 300))


FAULTS = (effect_fault, death, provider_fault, kill)


def test_pairs_of_faults(campaign: Campaign) -> None:
    both, wanted = 0, campaign.size(220, 3_000)

    def live(dice: random.Random) -> None:
        nonlocal both
        life = Life(PROFILES[dice.choice(sorted(PROFILES))], Story.drawn(dice))
        for fault in (death, dice.choice(FAULTS)):
            fault(life, dice)
        life.live().check()
        both += not life.effects.plan  # a death that was planned for later than the end did not come true

    while both < wanted:
        campaign.live("drawn", live)
    campaign.figures["pairs"] = both
