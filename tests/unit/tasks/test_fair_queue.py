"""Test waiting tasks by tenant: the candidates of the ranking for any backlog, and the cost of finding them."""

import random
from typing import Any

import pytest
from kling_relay.dynamodb import value
from kling_relay.tasks import fair_queue
from kling_relay.tasks.task_row import new_item

from tests.support.stack_in_memory import START, World
from tests.support.table_fixtures import new_task

IN_MEMORY = True


def waiting(world: World, tenant: str, *births: int) -> list[str]:
    """Tasks of `tenant` that wait, created at START + each of `births` (ms); their ids."""
    ids = []
    for birth in births:
        task = new_task(tenant, created_at=START + birth)
        world.dynamodb.put_item(
            TableName=world.table.rows.name, Item={**new_item(task), "queue": value("waiting"), "due_at": value(START)}
        )
        ids.append(task.id)
    return ids


def found(world: World, last: str = "", since: int = START, tenants: int = 7, each: int = 5) -> list[tuple[str, str]]:
    return fair_queue.oldest_of_each(world.table.rows, last, since, tenants, each)


def test_nobody_waits(world: World) -> None:
    world.create()
    assert found(world) == found(world, "acme") == []


def test_one_after_the_other_from_the_one_behind_the_last_and_once_around(world: World) -> None:
    names = ["acme", "acme-2", "acme2", "b", "b-", "zoo"]
    ids = {name: waiting(world, name, 2, 1, 3) for name in names}
    for last in ("", "a", "acme", "acme-2", "azz", "b", "zoo", "zz"):
        order = sorted(names, key=lambda name: (name <= last, name))
        expected = [(ids[name][number], name) for name in order for number in (1, 0, 2)]
        assert found(world, last) == expected, last


def test_the_names_of_tenants_sort_as_they_have_to() -> None:
    """operations._TENANT and the template's IntakeTenant have them: small letters, digits and '-'."""
    assert all("#" < fair_queue._BEHIND < letter for letter in "-0123456789abcdefghijklmnopqrstuvwxyz")


def test_who_ran_out_of_time_hides_nobody(world: World) -> None:
    waiting(world, "acme", *range(-60, 0))
    waiting(world, "late", *range(-3, 0))
    (young,), (other,) = waiting(world, "acme", 4), waiting(world, "zoo", 1)
    for last in ("", "acme", "late", "zoo"):
        assert set(found(world, last)) == {(young, "acme"), (other, "zoo")}


@pytest.mark.slow
def test_ten_thousand_of_one_tenant_cost_a_query_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting(world, "globex", *range(10_000))
    others = {name: waiting(world, name, 20_000)[0] for name in ("acme", "initech", "umbrella")}
    asked = counted(world, monkeypatch)
    got = found(world, "globex")
    assert {tenant: task_id for task_id, tenant in got if tenant != "globex"} == others
    assert len(got) == 3 + 5 and len(asked) <= 4


def test_the_queries_are_bounded_by_the_tenants_that_are_wanted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        waiting(world, f"tenant-{number:03}", *range(12))
    asked = counted(world, monkeypatch)
    assert [tenant for _, tenant in found(world, "tenant-100")][::5] == [f"tenant-{n}" for n in range(101, 108)]
    assert len(asked) == 7 and {one["Limit"] for one in asked} == {5}


@pytest.mark.parametrize("seed", range(30))
def test_nobody_is_left_out_however_pages_fall(world: World, seed: int) -> None:
    dice = random.Random(seed)
    ids = {
        name: waiting(world, name, *range(-dice.randint(0, 4), dice.randint(1, 9))) for name in ("a", "b", "b-c", "d")
    }
    young = {name: [i for i in each if world.task(i).created_at >= START] for name, each in ids.items()}
    last, each = dice.choice(["", "a", "b", "bb", "d"]), dice.randint(1, 6)
    got = found(world, last, each=each)
    for name in ids:
        mine = [task_id for task_id, tenant in got if tenant == name]
        assert mine and mine == young[name][: len(mine)], (last, each)
    assert len(got) == len(set(got))


def counted(world: World, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []
    real = world.dynamodb.query
    monkeypatch.setattr(world.dynamodb, "query", lambda **options: (asked.append(options), real(**options))[1])
    return asked
