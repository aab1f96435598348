"""Test callbacks without a valid token: each gets the constant answer, and changes nothing."""

import base64
import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from kling_relay.security import callback_tokens, standard_webhooks
from kling_relay.security.keyring import Keyring
from kling_relay.security.stored_secrets import Cached
from kling_relay.tasks.task import Task, new_task_id

from tests.reliability.campaign import Campaign
from tests.support.stack_in_memory import BASE_URL, Cloud, World
from tests.unit.lifecycle.test_signed_callbacks import OTHER, SECRET, holding, store

RING = Keyring({"k1": "canary-secret", "k2": "canary-newer"})
_TOKEN_LETTERS = string.ascii_letters + string.digits + "-_"
_ODD = ["=", "==", " ", "\n", "\0", "\t", "A", ".", "/", "%00", "\u200b", "\ud800", "?x=1", "#", ";"]
BODIES = [None, "", "{}", '{"task_id": "up-1", "task_status": "succeed"}', "[", "x" * 70_000, "\ud800"]


def token(task_id: str, ring: Keyring = RING) -> str:
    return callback_tokens.callback_url(BASE_URL, ring, task_id).rpartition("/")[2]


def _random(true: str, dice: random.Random) -> str:
    letters = "".join(dice.choices(_TOKEN_LETTERS, k=dice.choice([32, 32, 1, 31, 33, 300])))
    return dice.choice(["k1.", "k2.", "", "."]) + letters


def _bit_flip(true: str, dice: random.Random) -> str:
    key_id, _, mac = true.partition(".")
    raw = bytearray(base64.urlsafe_b64decode(mac))
    raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
    return f"{key_id}.{base64.urlsafe_b64encode(raw).decode()}"


def _another_tasks(true: str, dice: random.Random) -> str:
    return token(new_task_id())


def _other_key(true: str, dice: random.Random) -> str:
    key_id, _, mac = true.partition(".")
    other = "k1" if key_id == "k2" else "k2"
    return dice.choice([other, "k0", "k3", "K1", "k01", "", " k1", "k1k2"]) + "." + mac


def _truncated(true: str, dice: random.Random) -> str:
    return true[: dice.randrange(1, len(true))] if dice.random() < 0.7 else true[dice.randrange(1, len(true)) :]


def _padded(true: str, dice: random.Random) -> str:
    odd = dice.choice(_ODD) * dice.choice([1, 1, 2, 1000])
    at = dice.choice([0, len(true), dice.randrange(len(true))])
    return true[:at] + odd + true[at:]


def _case(true: str, dice: random.Random) -> str:
    at = dice.choice([place for place, letter in enumerate(true) if letter.isalpha()])
    return dice.choice([true.swapcase(), true[:at] + true[at].swapcase() + true[at + 1 :]])


def _encoded(true: str, dice: random.Random) -> str:
    at = dice.randrange(len(true))
    return dice.choice(
        [
            true[:at] + f"%{ord(true[at]):02x}" + true[at + 1 :],
            "".join(f"%{ord(letter):02X}" for letter in true),
            quote(quote(true[:at] + "." + true[at:], safe=""), safe="") + "%2e",
            "".join(chr(ord(letter) + 0xFEE0) for letter in true),  # full width
            base64.b64encode(true.encode()).decode(),
            true.encode().hex(),
        ]
    )


def _empty(true: str, dice: random.Random) -> str | None:
    return dice.choice(["", None, ".", "k1.", "k1", " "])


FORGERIES: dict[str, Callable[[str, random.Random], str | None]] = {
    "random": _random,
    "bit_flip": _bit_flip,
    "another_tasks": _another_tasks,
    "other_key": _other_key,
    "truncated": _truncated,
    "padded": _padded,
    "case": _case,
    "encoded": _encoded,
    "empty": _empty,
}


@pytest.fixture
def calls(cloud: Cloud) -> Iterator[list[str]]:
    """Every call to AWS, reads included."""
    made: list[str] = []

    def note(model: Any, **_: Any) -> None:
        made.append(model.name)

    for client in (cloud.dynamodb, cloud.s3):
        client.meta.events.register("before-call", note)
    yield made
    for client in (cloud.dynamodb, cloud.s3):
        client.meta.events.unregister("before-call", note)


def event(task_id: str | None, forged: str | None, dice: random.Random) -> dict[str, Any]:
    place = {"task_id": task_id, "token": forged}
    parameters = {name: value for name, value in place.items() if value is not None}
    body, encoded = dice.choice(BODIES), dice.random() < 0.2
    return {"pathParameters": parameters or None, "body": body, "isBase64Encoded": encoded}


def test_forged_callbacks(campaign: Campaign, world: World, calls: list[str]) -> None:
    world.services.secrets.relay = Cached(lambda: json.dumps(dict(RING.versions)))
    tasks: list[Task] = [world.create() for _ in range(4)]
    effects, queries, answers = len(world.effects.names), list(world.provider.queries), set()
    calls.clear()

    def forge(name: str, dice: random.Random) -> None:
        task_id = dice.choice([dice.choice(tasks).id, new_task_id()])
        true = token(task_id, dice.choice([RING, Keyring({"k1": RING.versions["k1"]})]))
        forged = FORGERIES[name](true, dice)
        assert forged not in (true, token(task_id)), "that would be no forgery"
        answer = world.call("kling_callback", event(task_id, forged, dice))
        answers.add(json.dumps(answer, sort_keys=True))
        assert answer["statusCode"] == 404, f"accepted: {forged!r}"
        assert calls == [], "AWS was called"
        assert (len(world.effects.names), world.provider.queries) == (effects, queries)
        campaign.figures[name] += 1

    names = list(FORGERIES)
    campaign.run([names[number % len(names)] for number in range(campaign.size(10_000, 100_000))], forge)
    assert len(answers) == 1 and len(FORGERIES) == 9


def test_a_true_token_is_accepted_there(campaign: Campaign, world: World, calls: list[str]) -> None:
    """The campaign's own check: its counters see what an accepted callback does."""
    world.services.secrets.relay = Cached(lambda: json.dumps(dict(RING.versions)))
    task = world.create()
    world.clock.tick(10)
    calls.clear()

    def accept(ring: Keyring, dice: random.Random) -> None:
        assert world.call("kling_callback", event(task.id, token(task.id, ring), dice))["statusCode"] == 200

    campaign.run([RING, Keyring({"k1": RING.versions["k1"]})], accept)
    assert "GetItem" in calls and len(world.provider.queries) == 1


# -- a signature that the provider never made, behind a token that is true

Headers = dict[str, str]


def _signed(secret: str, at: float, body: bytes) -> Headers:
    return standard_webhooks.signed([secret], "msg-1", str(int(at)), body)


def _other_secret(right: Headers, at: float, body: bytes, dice: random.Random) -> Headers:
    return _signed(OTHER, at, body)


def _other_body(right: Headers, at: float, body: bytes, dice: random.Random) -> Headers:
    return _signed(SECRET, at, body + dice.choice([b" ", b"\0", b"{}"]))


def _old(right: Headers, at: float, body: bytes, dice: random.Random) -> Headers:
    return _signed(SECRET, at - dice.choice([301, 3600, 86_400, at]), body)


def _of_tomorrow(right: Headers, at: float, body: bytes, dice: random.Random) -> Headers:
    return _signed(SECRET, at + dice.choice([302, 86_400, 10**9]), body)


def _renewed(right: Headers, at: float, body: bytes, dice: random.Random) -> Headers:
    """An old message under a new time or id."""
    if dice.random() < 0.5:
        return {**_signed(SECRET, at - 600, body), "webhook-timestamp": right["webhook-timestamp"]}
    return {**right, "webhook-id": dice.choice(["msg-2", "msg-1 ", "", "MSG-1"])}


def _changed(right: Headers, at: float, body: bytes, dice: random.Random) -> Headers:
    version, _, mac = right["webhook-signature"].partition(",")
    raw = bytearray(base64.b64decode(mac))
    raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
    flipped = f"{version},{base64.b64encode(raw).decode()}"
    odd = [
        flipped,
        mac,
        f"v2,{mac}",
        f"v1a,{mac}",
        f"V1,{mac}",
        f"v1,{mac[:-2]}",
        f"v1,{mac}=",
        f"v1.{mac}",
        "v1,",
        "\ud800",
    ]
    return {**right, "webhook-signature": dice.choice(odd)}


def _in_part(right: Headers, at: float, body: bytes, dice: random.Random) -> Headers:
    missing = dice.choice(list(right))
    return {**right, missing: ""} if dice.random() < 0.3 else {name: right[name] for name in right if name != missing}


def _absent(right: Headers, at: float, body: bytes, dice: random.Random) -> Headers:
    return dice.choice(
        [{}, {"user-agent": "Apache-HttpClient/4.5.13"}, {"x-webhook-signature": right["webhook-signature"]}]
    )


UNSIGNED: dict[str, Callable[[Headers, float, bytes, random.Random], Headers]] = {
    "other_secret": _other_secret,
    "other_body": _other_body,
    "old": _old,
    "of_tomorrow": _of_tomorrow,
    "renewed": _renewed,
    "changed": _changed,
    "in_part": _in_part,
    "absent": _absent,
}


def test_forged_signatures(campaign: Campaign, world: World, calls: list[str]) -> None:
    """A stolen address does not help where the provider signs: whether the stack requires that, or only checks what
    there is; then a callback without any signature is none of these."""
    world.services.secrets.relay = Cached(lambda: json.dumps(dict(RING.versions)))
    store(world, holding(SECRET))
    checked, required = (replace(world.services.settings, require_webhook_signature=one) for one in ("off", "on"))
    tasks = [world.create() for _ in range(4)]
    effects, queries, answers = len(world.effects.names), list(world.provider.queries), set()
    calls.clear()

    def call(task: Task, headers: Headers, body: str) -> dict[str, Any]:
        place = {"task_id": task.id, "token": token(task.id)}
        return world.call("kling_callback", {"pathParameters": place, "headers": headers, "body": body})

    def forge(name: str, dice: random.Random) -> None:
        world.services.settings = required if name == "absent" else dice.choice([checked, required])
        world.clock.tick(1)
        at, body = world.clock.now / 1000, dice.choice(BODIES) or ""
        raw = body.encode("utf-8", "surrogatepass")
        headers = UNSIGNED[name](_signed(SECRET, at, raw), at, raw, dice)
        answer = call(dice.choice(tasks), headers, body)
        answers.add(json.dumps(answer, sort_keys=True))
        assert answer["statusCode"] == 404, f"accepted: {headers!r}"
        assert calls == [], "AWS was called"
        assert (len(world.effects.names), world.provider.queries) == (effects, queries)
        campaign.figures[name] += 1

    names = list(UNSIGNED)
    campaign.run([names[number % len(names)] for number in range(campaign.size(1_000, 10_000))], forge)
    assert len(answers) == 1
    right = _signed(SECRET, world.clock.now / 1000, b"{}")
    assert call(tasks[0], right, "{}")["statusCode"] == 200 and len(world.provider.queries) == len(queries) + 1
