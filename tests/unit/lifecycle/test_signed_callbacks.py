"""Test callbacks at the handler: the token first, then the signature if there is one, then any body."""

import base64
import itertools
import json
from typing import Any

import pytest
from kling_relay.security import callback_tokens
from kling_relay.security.callback_tokens import PROBE
from kling_relay.security.standard_webhooks import signature
from kling_relay.security.stored_secrets import Cached
from kling_relay.tasks.task import Phase, Task

from tests.support.printed_metrics import published_metrics
from tests.support.stack_in_memory import BASE_URL, Cloud, World

IN_MEMORY = True

SECRET, OTHER = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI=", "whsec_b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQ="
NOTICE = '{"task_id":"up-1","task_status":"succeed","task_status_msg":"ü"}'
NOT_FOUND = (404, '{"code":1202,"message":"method or path not found","request_id":""}')
DONE = (200, '{"code":0,"message":"SUCCEED","request_id":""}')


def store(world: World, text: str) -> list[int]:
    """Store the provider's secret; returns what grows by one with every read of it."""
    reads: list[int] = []
    world.services.secrets.provider = Cached(lambda: (reads.append(1), text)[1], now=lambda: world.clock.now / 1000)
    return reads


def holding(*secrets: str) -> str:
    return json.dumps({"key": "sk-1", "webhook_secret": " ".join(secrets)})


def signed(world: World, secret: str, body: bytes, *, late: float = 0) -> dict[str, str]:
    at = str(int(world.clock.now / 1000 - late))
    made = signature(secret, "msg-1", at, body)
    return {"Webhook-Id": "msg-1", "Webhook-Timestamp": at, "Webhook-Signature": f"v1,AAAA {made}"}


def ring(world: World, task: Task | str, body: str | bytes, headers: Any = None) -> tuple[int, str]:
    """A POST of `body` to the callback address; bytes come as the gateway encodes what is binary."""
    task_id = task if isinstance(task, str) else task.id
    token = callback_tokens.callback_url(BASE_URL, world.services.keyring, task_id).rpartition("/")[2]
    event = {"pathParameters": {"task_id": task_id, "token": token}, "headers": headers, "body": body}
    if isinstance(body, bytes):
        event |= {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
    answer = world.call("kling_callback", event)
    return answer["statusCode"], answer["body"]


def rendered(world: World) -> Task:
    """A task that is finished at the provider, and nobody has told us."""
    task = world.create()
    world.clock.tick(61)
    return task


def phase(world: World, task: Task) -> Phase:
    return world.task(task.id).phase


@pytest.mark.parametrize("body", [NOTICE, NOTICE.encode(), NOTICE.encode("utf-16"), b"\xff\xfe", b"x" * 300_000, ""])
def test_a_right_signature_over_the_raw_bytes_passes(world: World, body: str | bytes) -> None:
    store(world, holding(OTHER, SECRET))
    task = rendered(world)
    raw = body if isinstance(body, bytes) else body.encode()
    assert ring(world, task, body, signed(world, SECRET, raw)) == DONE
    assert phase(world, task) is Phase.RENDERED


@pytest.mark.parametrize("wrong", ["secret", "body", "late", "early", "one header", "empty", "base64"])
def test_a_wrong_signature_is_the_constant_404_and_causes_nothing(
    world: World, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store(world, holding(SECRET))
    task = rendered(world)
    headers: dict[str, Any] = signed(world, SECRET, NOTICE.encode())
    headers = {
        "secret": signed(world, OTHER, NOTICE.encode()),
        "body": signed(world, SECRET, NOTICE.encode() + b" "),
        "late": signed(world, SECRET, NOTICE.encode(), late=301),
        "early": signed(world, SECRET, NOTICE.encode(), late=-302),
        "one header": {"webhook-signature": headers["Webhook-Signature"]},
        "empty": {**headers, "Webhook-Signature": ""},
    }.get(wrong, headers)
    row = world.row(f"task#{task.id}")
    capsys.readouterr()
    if wrong == "base64":
        token = callback_tokens.callback_url(BASE_URL, world.services.keyring, task.id).rpartition("/")[2]
        event = {"pathParameters": {"task_id": task.id, "token": token}, "headers": headers, "body": "a"}
        answer = world.call("kling_callback", {**event, "isBase64Encoded": True})
        assert (answer["statusCode"], answer["body"]) == NOT_FOUND
    else:
        assert ring(world, task, NOTICE, headers) == NOT_FOUND
    assert world.row(f"task#{task.id}") == row and world.provider.queries == []
    assert published_metrics(capsys) == {"CallbacksRejected": [1]}


@pytest.mark.parametrize("stored", ["sk-1", '{"key": "sk-1"}', '{"key": "sk-1", "webhook_secret": ""}'])
def test_a_signature_of_somebody_in_between_is_none_of_ours(world: World, stored: str) -> None:
    """A relay's own secret: nobody here can know it. The token is what counts."""
    store(world, stored)
    task = rendered(world)
    assert ring(world, task, NOTICE, signed(world, OTHER, NOTICE.encode())) == DONE
    assert phase(world, task) is Phase.RENDERED


@pytest.mark.parametrize("headers", [None, {}, {"User-Agent": "Apache-HttpClient/4.5.13"}])
def test_without_a_signature_it_passes_and_the_secret_is_not_even_read(world: World, headers: Any) -> None:
    reads = store(world, holding(SECRET))
    task = rendered(world)
    assert ring(world, task, NOTICE, headers) == DONE
    assert phase(world, task) is Phase.RENDERED and reads == []


def test_unless_signatures_are_required(cloud: Cloud) -> None:
    world = World(cloud, require_webhook_signature="on")
    store(world, holding(SECRET))
    task = rendered(world)
    assert ring(world, task, NOTICE) == NOT_FOUND and world.provider.queries == []
    assert ring(world, PROBE, NOTICE) == NOT_FOUND
    assert ring(world, PROBE, NOTICE, signed(world, SECRET, NOTICE.encode())) == DONE
    assert ring(world, task, NOTICE, signed(world, SECRET, NOTICE.encode())) == DONE
    assert phase(world, task) is Phase.RENDERED


def test_required_and_none_stored_is_closed(cloud: Cloud) -> None:
    world = World(cloud, require_webhook_signature="on")
    store(world, "sk-1")
    task = rendered(world)
    assert ring(world, task, NOTICE, signed(world, OTHER, NOTICE.encode())) == NOT_FOUND
    assert world.until_closed(task.id).phase is Phase.SUCCEEDED, "by polling"


def test_a_rotated_secret_is_read_at_the_first_signature_that_does_not_fit(world: World) -> None:
    held = [holding(OTHER)]
    world.services.secrets.provider = Cached(lambda: held[0], now=lambda: world.clock.now / 1000)
    task = rendered(world)
    assert ring(world, PROBE, "", signed(world, OTHER, b"")) == DONE
    held[0] = holding(SECRET)
    assert ring(world, task, NOTICE, signed(world, SECRET, NOTICE.encode())) == DONE
    assert phase(world, task) is Phase.RENDERED


def test_wrong_signatures_cost_a_read_in_five_seconds(world: World) -> None:
    reads = store(world, holding(SECRET))
    began = world.clock.now
    for _ in range(200):
        world.clock.tick(0.1)
        assert ring(world, PROBE, "", signed(world, OTHER, b"")) == NOT_FOUND
    assert len(reads) <= 2 + (world.clock.now - began) / 5000


def test_a_secret_that_cannot_be_read_is_no_error(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    def away() -> str:
        raise ConnectionError("secrets manager is away")

    world.services.secrets.provider = Cached(away)
    task = rendered(world)
    assert ring(world, task, NOTICE, signed(world, SECRET, NOTICE.encode())) == DONE
    assert phase(world, task) is Phase.SUBMITTED, "not used: the poll finds out as well"


# -- the probe


@pytest.mark.parametrize("body", [NOTICE, '{"id":"1","status":"submitted","outputs":[]}', "", "[" * 100_000, b"\xff"])
def test_the_probe_answers_and_does_nothing(world: World, body: Any, capsys: pytest.CaptureFixture[str]) -> None:
    effects = len(world.effects.names)
    assert ring(world, PROBE, body) == DONE
    assert len(world.effects.names) == effects and world.provider.queries == [] and published_metrics(capsys) == {}


def test_the_probes_path_comes_from_the_operators_function(world: World) -> None:
    path = world.call("operate_tasks", {"action": "probe_path"})["path"]
    assert path == callback_tokens.callback_url("", world.services.keyring, PROBE)
    assert path.startswith("/hooks/kling/probe/"), "stands in consoles of providers"
    place = dict(zip(("task_id", "token"), path.split("/")[3:], strict=True))
    assert world.call("kling_callback", {"pathParameters": place, "body": "{}"})["statusCode"] == 200
    forged = {"task_id": PROBE, "token": "k1." + "A" * 32}
    assert world.call("kling_callback", {"pathParameters": forged, "body": "{}"})["statusCode"] == 404


# -- bodies, order, floods


BODIES = ["", "{", "[]", "null", '"x"', "1e999", "[" * 10_000, '{"a":' * 10_000, "x" * 70_000, " " * 70_000 + "{}"]


@pytest.mark.parametrize("body", [*BODIES, *(text.encode() for text in BODIES), b"\xff\xfe\x00", b"\x80" * 70_000])
def test_whatever_the_body_is_the_provider_is_asked_as_usual(world: World, body: Any) -> None:
    task = rendered(world)
    assert ring(world, task, body) == DONE
    assert phase(world, task) is Phase.RENDERED and len(world.provider.queries) == 1


def test_the_token_comes_before_anything_else_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unread(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            assert key == "pathParameters", f"{key} was read for a forger"
            return super().get(key, default)

        __getitem__ = get  # type: ignore[assignment]

    reads = store(world, holding(SECRET))
    event = Unread(pathParameters={"task_id": world.create().id, "token": "k1." + "A" * 32}, body="{}", headers={})
    assert world.call("kling_callback", event)["statusCode"] == 404 and reads == []


@pytest.mark.slow
def test_a_thousand_pokes_cost_a_query_in_five_seconds(world: World) -> None:
    """Whatever they say, and while workflow and sweeper go on as usual."""
    world.provider.seconds = 10**6
    task = world.create()
    world.clock.tick(200)
    asked: list[int] = []
    for number in range(1000):
        world.clock.tick(0.05 + number % 7 / 20)
        before = len(world.provider.queries)
        assert ring(world, task, [NOTICE, "", "{}", "[" * 10_000][number % 4]) == DONE
        asked += [world.clock.now] * (len(world.provider.queries) - before)
    assert len(asked) > 10
    assert all(later - sooner >= 5000 for sooner, later in itertools.pairwise(asked))
    assert world.task(task.id).phase is Phase.PROCESSING
