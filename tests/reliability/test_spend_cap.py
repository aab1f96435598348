"""Test submits at the monthly cap, in any order, with deaths and provider faults: no tenant exceeds it."""

import random
from functools import partial

from kling_relay.tasks.spend_cap import milli_units
from kling_relay.tasks.task import CLOSED, Phase

from tests.reliability import invariants
from tests.reliability.burst import MOST, Answer, handlers, interleaved, post
from tests.reliability.campaign import Campaign
from tests.support.fake_cloud import MemoryCloud
from tests.support.spend_equation import verified_spend
from tests.support.stack_in_memory import BODY, World

ESTIMATE = 1500  # thousandths of a unit: 5 s of kling-v2-5-turbo, std
ROUNDS = 6
TENANTS = ("acme", "umbrella")
FAULTS = ("accept", "accept", "no_room", "refused", "lost", "dropped", "not_sent")
CAP_REACHED = 1102


def submit(world: World, dice: random.Random, number: int) -> Answer:
    body = {**BODY, "external_task_id": f"order-{number if dice.random() < 0.9 else number - 1}"}
    return post(world, handlers()[number % MOST], "image2video", body, {}, dice.choice(TENANTS))


def within(world: World, cap: int) -> None:
    """The books agree with the rows, and neither they nor the provider's ledger are over the cap."""
    for committed in verified_spend(world).values():
        assert committed <= cap, "overspent"
    tenants = {task.id: task.tenant for task in world.tasks()}
    for tenant in TENANTS:
        sold = sum(tenants[one.reference] == tenant for one in world.provider.sold)
        assert sold * (milli_units(world.provider.units) or 0) <= cap, "the provider sold more than the cap allows"


def test_spend_cap(campaign: Campaign) -> None:
    def live(_: int, dice: random.Random) -> None:
        cap = dice.randint(1, 40) * 500
        world = World(MemoryCloud(), deadline_seconds=3000, settle_seconds=30, monthly_cap_units=1)
        world.provider.units = dice.choice(("1.5", "1.2", "0.3"))
        for tenant in TENANTS:
            world.key(tenant)
            world.services.spending.set_cap(tenant, cap)
        calm = dice.random() < 0.3  # nothing goes wrong: then the cap is used up to the last task that fits
        refused = 0
        for turn in range(ROUNDS):
            callers = dice.randint(2, MOST)
            world.provider.submit_faults = [] if calm else [dice.choice(FAULTS) for _ in range(callers)]
            if not calm and dice.random() < 0.5:
                world.effects.after(dice.randint(1, 5 * callers), dice.choice(("dies before", "dies after")))
            calls = [partial(submit, world, dice, turn * MOST + place) for place in range(callers)]
            answers = interleaved(world, dice, calls)
            world.effects.plan.clear()
            over = [answer for status, answer in answers if answer["code"] == CAP_REACHED]
            assert all("monthly cap" in answer["message"] for answer in over)
            if calm and over:
                assert max(verified_spend(world).values(), default=0) > cap - ESTIMATE, (
                    "refused although it would have fitted"
                )
            refused += len(over)
            campaign.figures["submits"] += callers
            within(world, cap)
            world.run(dice.choice((1, 70, 700)))
            within(world, cap)
        world.provider.submit_faults.clear()
        world.run(8000)
        within(world, cap)
        invariants.hold(world, [])
        for task in world.tasks():
            assert task.phase in CLOSED
            price = milli_units(world.provider.units)
            assert task.phase is not Phase.SUCCEEDED or task.settled == price, "settled with what it cost"
        campaign.figures["refused at the cap"] += refused
        campaign.figures["sold"] += len(world.provider.sold)

    campaign.run(range(campaign.size(20, 350)), live)
    campaign.figures["overspent"] = 0  # or an assertion has said so
