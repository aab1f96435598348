"""Send concurrent requests of several clients, each to a separate Lambda environment."""

import random
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from tests.reliability.interleaving import Actor, Stage
from tests.support.stack_in_memory import World, load

MOST = 10  # handlers of one burst
Answer = tuple[int, dict[str, Any]]


@cache
def handlers() -> list[ModuleType]:
    """One Lambda environment handles one request at a time: each caller of a burst has its own."""
    return [load("task_api") for _ in range(MOST)]


def interleaved(world: World, dice: random.Random, calls: list[Callable[[], Answer]]) -> list[Answer]:
    """What the calls answered that did not die; dice say who goes on before every effect, and before every read."""
    answers: list[Answer] = []
    read = world.dynamodb.get_item
    world.dynamodb.get_item = lambda **options: (world.effects.pause("get_item"), read(**options))[1]
    Stage(world.effects, [Actor(lambda call=call: answers.append(call())) for call in calls]).play(dice)  # type: ignore[misc]
    world.dynamodb.get_item = read
    return answers


def post(world: World, app: ModuleType, kind: str, body: Any, headers: dict[str, str], tenant: str = "acme") -> Answer:
    app.get_services = lambda: world.services  # type: ignore[attr-defined]
    world.cloud.apps["task_api"] = app
    return world.http("POST", f"/kling/v1/videos/{kind}", body, authorization=world.key(tenant), **headers)
