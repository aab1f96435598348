"""Test the result of a positive control, and the conditions under which one is made."""

from dataclasses import replace
from typing import Any

import pytest
from kling_relay.lifecycle import evidence
from kling_relay.provider.outcomes import Found, NotFound, QueryFailed
from kling_relay.tasks.task import Task

from tests.support.stack_in_memory import Cloud, World

IN_MEMORY = True
DAY_MS = 86_400_000


def pk(world: World) -> str:
    return f"lookup#{world.services.account}#/v1/videos/image2video"


def answers(world: World, monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[str]:
    """What is asked from now on; every question gets `answer`."""
    asked: list[str] = []
    monkeypatch.setattr(world.provider, "query", lambda _, reference: (asked.append(reference), answer)[1])
    return asked


def found(world: World, **changes: Any) -> Found:
    return Found(replace(world.provider._snapshot(world.provider.sold[0], ""), **changes))


def test_what_a_control_leaves(world: World) -> None:
    task = world.create()
    evidence.learn(world.services, world.task(task.id))
    assert world.row(pk(world)) == {
        "pk": {"S": pk(world)},
        "reference": {"S": task.id},
        "found_at": {"N": str(world.clock.now)},
    }
    assert evidence.proven(world.services, task)


@pytest.mark.parametrize(
    ("changes", "is_found"),
    [({}, True), ({"reference": None}, True), ({"reference": "another"}, False), ({"upstream_id": "up-7"}, False)],
)
def test_an_answer_has_to_be_about_the_control(
    world: World, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], is_found: bool
) -> None:
    task = world.create()
    answers(world, monkeypatch, found(world, **changes))
    evidence.learn(world.services, world.task(task.id))
    assert ("found_at" in world.row(pk(world))) is is_found
    assert ("missed_at" in world.row(pk(world))) is not is_found
    assert evidence.proven(world.services, task) is is_found


def test_a_denied_control_voids_an_earlier_one_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    task = world.create()
    evidence.learn(world.services, world.task(task.id))
    world.clock.tick(1)
    answers(world, monkeypatch, NotFound())
    assert not evidence.proven(world.services, task)
    asked = answers(world, monkeypatch, found(world))
    assert not evidence.proven(world.services, task) and asked == [], "until the next day's control is found"


def test_a_control_that_is_missed_in_the_same_moment_proves_nothing(world: World) -> None:
    task = world.create()
    for is_found in (True, False):
        world.services.controls.note(pk(world), task.id, found=is_found, now=world.clock.now)
    assert not evidence.proven(world.services, task)


def test_trouble_proves_nothing_and_voids_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    task = world.create()
    evidence.learn(world.services, world.task(task.id))
    row = world.row(pk(world))
    with monkeypatch.context() as broken:
        answers(world, broken, QueryFailed("HTTP 502"))
        assert evidence.proven(world.services, task) is False
    assert world.row(pk(world)) == row and evidence.proven(world.services, task)


def test_one_a_day_whichever_process_asks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    task = world.create()
    asked = answers(world, monkeypatch, found(world))
    for tick, controls in ((0, 1), (DAY_MS - 1, 1), (1, 2)):
        world.clock.now += tick
        world.services.controls._not_before.clear()  # another process
        evidence.learn(world.services, world.task(task.id))
        assert asked == [task.id] * controls


def test_a_process_reads_the_row_once_a_day(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    task = world.task(world.create().id)
    evidence.learn(world.services, task)
    reads: list[str] = []
    real = world.services.controls.get
    monkeypatch.setattr(world.services.controls, "get", lambda key: (reads.append(key), real(key))[1])
    for _ in range(3):
        evidence.learn(world.services, task)
    assert reads == []
    world.clock.now += DAY_MS
    evidence.learn(world.services, task)
    assert reads == [pk(world)]


@pytest.mark.parametrize("profile", [{"unique_reference": True}, {"ask_by_reference": False}])
def test_no_control_where_none_is_needed_or_possible(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, profile: dict[str, bool]
) -> None:
    world = World(cloud, profile=profile)
    task = world.create()
    asked = answers(world, monkeypatch, found(world))
    evidence.learn(world.services, world.task(task.id))
    assert asked == [] and not evidence.proven(world.services, task)


def test_trouble_with_the_table_keeps_no_task_from_its_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("the table is too busy")

    monkeypatch.setattr(world.services.controls, "due", broken)
    task: Task = world.until_closed(world.create().id)
    assert task.phase == "succeeded"
