"""Test events that no gateway should send: the public functions answer any content, and never with a 5xx."""

import base64
import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kling_relay.tasks.task import Task

from tests.support.stack_in_memory import World
from tests.unit.test_handlers import event, token

pytestmark = pytest.mark.slow

TABLE_IN_MEMORY = True
CASES = int(os.environ.get("FUZZ_CASES", "150"))
many = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))

LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["x" * 70_000, "%", "\0"])
ODD = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
)
TEXTS = st.text(max_size=30) | st.sampled_from(["a" * 9000, "%ff%fe", "%2e%2e%2f", "%", "\ud800", "é"])
SEGMENTS = st.sampled_from(["kling", "v1", "videos", "image2video", "uploads", "account", "costs", "", "."]) | TEXTS
PATHS = st.lists(SEGMENTS, max_size=7).map(lambda parts: "/" + "/".join(parts))
BINARY = st.binary(max_size=60).map(lambda raw: base64.b64encode(raw).decode())
BODIES = st.none() | TEXTS | BINARY | ODD.map(json.dumps) | st.just('{"image": "' + "A" * 5_600_000 + '"}')
HEADERS = st.none() | st.dictionaries(
    st.sampled_from(["Authorization", "authorization", "Idempotency-Key", "Content-Type", "x"]), TEXTS, max_size=3
)
QUERIES = st.none() | st.dictionaries(st.sampled_from(["pageNum", "pageSize", "external_task_id", "x"]), TEXTS)
# What a gateway may leave out or change within its own format.
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "path": PATHS,
        "requestContext": st.sampled_from([None, {}, {"requestId": None}]),
        "httpMethod": st.sampled_from(["GET", "POST", "DELETE", "PUT", "OPTIONS", "HEAD", "get", "X"]),
        "body": BODIES,
        "isBase64Encoded": st.booleans(),
        "headers": HEADERS,
        "multiValueHeaders": st.none(),
        "queryStringParameters": QUERIES,
        "multiValueQueryStringParameters": st.none(),
        "pathParameters": st.none() | st.dictionaries(st.sampled_from(["task_id", "token", "kind"]), TEXTS),
    },
)
NAMES = (
    "body headers httpMethod isBase64Encoded multiValueHeaders path pathParameters queryStringParameters requestContext"
)
GONE = st.sets(st.sampled_from(NAMES.split()), max_size=3)


def answered(world: World, function: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The answer's status and body, which have to be what API Gateway and clients can read."""
    answer = json.loads(json.dumps(world.call(function, asked)))
    body = json.loads(answer["body"])
    assert type(answer["statusCode"]) is int and answer["statusCode"] < 500
    assert type(body["code"]) is int and type(body["message"]) is str and type(body["request_id"]) is str
    assert (body["code"] == 0) == (answer["statusCode"] == 200)
    return answer["statusCode"], body


@pytest.mark.parametrize(
    "sample",
    ["task_api_create", "task_api_query", "task_api_list", "task_api_delete", "task_api_upload", "task_api_costs"],
)
@many
@given(changes=PARTS, gone=GONE, is_known=st.booleans())
@example(changes={"body": "!", "isBase64Encoded": True}, gone=set(), is_known=True)
@example(changes={"headers": None}, gone=set(), is_known=False)
def test_task_api(world: World, sample: str, changes: dict[str, Any], gone: set[str], is_known: bool) -> None:
    known = event(sample, API_KEY=world.key().removeprefix("Bearer "), TASK_ID="f" * 32)
    asked = {name: value for name, value in {**known, **changes}.items() if name not in gone}
    if is_known and isinstance(asked.get("headers"), dict):
        asked["headers"] = {**asked["headers"], "Authorization": world.key()}
    answered(world, "task_api", asked)


@pytest.fixture
def task(world: World) -> Task:
    return world.create()


@many
@given(changes=PARTS, gone=GONE, keeps_place=st.booleans())
def test_kling_callback(world: World, task: Task, changes: dict[str, Any], gone: set[str], keeps_place: bool) -> None:
    known = event("kling_callback", TASK_ID=task.id, CALLBACK_TOKEN=token(world, task))
    asked = {name: value for name, value in {**known, **changes}.items() if name not in gone}
    if keeps_place:
        asked["pathParameters"] = known["pathParameters"]
    status, _ = answered(world, "kling_callback", asked)
    assert status == (200 if asked.get("pathParameters") == known["pathParameters"] else 404)
