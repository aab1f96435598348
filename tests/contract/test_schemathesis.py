"""Test the handlers with requests that schemathesis derives from docs/openapi.yaml, valid and invalid ones.

`make fuzz` runs more of them: FUZZ_CASES is the number for each operation.
"""

import os
import re
import zlib
from collections import Counter
from typing import Any

import jwt
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, settings
from kling_relay.api import preflight
from kling_relay.errors import _table
from kling_relay.security import auth, callback_tokens
from kling_relay.tasks.task import Task
from kling_relay.transfer.fetch_error import FetchError
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

from scripts import build_openapi
from tests.contract.forgiveness import Forgiveness
from tests.contract.gateway import Gateway
from tests.support.stack_in_memory import BASE_URL, Cloud, World

TABLE_IN_MEMORY = True
CASES = int(os.environ.get("FUZZ_CASES", "40"))
DOCUMENT = yaml.safe_load(build_openapi.SOURCE.read_text())
LOCAL = {**DOCUMENT, "servers": [{"url": "http://localhost"}]}
LOCAL["paths"] = {path: {k: v for k, v in item.items() if k != "servers"} for path, item in DOCUMENT["paths"].items()}
FORGIVENESS = Forgiveness(DOCUMENT)
BODIES = {
    "image2video": "Image2Video",
    "multi-image2video": "MultiImage2Video",
    "text2video": "Text2Video",
    "omni-video": "OmniVideo",
}
PLAIN = {
    "image2video": {"image": "https://images.example/a.png"},
    "multi-image2video": {"image_list": [{"image": "https://images.example/a.png"}]},
    "text2video": {"prompt": "p"},
    "omni-video": {"prompt": "p", "aspect_ratio": "1:1"},
}
PICTURE_FIELDS = {"image", "image_tail", "static_mask", "mask", "image_url"}
OWN_WORDS = re.compile(  # of a type, a limit or a choice; rules between fields use others
    r": must be (one of|a string|an http\(s\) URL of|a list of|a (whole )?number|true or false|an object)\b.* \(got "
)
MAY = {
    "key": {"GET", "POST", "DELETE"},
    "token": {"GET", "POST", "DELETE"},
    "reader": {"GET"},
    "writer": {"POST", "DELETE"},
}
CALLERS = ["key", "key", "key", "token", "token", "token", "reader", "writer", "nobody", "stranger", "late"]
FAULTS = ["refused", "arrears", "no_room", "dropped", "not_sent"]

CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]

schema = schemathesis.openapi.from_dict(LOCAL)
schema.config.generation.update(with_security_parameters=False)
schema.app = lambda environ, start_response: serving[0](environ, start_response)
serving: list[Gateway] = []  # the one of the fixture
met: Counter[str] = Counter()


@schemathesis.hook
def filter_body(context: Any, body: Any) -> bool:
    """It draws words from answers too, such as a provider's, which no log may have, for the name of a model."""
    return "canary" not in str(body)


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Nearly no drawn body gets past the rules between fields: they are completed, and have URLs for images.

    Those of schemathesis' coverage phase stay as they are.
    """
    if not isinstance(body, dict):
        return body
    return {**PLAIN.get(context.operation.path.rpartition("/")[2], {}), **_pictured(body)}


def _pictured(value: Any) -> Any:
    if isinstance(value, list):
        return [_pictured(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    pictured = {name: _pictured(inner) for name, inner in value.items()}
    texts = [name for name in PICTURE_FIELDS & pictured.keys() if isinstance(pictured[name], str)]
    return {**pictured, **{name: "https://images.example/a.png" for name in texts}}


@pytest.fixture
def gateway(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """One for each operation."""

    def refuse(url: str, **_: object) -> tuple[bytes, int | None]:
        raise FetchError("network")

    monkeypatch.setattr(preflight, "read_start", refuse)
    serving[:] = [Gateway(World(cloud))]
    return serving[0]


@pytest.fixture
def tasks(gateway: Gateway) -> list[Task]:
    """Of every kind one that has ended, one that runs, and one that waits."""
    world = gateway.world
    for number, fault in enumerate(["accept", "accept", "no_room"]):
        for kind, body in PLAIN.items():
            world.provider.submit_faults = [fault]
            body = {**body, "prompt": "p", "external_task_id": f"order {kind} {number}"}
            status, _ = world.http("POST", f"/v1/videos/{kind}", body, authorization=world.key())
            assert status == 200
        world.run(300 if number == 0 else 1)
    return world.tasks()


@pytest.fixture
def keys(gateway: Gateway) -> dict[str, auth.IssuedKey]:
    services, now = gateway.world.services, gateway.world.clock.now
    scopes = {"key": ("submit", "read"), "reader": ("read",), "writer": ("submit",)}
    return {name: auth.issue(services.keys, services.keyring, "acme", now, scopes=one) for name, one in scopes.items()}


def authorization(caller: str, keys: dict[str, auth.IssuedKey], now_ms: int) -> dict[str, str]:
    """The header that this kind of caller sends."""
    if caller == "nobody":
        return {}
    if caller in keys:
        return {"Authorization": f"Bearer {keys[caller].api_key}"}
    ends = now_ms // 1000 + (1800 if caller == "token" else -1800)
    token = jwt.encode({"iss": keys["key"].access_key, "exp": ends, "nbf": ends - 1805}, keys["key"].secret_key)
    return {"Authorization": f"Bearer {token if caller != 'stranger' else token[:-9]}"}


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
def every_answer_is_described(
    case: schemathesis.Case, gateway: Gateway, tasks: list[Task], keys: dict[str, auth.IssuedKey]
) -> None:
    world = gateway.world
    choice = zlib.crc32(repr((case.method, case.path_parameters, case.query, case.body)).encode("utf-8", "replace"))
    caller = CALLERS[choice % len(CALLERS)]
    if choice % 2:
        name_what_is_there(case, world, tasks[choice // 2 % len(tasks)])
    if key := case.headers.get("Idempotency-Key"):  # the same few come again and again: as long, but each its own
        case.headers["Idempotency-Key"] = f"{key[:-10]}{choice:010}"
    world.provider.submit_faults = [FAULTS[choice // 7 % len(FAULTS)]] if choice % 7 == 0 else []
    world.clock.tick(1)
    prefix = "/kling" if choice % 3 == 0 and "token" not in case.path_parameters else ""
    headers = authorization(caller, keys, world.clock.now)
    response = case.call(base_url=f"http://localhost{prefix}", headers=headers)
    case.validate_response(response, checks=CHECKS)
    met["cases"] += 1
    met[f"{case.operation.label} {response.status_code}"] += 1
    check(caller, gateway.event, response.status_code, response.json())
    if choice % 2 and "reference" in case.path_parameters and case.path_parameters["kind"] in BODIES:
        assert response.status_code != 404 or gateway.event is None, "a task that is there was not found"


def name_what_is_there(case: schemathesis.Case, world: World, task: Task) -> None:
    """Put the name of a real task where the case names one that is none."""
    if "token" in case.path_parameters:
        task_id, token = callback_tokens.callback_url(BASE_URL, world.services.keyring, task.id).split("/")[-2:]
        case.path_parameters = {"task_id": task_id, "token": token}
    elif "reference" in case.path_parameters:
        name = task.id if int(task.id, 16) % 2 else task.external_task_id
        case.path_parameters = {**case.path_parameters, "reference": name}
    elif case.query.get("external_task_id"):
        case.query["external_task_id"] = task.external_task_id


def check(caller: str, event: Any, status: int, answer: dict[str, Any]) -> None:
    """What no schema says: the envelope's types, who may do what, and that only what is forgiven is let through."""
    assert type(answer["code"]) is int and type(answer["message"]) is str and type(answer["request_id"]) is str
    if status == 200:
        assert answer["code"] == 0
    else:
        assert answer["message"] and "data" not in answer
        assert status == _table()[answer["code"]]["http"] or (answer["code"] == 1201 and status in (409, 413))
    if event is None:
        assert (status, answer["code"]) == (404, 1202)
        return
    kind = (event["pathParameters"] or {}).get("kind")
    if "token" in (event["pathParameters"] or {}):
        assert status in (200, 404)
    elif caller not in MAY:
        assert status == 401
    elif event["httpMethod"] not in MAY[caller]:
        assert (status, answer["code"]) == (403, 1103)
    elif kind is not None and kind not in BODIES:
        assert (status, answer["code"]) == (404, 1202)
    elif event["httpMethod"] == "POST":
        check_body(BODIES.get(kind, "UploadRequest"), event, status, answer)
    elif event["resource"].endswith("/{kind}"):
        check_page(event["queryStringParameters"] or {}, status)


def check_body(name: str, event: dict[str, Any], status: int, answer: dict[str, Any]) -> None:
    is_valid = FORGIVENESS.is_valid(name, (event["body"] or "").encode())
    if not is_valid or len(event["headers"].get("Idempotency-Key", "")) > 255:
        assert (status, answer["code"]) == (400, 1201)
    elif name == "UploadRequest":
        assert status == 200
    else:
        assert status == 200 or not OWN_WORDS.search(answer["message"]), "what the description takes was refused"
    met[f"{name} {status}"] += 1


def check_page(query: dict[str, str], status: int) -> None:
    if query.get("external_task_id"):
        assert status in (200, 404)
    else:
        good = [_within(query.get("pageNum", ""), 1000), _within(query.get("pageSize", ""), 500)]
        assert status == (200 if all(good) else 400)


def _within(text: str, maximum: int) -> bool:
    """Whether a page's number or size is one, or is left out."""
    text = text.strip()
    return not text or (re.fullmatch("[0-9]{1,9}", text) is not None and 1 <= int(text) <= maximum)


for _operation in (one.ok() for one in schema.get_all_operations()):
    _name = _operation.definition.raw["operationId"]
    globals()[f"test_{_name}"] = schema.include(operation_id=_name).parametrize()(every_answer_is_described)


def test_it_was_much_and_went_deep() -> None:
    """Runs last in this module: at least 2,000 cases, and of every kind some that were taken and some refused."""
    assert met["cases"] >= 2000, met
    for name in (*BODIES.values(), "UploadRequest"):
        assert met[f"{name} 200"] >= 10 and met[f"{name} 400"] >= 10, met
    for method in ("GET", "DELETE"):
        assert met[f"{method} /v1/videos/{{kind}}/{{reference}} 200"], met
    for status in (401, 403, 404):
        assert sum(count for what, count in met.items() if what.endswith(f" {status}")) >= 20, met
