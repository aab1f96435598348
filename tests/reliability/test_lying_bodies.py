"""Test a stolen callback address: valid tokens with false bodies. The provider's answer wins, and queries stay rare.

The truth is the provider's ledger. After every body the row may have less than the ledger, and never more or other
data. The tasks belong to two tenants. The bodies, and some answers, name each other's tasks: no data crosses over.

Guess: an owner of a callback's address also has the provider's ids of other tasks. Guess: a relay confuses tasks in its
callbacks and in its answers.
"""

import base64
import json
import random
from collections.abc import Callable
from typing import Any

from kling_relay.security import callback_tokens
from kling_relay.tasks.task import Phase, Task

from tests.reliability.campaign import Campaign
from tests.support.fake_cloud import MemoryCloud
from tests.support.fake_provider import Sold
from tests.support.stack_in_memory import BASE_URL, START, World

BODIES = 25  # a life
GAP_MS = 5_000
WORDS = [
    "submitted",
    "processing",
    "succeed",
    "succeeded",
    "failed",
    "SUCCESS",
    "expired",
    "",
    "lie",
    7,
    None,
    True,
    {},
    [],
]


def _id(dice: random.Random, ids: list[str | None]) -> Any:
    odd = ["up-lie", "../../lie", "lie" * 500, 17, None, ["up-1"], {"id": "up-1"}, "\ud800lie", "up-1\nlie", "1e999"]
    return dice.choice([*ids, *odd])


def _videos(dice: random.Random) -> Any:
    url = dice.choice(
        ["https://lie.example/v.mp4", "http://127.0.0.1:9001/lie", "file:///lie", "", None, 7, "https://l i e"]
    )
    return dice.choice(
        [[{"id": "lie", "url": url, "duration": "lie"}] * dice.choice([1, 3, 2000]), [url], url, {}, None]
    )


def _plain(dice: random.Random, ids: list[str | None]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "task_id": _id(dice, ids),
        "task_status": dice.choice(WORDS),
        "task_status_msg": dice.choice(["lie", "lie" * 9000, None, 3, ["lie"]]),
        "task_info": dice.choice([{}, {"external_task_id": _id(dice, ids)}, None, "lie", []]),
        "task_result": dice.choice([{}, {"videos": _videos(dice)}, None, "lie", [{"videos": _videos(dice)}]]),
        "created_at": dice.choice([0, START, START + 10**9, -1, 10**400, "lie", None, 1.5]),
        "updated_at": dice.choice([0, START, 10**15]),
        "final_unit_deduction": dice.choice(["0", "lie", -5, 10**300]),
        "code": dice.choice([0, 1303, "lie", None]),
    }
    return {name: value for name, value in body.items() if dice.random() < 0.8}


def _wrapped(dice: random.Random, ids: list[str | None]) -> Any:
    body: Any = _plain(dice, ids)
    for _ in range(dice.choice([1, 2, 5, 12])):
        body = {"code": dice.choice([0, "success"]), "data": body, "status": dice.choice(WORDS), "id": _id(dice, ids)}
    return body


def _mixed(dice: random.Random, ids: list[str | None]) -> dict[str, Any]:
    """Another task's callback at this one's address, with its id, its reference, or both; `ids`: ours come first."""
    own_id, own_reference, *others = ids
    other_id, other_reference = dice.choice([pair for pair in zip(others[::2], others[1::2], strict=True)])
    body = dice.choice(
        [
            {"task_id": other_id},
            {"task_id": other_id, "task_info": {"external_task_id": other_reference}},
            {"task_id": other_id, "task_info": {"external_task_id": own_reference}},
            {"task_id": own_id, "task_info": {"external_task_id": other_reference}},
            {"task_id": other_id, "data": {"task_id": own_id}},
            {"task_id": own_id, "data": {"task_id": other_id}},
        ]
    )
    word = dice.choice(["submitted", "processing", "succeed", "failed"])
    videos = [{"id": f"v-{other_id}", "url": _url(str(other_id)), "duration": "5"}]
    return {**body, "task_status": word, "task_result": {"videos": videos}, "created_at": dice.choice([START, 10**13])}


LIES: dict[str, Callable[[random.Random, list[str | None]], Any]] = {
    "plain": _plain,
    "wrapped": _wrapped,
    "mixed": _mixed,
    "mixed_again": _mixed,
    "status": lambda dice, ids: {"task_id": ids[0], "task_status": dice.choice(WORDS)},
    "foreign_id": lambda dice, ids: {"task_id": _id(dice, ids), "task_status": "succeed"},
    "urls": lambda dice, ids: {"task_id": ids[0], "task_status": "succeed", "task_result": {"videos": _videos(dice)}},
    "deep": lambda dice, ids: ('{"data":' if dice.random() < 0.5 else "[") * dice.choice([50, 9_000, 30_000]),
    "types": lambda dice, ids: dice.choice([[], "lie", 7, None, True, [[ids[0]]], {"data": [ids]}, {"": ""}]),
    "huge": lambda dice, ids: {**_plain(dice, ids), "lie": "lie" * dice.choice([1_000, 25_000, 300_000])},
    "not_json": lambda dice, ids: dice.choice(
        ["", "{", "lie=1&task_status=succeed", "<lie/>", "NaN", "\x00", "nul\ud800"]
    ),
}


def _url(upstream_id: str) -> str:
    return f"https://cdn.example/{upstream_id}.mp4?canary-signature"


def _own_video(sold: Sold) -> list[dict[str, str]]:
    return [{"id": f"v-{sold.upstream_id}", "url": _url(sold.upstream_id), "duration": "5"}]


def _sent(lie: Any, dice: random.Random) -> tuple[str, bool]:
    """The body as the gateway hands it over, and whether it says that it is base64."""
    text = lie if isinstance(lie, str) else json.dumps(lie)
    if dice.random() < 0.1:
        return text, True  # and is not
    if dice.random() < 0.2:
        coding = dice.choice(["utf-8", "utf-16", "utf-32"])
        return base64.b64encode(text.encode(coding, "surrogatepass")).decode(), True
    return text, False


class _Life:
    """A few tasks, one of them in doubt, at a provider that knows strangers' tasks too."""

    def __init__(self, dice: random.Random, figures: Any) -> None:
        self.dice, self.figures = dice, figures
        asked, hides = dice.choice([(True, False), (True, True), (False, True)])
        self.world = World(MemoryCloud(), profile={"ask_by_reference": asked, "hides_reference": hides})
        provider = self.world.provider
        provider.videos = _own_video
        provider.sold.append(Sold("stranger", "up-stranger", START - 60_000, 60))
        self.asked: dict[str, int] = {}
        for number in range(3):
            provider.seconds, provider.end = dice.uniform(20, 200), dice.choice(["succeed", "succeed", "failed"])
            provider.submit_faults = ["lost"] if number == 2 else []
            self.world.create(tenant="ab"[number % 2])
        self.sold = provider.sold[1:]

    def lie(self, name: str) -> None:
        dice, world = self.dice, self.world
        world.clock.tick(dice.choice([0.1, 0.5, 1, 2, 4.9, 5.1, 8, 20]))
        if dice.random() < 0.3:
            world.states.run()
        sold = dice.choice(self.sold)
        others = [name for one in world.provider.sold if one is not sold for name in (one.upstream_id, one.reference)]
        text, encoded = _sent(LIES[name](dice, [sold.upstream_id, sold.reference, *others]), dice)
        world.provider.query_faults = ["mixed"] * (dice.random() < 0.3)
        token = callback_tokens.callback_url(BASE_URL, world.services.keyring, sold.reference).rpartition("/")[2]
        event = {
            "pathParameters": {"task_id": sold.reference, "token": token},
            "body": text,
            "isBase64Encoded": encoded,
        }
        asked = len(world.provider.queries)
        assert world.call("kling_callback", event)["statusCode"] == 200
        if len(world.provider.queries) > asked:
            self.figures["asked"] += 1
            now, last = world.clock.now, self.asked.get(sold.reference)
            assert last is None or now - last >= GAP_MS, f"asked again after {now - (last or 0)} ms"
            self.asked[sold.reference] = now
        self.check(sold)
        self.figures["bodies"] += 1

    def check(self, sold: Sold) -> Task:
        """The row says nothing that the provider did not say."""
        task, now = self.world.task(sold.reference), self.world.clock.now
        assert task.upstream_id in (None, sold.upstream_id), f"took {task.upstream_id}"
        finished = (now - sold.at) / 1000 >= sold.seconds
        if task.phase in (Phase.RENDERED, Phase.SUCCEEDED, Phase.FAILED):
            assert finished and (sold.end == "failed") == (task.phase is Phase.FAILED), f"{task.phase} was a lie"
        assert all(output["url"] == _url(sold.upstream_id) for output in task.outputs)
        assert all(video["id"] == f"v-{sold.upstream_id}" for video in task.videos)
        assert task.units in (None, "1.5") and "lie" not in task.reason + task.waits_for
        return task

    def end(self) -> None:
        world = self.world
        world.provider.query_faults = []
        world.run(700, step=300)
        for sold in self.sold:
            task = self.check(sold)
            parked = task.upstream_id is None and not world.provider.profile.ask_by_reference
            assert task.phase in (Phase.SUCCEEDED, Phase.FAILED) or (parked and task.phase is Phase.UNCONFIRMED), task
        rows = world.dynamodb.scan(TableName=world.table.rows.name, ConsistentRead=True)["Items"]
        for row in rows:
            row.pop("hints", None)  # of a task in doubt: asked after, and never believed
        assert "lie" not in json.dumps(rows).replace("client", "")


def test_lying_bodies(campaign: Campaign) -> None:
    def live(number: int, dice: random.Random) -> None:
        life = _Life(dice, campaign.figures)
        names = list(LIES)
        for body in range(BODIES):
            life.lie(names[(number + body) % len(names)])
        life.end()

    campaign.run(range(campaign.size(40, 400)), live)
