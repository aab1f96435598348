"""Three slots at the provider, two hundred tasks, four tenants of which one sends most: nobody waits too long, nothing
is asked too often, and no client sees any of it."""

import random
from typing import Any

from tests.reliability import invariants
from tests.reliability.campaign import Campaign
from tests.reliability.crowd import SWEEP_MS, Crowd, uneven
from tests.reliability.memory import Memory
from tests.unit.world import World

TASKS = 200
OTHERS = 3  # tenants beside each one: that many turns of others may come before one of its own


def played(dice: random.Random, **special: Any) -> Crowd:
    """The crowd after its last task; what holds of every crowd."""
    crowd = Crowd(World(Memory()), uneven(TASKS, dice), dice, **special).play()
    assert crowd.errors == [] and len(crowd.ids) == TASKS
    assert list(crowd.unbilled()) == []
    invariants.hold(crowd.world, crowd.ids)
    return crowd


def tell(campaign: Campaign, crowd: Crowd) -> None:
    """The worst of all crowds of a campaign."""
    campaign.figures["tasks"] += len(crowd.ids)
    for name, value in {
        "POSTs a task": crowd.posts,
        "transitions a task": crowd.transitions,
        "turns waited": crowd.longest_wait(),
        "s idle": crowd.idle_ms / 1000,
    }.items():
        campaign.figures[name] = max(campaign.figures[name], value)  # type: ignore[assignment]


def play(campaign: Campaign, turns: int, **special: Any) -> None:
    def live(_: int, dice: random.Random) -> None:
        crowd = played(dice, **special)
        tell(campaign, crowd)
        assert crowd.posts <= 2.5 and crowd.transitions <= 12
        assert crowd.idle_ms <= SWEEP_MS, "a slot was free while tasks waited"
        assert crowd.longest_wait() <= turns, "a tenant starved"

    campaign.run(range(campaign.size(1, 25)), live)


def test_crowd(campaign: Campaign) -> None:
    play(campaign, OTHERS)


def test_crowd_without_callbacks(campaign: Campaign) -> None:
    """Polls find several ends at the same instant: each slot's turn may go to one tenant, and a probe's too."""
    play(campaign, 4 * OTHERS, callbacks=False)


def test_crowd_without_room_for_an_hour(campaign: Campaign) -> None:
    play(campaign, 2 * OTHERS, slots=[(0, -1), (3610, 3)])


def test_crowd_on_a_shared_account(campaign: Campaign) -> None:
    """Somebody else takes slots and gives them back, of which nobody tells us."""
    play(campaign, 2 * OTHERS, slots=[(0, 1), (95, 5), (290, 2), (410, 4), (700, 3)])


def test_crowd_at_a_provider_that_counts_requests(campaign: Campaign) -> None:
    """1302: two POSTs a second are too many. Each takes a third of a second."""

    def live(_: int, dice: random.Random) -> None:
        world = World(Memory())
        world.provider.per_second = 2
        world.effects.pause = lambda name: world.clock.tick(0.3 * (name == "POST"))
        crowd = Crowd(world, uneven(TASKS, dice, gap=0.2), dice, slots=[(0, 12)]).play()
        assert crowd.errors == [] and list(crowd.unbilled()) == []
        invariants.hold(world, crowd.ids)
        tell(campaign, crowd)
        assert crowd.posts <= 2.5 and crowd.transitions <= 12
        assert crowd.longest_wait() <= 4 * OTHERS, "a tenant starved"

    campaign.run(range(campaign.size(1, 25)), live)
