"""Test the accounts of a stack: those with a stored key, and the open tasks of each."""

import json
from dataclasses import replace
from typing import Any

from kling_relay.security.stored_secrets import Cached

from tests.support.stack_in_memory import Cloud, World

IN_MEMORY = True


def listed(world: World) -> list[tuple[Any, ...]]:
    answer = world.call("operate_tasks", {"action": "accounts"})
    assert answer["whole"]
    return [tuple(one.values()) for one in answer["accounts"]]


def test_each_account_with_its_open_tasks(cloud: Cloud) -> None:
    world = World(cloud, profile={"ask_by_reference": False}, on_unconfirmed="park")
    first = world.services.account
    world.services.secrets.provider = Cached(lambda: json.dumps({first: "sk-one"}))
    assert listed(world) == [(first, True, True, 0, 0, 0)]
    world.create()
    world.provider.submit_faults = ["dropped"]
    doubtful = world.create()
    world.provider.submit_faults = ["no_room"]
    world.create()  # sent, and surely not taken
    assert listed(world) == [(first, True, True, 3, 1, 0)]
    world.run(600)
    assert world.task(doubtful.id).parked_at is not None
    assert listed(world) == [(first, True, True, 1, 1, 1)]
    world.services.settings = replace(world.services.settings, provider_account="2")
    second = world.services.account
    assert listed(world) == [(first, False, True, 1, 1, 1), (second, True, False, 0, 0, 0)]


def test_a_key_that_names_no_account_is_everybodys(world: World) -> None:
    world.services.secrets.provider = Cached(lambda: "sk-one")
    assert listed(world) == [(world.services.account, True, True, 0, 0, 0)]
