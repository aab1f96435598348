"""Test three slots and two hundred tasks of four tenants, of which one sends most.

No task waits too long, no query is repeated too often, and clients do not notice it.
"""

import random
from typing import Any

from kling_relay.tasks.task import Phase

from tests.reliability import invariants
from tests.reliability.campaign import LONG, Campaign
from tests.reliability.crowd import SWEEP_MS, Crowd, uneven
from tests.support.dynamodb_indexes import MAX_LAG_MS
from tests.support.fake_cloud import MemoryCloud
from tests.support.stack_in_memory import World

TASKS = 200
OTHERS = 3  # tenants beside each one: that many turns of others may come before one of its own
LAG_TURNS = 6  # that three slots may give to others before an index shows a task: in 30 s, and renders take 20 at least
BACKLOG = 10_000 if LONG else 2_500  # of one tenant: turns were once fair among the 2,000 oldest only


def lagging(dice: random.Random) -> random.Random | None:
    """The dice of the indexes' lag, in every second crowd."""
    return random.Random(dice.random()) if dice.random() < 0.5 else None


def played(dice: random.Random, **special: Any) -> Crowd:
    """The crowd after its last task; what holds of every crowd."""
    crowd = Crowd(World(MemoryCloud()), uneven(TASKS, dice), dice, lag=lagging(dice), **special).play()
    assert crowd.errors == [] and len(crowd.ids) == TASKS
    assert list(crowd.unbilled()) == []
    invariants.hold(crowd.world, crowd.ids)
    return crowd


def tell(campaign: Campaign, crowd: Crowd) -> None:
    """The worst of all crowds of a campaign."""
    campaign.figures["tasks"] += len(crowd.ids)
    campaign.figures["with lagging indexes"] += crowd.lag is not None
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
        late, more = (MAX_LAG_MS, LAG_TURNS) if crowd.lag is not None else (0, 0)
        assert crowd.posts <= 2.5 and crowd.transitions <= 12
        assert crowd.idle_ms <= SWEEP_MS + late, "a slot was free while tasks waited"
        assert crowd.longest_wait() <= turns + more, "a tenant starved"

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


def test_crowd_behind_a_long_list(campaign: Campaign) -> None:
    """One tenant's list waits. The others' few tasks come while the provider has no room, then while its account is in
    trouble, then while there are three slots. They have their turns as in any crowd, whatever the backlog."""

    def live(_: int, dice: random.Random) -> None:
        arrivals = [(dice.uniform(0, 1800), tenant) for tenant in ("acme", "initech", "umbrella") for _ in range(8)]
        slots: list[Any] = [(0, -1), (300, "arrears"), (1000, 3), (1200, "accept")]
        backlog = ("globex", BACKLOG)
        crowd = Crowd(World(MemoryCloud()), arrivals, dice, slots, lag=random.Random(dice.random()), backlog=backlog)
        crowd.play(hours=2)
        phases = {crowd.world.task(task_id).phase for task_id in crowd.ids}
        assert crowd.errors == [] and phases == {Phase.SUCCEEDED}, "a tenant starved"
        assert list(crowd.unbilled()) == []
        campaign.figures["tasks"] += BACKLOG + len(crowd.ids)
        campaign.figures["turns waited"] = max(campaign.figures["turns waited"], crowd.longest_wait())
        assert crowd.longest_wait() <= 2 * OTHERS + LAG_TURNS, "a tenant starved"

    campaign.run(range(campaign.size(1, 10)), live)


def test_crowd_at_a_provider_that_counts_requests(campaign: Campaign) -> None:
    """1302: two POSTs a second are too many. Each takes a third of a second."""

    def live(_: int, dice: random.Random) -> None:
        world = World(MemoryCloud())
        world.provider.per_second = 2
        world.effects.pause = lambda name: world.clock.tick(0.3 * (name == "POST"))
        crowd = Crowd(world, uneven(TASKS, dice, gap=0.2), dice, slots=[(0, 12)]).play()
        assert crowd.errors == [] and list(crowd.unbilled()) == []
        invariants.hold(world, crowd.ids)
        tell(campaign, crowd)
        assert crowd.posts <= 2.5 and crowd.transitions <= 12
        assert crowd.longest_wait() <= 4 * OTHERS, "a tenant starved"

    campaign.run(range(campaign.size(1, 25)), live)
