"""Test permits: never more than the limit, and none lost for long."""

import random

import pytest
from kling_relay.dynamodb import ConflictError, Rows
from kling_relay.tasks.semaphore import Permits

from tests.reliability.interleaving import Actor, Stage
from tests.support.counted_effects import Crash
from tests.support.stack_in_memory import START, World


@pytest.fixture
def permits(world: World) -> Permits:
    return Permits(world.table.rows)


def test_as_many_as_there_are_and_each_once(permits: Permits) -> None:
    taken = [permits.take("webhooks#acme", 3, START, START + 10) for _ in range(4)]
    assert taken[3] is None and len({one.name for one in taken[:3] if one is not None}) == 3
    assert permits.take("webhooks#umbrella", 3, START, START + 10) is not None


def test_what_is_given_back_is_free(permits: Permits) -> None:
    first, _ = permits.take("x", 2, START, START + 10), permits.take("x", 2, START, START + 10)
    assert first is not None and permits.take("x", 2, START, START + 10) is None
    permits.release(first)
    again = permits.take("x", 2, START + 1, START + 11)
    assert again is not None and again.name == first.name
    permits.release(first)
    assert permits.take("x", 2, START + 2, START + 12) is None, "a permit is given back once"


def test_an_expired_one_is_free_and_its_late_holder_takes_it_from_nobody(permits: Permits) -> None:
    dead = permits.take("x", 1, START, START + 10)
    assert dead is not None and permits.take("x", 1, START + 9, START + 19) is None
    assert permits.take("x", 1, START + 10, START + 20) is not None
    permits.release(dead)
    assert permits.take("x", 1, START + 11, START + 21) is None


def test_an_answer_that_was_lost_costs_no_permit(world: World, permits: Permits) -> None:
    world.effects.after(1, "answer lost")
    assert permits.take("x", 1, START, START + 10) is not None and world.effects.fired


@pytest.mark.parametrize("seed", range(20))
def test_takers_at_once_never_hold_more(world: World, seed: int) -> None:
    """Five functions take and give back, one dies with its permit, in any order of their writes."""
    permits, dice = Permits(world.table.rows), random.Random(seed)
    pk, held, maximum = f"row-{seed}", list[str](), list[int]()

    def work(number: int) -> None:
        for _ in range(3):
            permit = permits.take(pk, 2, START, START + 10)
            if permit is None:
                continue
            held.append(permit.name)
            maximum.append(len(held))
            assert len(set(held)) == len(held)
            if number == 4:
                raise Crash("with its permit")
            world.effects.pause("at work")
            held.remove(permit.name)
            permits.release(permit)

    Stage(world.effects, [Actor(lambda number=number: work(number)) for number in range(5)]).play(dice)  # type: ignore[misc]
    assert max(maximum) <= 2
    assert None not in [permits.take(pk, 2, START + 10, START + 20) for _ in range(2)]


def test_a_race_that_is_lost_tries_the_next(world: World, permits: Permits, monkeypatch: pytest.MonkeyPatch) -> None:
    real, lost = Rows.update, list[bool]()

    def update(rows: Rows, expression: dict[str, object]) -> dict[str, object]:
        if not lost:
            lost.append(True)
            raise ConflictError
        return real(rows, expression)

    monkeypatch.setattr(Rows, "update", update)
    permit = permits.take("x", 2, START, START + 10)
    assert permit is not None and permit.name == "permit_2"
