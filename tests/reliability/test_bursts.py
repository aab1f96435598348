"""Test concurrent equal requests, and other requests under the same name: one paid POST in any order."""

import base64
import json
import random
from collections.abc import Iterator
from typing import Any

from kling_relay.api import request
from kling_relay.tasks.task import Phase

from tests.reliability import invariants
from tests.reliability.burst import MOST, Answer, handlers, interleaved, post
from tests.reliability.campaign import Campaign
from tests.support.fake_cloud import MemoryCloud
from tests.support.request_bodies import VALID
from tests.support.stack_in_memory import World

# Every kind with as many fields as its model can do together.
BODIES = {kind: dict(body) for kind, body in VALID.items()}
for kind, field in (("multi-image2video", "static_mask"), ("multi-image2video", "dynamic_masks")):
    del BODIES[kind][field]
BODIES["text2video"] |= {"mode": "pro"}


def named(dice: random.Random) -> tuple[str, dict[str, Any], dict[str, str]]:
    """A request of any kind with what makes it unique: kind, body, headers."""
    kind = dice.choice(sorted(BODIES))
    body, headers = dict(BODIES[kind]), {}
    by = dice.choice(("key", "id", "both"))
    if by == "key":
        del body["external_task_id"]
    if by != "id":
        headers["Idempotency-Key"] = f"key-{dice.random()}"
    return kind, body, headers


def test_duplicate_bursts(campaign: Campaign) -> None:
    """Two to ten handlers; some of them die, sometimes the provider has no room, or its answer is lost."""

    def live(_: int, dice: random.Random) -> None:
        world = World(MemoryCloud(), on_unconfirmed="park")
        kind, body, headers = named(dice)
        fault = dice.choice(("accept", "accept", "accept", "no_room", "lost", "refused"))
        world.provider.submit_faults = [fault]
        world.key()
        callers = dice.randint(2, MOST)
        if dice.random() < 0.3:
            world.effects.after(dice.randint(1, 4 * callers), dice.choice(("dies before", "dies after")))
        calls = [lambda app=app: post(world, app, kind, body, headers) for app in handlers()[:callers]]
        answers = interleaved(world, dice, calls)
        world.effects.plan.clear()
        deaths = callers - len(answers)
        assert deaths <= len(world.effects.fired)
        assert len(world.provider.posts) <= 1, "one POST, whatever the order"
        _are_identical(answers, refused=fault == "refused")
        world.run(1200)
        posts = len(world.provider.posts)
        again = post(world, handlers()[0], kind, body, headers)
        (task,) = world.tasks()
        assert len(world.provider.posts) == posts <= 1 + (fault == "no_room"), "a later repetition pays nothing"
        assert world.provider.billed(task.id) == (task.phase is Phase.SUCCEEDED) or deaths
        assert again[0] == (400 if task.refusal else 200)
        if task.phase is Phase.SUCCEEDED:
            assert again[1]["data"]["task_id"] == task.id and again[1]["data"]["task_status"] == "succeed"
        campaign.figures["handlers"] += callers
        campaign.figures["deaths"] += deaths

    campaign.run(range(campaign.size(120, 2000)), live)


def _are_identical(answers: list[Answer], *, refused: bool) -> None:
    """The same answer to all; where the provider refuses, those that came before its answer hear of a task."""
    tasks = {json.dumps(answer, sort_keys=True) for status, answer in answers if status == 200}
    errors = {json.dumps(answer, sort_keys=True) for status, answer in answers if status != 200}
    assert len(tasks) <= 1, tasks
    assert not errors or (refused and len(errors) == 1), errors


def test_changed_bodies(campaign: Campaign) -> None:
    """Any field, any image byte, the kind: under a name that is taken it is refused, and nothing is sent."""

    def live(_: int, dice: random.Random) -> None:
        world = World(MemoryCloud())
        kind, body, headers = named(dice)
        status, first = post(world, handlers()[0], kind, body, headers)
        assert status == 200, first
        changed = 0
        for other_kind, other in _others(kind, body, headers, dice):
            status, answer = post(world, handlers()[0], other_kind, other, headers)
            assert status == 400 and "used with another request body" in answer["message"], (other, answer)
            changed += 1
            if changed == 10:
                break
        assert len(world.provider.posts) == 1
        assert post(world, handlers()[0], kind, body, headers) == (200, first), "the first is as it was"
        world.run(300)
        invariants.hold(world, [first["data"]["task_id"]])
        campaign.figures["changed bodies"] += changed

    campaign.run(range(campaign.size(30, 300)), live)


def _others(kind: str, body: dict[str, Any], headers: dict[str, str], dice: random.Random) -> Iterator[tuple[str, Any]]:
    """Requests that are not the same as this one, though they may mean almost the same."""
    same = _meaning(kind, body)
    while True:
        other_kind, other = kind, json.loads(json.dumps(body))
        if dice.random() < 0.05 and headers:
            other_kind = dice.choice(sorted(BODIES))
            other = {**BODIES[other_kind], "external_task_id": body.get("external_task_id")}
        else:
            _change(other, dice)
        meaning = _meaning(other_kind, other)
        if meaning not in (None, same) and other.get("external_task_id") == body.get("external_task_id"):
            yield other_kind, other


def _meaning(kind: str, body: dict[str, Any]) -> Any:
    """What the provider or the client would notice of a request; None for one that is no request at all."""
    try:
        asked = request.parse(kind, json.dumps(body).encode())
    except request.KlingError:
        return None
    return asked.kind, asked.body, asked.images, asked.callback_url, asked.external_task_id


def _change(holder: Any, dice: random.Random) -> None:
    """Change, or take away, one value somewhere in a body."""
    while isinstance(holder, (dict, list)) and holder:
        key = dice.choice(sorted(holder) if isinstance(holder, dict) else range(len(holder)))
        if isinstance(holder[key], (dict, list)) and dice.random() < 0.9:
            holder = holder[key]
        elif dice.random() < 0.2:
            del holder[key]
            return
        else:
            holder[key] = _other(holder[key], dice)
            return


def _other(value: Any, dice: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + dice.choice((-1, 1, 0.25))
    if not isinstance(value, str):
        return None
    if len(value) > 200:  # an image: one bit of it, behind its header
        data = bytearray(base64.b64decode(value))
        data[dice.randrange(60, len(data))] ^= 1 << dice.randrange(8)
        return base64.b64encode(data).decode()
    words = (
        "std",
        "pro",
        "4k",
        "3",
        "5",
        "10",
        "15",
        "on",
        "off",
        "yes",
        "no",
        "16:9",
        "1:1",
        "kling-v3",
        "kling-v2-6",
    )
    words += ("customize", "intelligence", "base", "feature", "first_frame", "end_frame", "simple", "down_back")
    place = dice.randrange(len(value) + 1)
    return dice.choice((*words, value + "x", value[:place] + "y" + value[place:], value[:-1], value.upper()))
