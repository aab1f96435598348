"""Test the functions with their real events: answers, envelopes, and no secret in their logs."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kling_relay import services as relay_module
from kling_relay.observability import logger
from kling_relay.security import callback_tokens
from kling_relay.settings import SettingsError
from kling_relay.tasks import idempotency
from kling_relay.tasks.task import Phase, Task
from moto import mock_aws

from tests.support.stack_in_memory import BASE_URL, BODY, ROOT, Cloud, World, create_table, video_keys
from tests.unit.api.test_create import b64, png

TABLE_IN_MEMORY = True
PREFIXES = ("/kling/v1", "/v1")


def event(name: str, **values: str) -> Any:
    """A sample of events/ with its ${PLACEHOLDERS} filled in."""
    text = (ROOT / "events" / f"{name}.json").read_text()
    for key, value in values.items():
        text = text.replace("${" + key + "}", value)
    assert "${" not in text
    return json.loads(text)


def token(world: World, task: Task) -> str:
    return callback_tokens.callback_url(BASE_URL, world.services.keyring, task.id).rpartition("/")[2]


def envelope(answer: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    body = json.loads(answer["body"])
    assert type(body["code"]) is int and isinstance(body["message"], str) and isinstance(body["request_id"], str)
    assert answer["multiValueHeaders"]["Content-Type"] == ["application/json"]
    return answer["statusCode"], body


def test_the_samples_in_the_order_of_a_life(world: World) -> None:
    api_key = world.key()[7:]
    status, body = envelope(world.call("task_api", event("task_api_create", API_KEY=api_key)))
    assert (status, body["code"], body["data"]["task_status"]) == (200, 0, "submitted")
    assert body["request_id"] == "7f1c0f5e-0000-4000-8000-000000000001"
    assert body["data"]["task_info"] == {"external_task_id": "sample-1"}
    (task,) = world.tasks()
    ids = {"TASK_ID": task.id}
    assert world.call("advance_task", event("advance_task", **ids))["next"] == "wait"
    world.clock.tick(61)
    callback = event("kling_callback", **ids, CALLBACK_TOKEN=token(world, task))
    assert world.call("kling_callback", callback)["statusCode"] == 200
    assert world.task(task.id).phase is Phase.RENDERED
    state = world.call("archive_video", event("archive_video", **ids))
    assert state == {**state, "next": "done", "task_id": task.id}
    status, body = envelope(world.call("task_api", event("task_api_query", API_KEY=api_key)))
    assert body["data"]["task_status"] == "succeed"
    (video,) = body["data"]["task_result"]["videos"]
    assert video_keys(world.task(task.id))[0] in video["url"] and "Signature=" in video["url"]
    _, listed = envelope(world.call("task_api", event("task_api_list", API_KEY=api_key)))
    assert [one["task_id"] for one in listed["data"]] == [task.id]
    _, offered = envelope(world.call("task_api", event("task_api_upload", API_KEY=api_key)))
    assert offered["data"]["image"].startswith("s3://inputs/uploads/acme/")
    assert envelope(world.call("task_api", event("task_api_costs", API_KEY=api_key)))[1]["data"]["code"] == 0
    _, deleted = envelope(world.call("task_api", event("task_api_delete", API_KEY=api_key)))
    assert deleted["data"]["task_result"] == {"videos": []}
    assert set(world.call("sweep_tasks", event("sweep_tasks"))) == {"overdue", "waiting", "late", "notifications"}
    assert '<span class="number">1</span>succeed' in world.call("ops_widget", event("ops_widget"))
    issued = world.call("operate_tasks", event("operate_tasks"))
    assert issued["api_key"].startswith("kr_") and issued["access_key"].startswith("krak")
    assert world.call("operate_tasks", {"action": "revoke_key", "key_id": issued["key_id"]}) == {"revoked": True}
    assert world.call("operate_tasks", {"action": "revoke_key", "key_id": "none"}) == {"revoked": False}


def test_every_function_has_a_sample() -> None:
    functions = {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}
    samples = {path.stem for path in (ROOT / "events").glob("*.json")}
    assert {name for name in functions if not any(one.startswith(name) for one in samples)} == set()


@pytest.mark.parametrize("prefix", PREFIXES)
def test_query_by_either_id_and_under_any_kind(world: World, prefix: str) -> None:
    task = world.create({**BODY, "external_task_id": "order 1"})
    for reference in (task.id, "order 1"):
        for kind in ("image2video", "multi-image2video"):
            status, body = world.http("GET", f"{prefix}/videos/{kind}/{reference}", authorization=world.key())
            assert (status, body["data"]["task_id"]) == (200, task.id)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_create_under_both_prefixes(world: World, prefix: str) -> None:
    status, body = world.http("POST", f"{prefix}/videos/image2video", BODY, authorization=world.key())
    assert status == 200 and body["data"]["task_status"] == "submitted"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("header", "code"), [(None, 1001), ("", 1001), ("Bearer ", 1001), ("Bearer kr_a_b_c", 1002), ("Bearer x", 1002)]
)
def test_without_a_good_key(world: World, method: str, header: str | None, code: int) -> None:
    path = "/v1/videos/image2video" + ("/x" if method == "GET" else "")
    headers = {} if header is None else {"Authorization": header}
    status, body = world.http(method, path, BODY, **headers)
    assert (status, body["code"]) == (401, code) and "data" not in body and world.provider.posts == []


@pytest.mark.parametrize("sent", ["", "{", "[]", "null", '"x"', '{"image": 5}', "{}", '{"image": "nonsense"}'])
def test_bad_bodies(world: World, sent: str) -> None:
    status, body = world.http("POST", "/v1/videos/image2video", sent, authorization=world.key())
    assert (status, body["code"]) == (400, 1201) and world.tasks() == []


def test_a_key_may_come_in_the_header_of_other_services(world: World) -> None:
    key = world.key().removeprefix("Bearer ")
    for headers in ({"x-api-key": key}, {"X-API-KEY": f"sk-{key}"}, {"authorization": "", "x-api-key": key}):
        assert world.http("GET", "/v1/videos/image2video", **headers)[0] == 200
    status, body = world.http("GET", "/v1/videos/image2video", **{"authorization": "Bearer x", "x-api-key": key})
    assert (status, body["code"]) == (401, 1002)


@pytest.mark.parametrize(
    "path", ["/account/costs", "/v1/account/costs", "/kling/account/costs", "/kling/v1/account/costs"]
)
def test_costs_are_where_clients_ask(world: World, path: str) -> None:
    assert world.http("GET", path, authorization=world.key())[0] == 200
    assert world.http("GET", path)[0] == 401


@pytest.mark.parametrize("origins", ["*", "https://app.example"])
def test_a_page_can_read_every_answer(cloud: Cloud, origins: str) -> None:
    world = World(cloud, allowed_origins=origins)
    key = world.key()
    for method, path, authorization in (
        ("GET", "/v1/videos/image2video", key),
        ("POST", "/v1/x", key),
        ("GET", "/", ""),
    ):
        event = {"httpMethod": method, "path": path, "headers": {"authorization": authorization}, "requestContext": {}}
        headers = world.call("task_api", event)["multiValueHeaders"]
        assert headers["Access-Control-Allow-Origin"] == [origins]
        assert headers["Access-Control-Expose-Headers"] == ["Retry-After"]
        assert headers["Content-Type"] == ["application/json"]


def test_other_refusals(world: World) -> None:
    ask = {"authorization": world.key()}
    for method, path in (("POST", "/v1/videos/nonsense"), ("GET", "/v1/videos/nonsense/x"), ("GET", "/v1/other")):
        status, body = world.http(method, path, BODY, **ask)
        assert (status, body["code"]) == (404, 1202)
    large = json.dumps({"image": "A" * 5_600_000})
    assert world.http("POST", "/v1/videos/image2video", large, **ask)[0] == 413
    status, body = world.post(BODY, **{"Idempotency-Key": "k" * 256})
    assert (status, body["code"]) == (400, 1201) and "Idempotency-Key" in body["message"]


def test_a_foreign_task_answers_like_a_missing_one(world: World) -> None:
    task = world.create({**BODY, "external_task_id": "order-1"})
    other, missing = world.key("umbrella"), "f" * 32
    answers = {
        json.dumps(world.http("GET", f"{prefix}/videos/image2video/{reference}", authorization=other))
        for prefix in PREFIXES
        for reference in (task.id, "order-1", missing, "x" * 3000)
    }
    assert len(answers) == 1 and json.loads(answers.pop())[1]["code"] == 1203


def test_trouble_after_the_record_answers_with_the_task(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(cloud, deadline_seconds=600)

    def broken(*_: Any, **__: Any) -> Any:
        raise ConnectionError("aws is away")

    monkeypatch.setattr(world.provider, "submit", broken)
    status, body = world.post()
    assert (status, body["data"]["task_status"]) == (200, "submitted")
    monkeypatch.undo()
    task = world.until_closed(body["data"]["task_id"])
    assert task.phase is Phase.EXPIRED, "nobody knows whether it was sent: it is not sent again"


def test_trouble_before_the_record_is_a_503_that_says_when_to_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = world.key()

    def broken(*_: Any, **__: Any) -> Any:
        raise ConnectionError("aws is away")

    monkeypatch.setattr(idempotency, "record", broken)
    headers = {"authorization": key}
    sent = {"httpMethod": "POST", "path": "/v1/videos/image2video", "headers": headers, "body": json.dumps(BODY)}
    answer = world.call("task_api", {**sent, "requestContext": {"requestId": "r"}})
    status, body = envelope(answer)
    assert (status, body["code"]) == (503, 5001) and answer["multiValueHeaders"]["Retry-After"] == ["5"]
    assert world.provider.posts == []


def test_a_task_that_is_gone_ends_its_workflow(world: World) -> None:
    gone = {"task_id": "none", "execution": "none"}
    assert world.call("advance_task", gone) == {"task_id": "none", "next": "done"}
    assert world.call("archive_video", gone) == {"task_id": "none", "next": "advance"}


@pytest.mark.parametrize(
    "wrong", [{}, {"action": "drop"}, {"action": "create_key"}, {"action": "create_key", "tenant": "A/b"}]
)
def test_operator_mistakes(world: World, wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"must be .* \(got "):
        world.call("operate_tasks", wrong)


def test_video_addresses_are_signed_anew_and_stored_nowhere(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    task = world.until_closed(world.create().id)
    monkeypatch.setattr("botocore.auth.get_current_datetime", _later(), raising=True)
    urls = set()
    for _ in range(2):
        _, body = world.http("GET", f"/v1/videos/image2video/{task.id}", authorization=world.key())
        urls.add(body["data"]["task_result"]["videos"][0]["url"])
    assert len(urls) == 2
    assert "Signature" not in json.dumps(world.row(f"task#{task.id}"))


def _later() -> Any:
    import datetime

    seconds = iter(range(10_000))
    start = datetime.datetime(2026, 1, 1)  # noqa: DTZ001  (botocore's own kind)
    return lambda *_, **__: start + datetime.timedelta(seconds=next(seconds))


# -- the relay of the process, built from the environment


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    relay_module.get_services.cache_clear()
    yield
    relay_module.get_services.cache_clear()


def test_the_processs_own_relay(process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    with mock_aws():
        create_table(boto3.client("dynamodb"), "tasks")
        secret = boto3.client("secretsmanager").create_secret(Name="relay", SecretString='{"k1": "s"}')["ARN"]
        empty = boto3.client("secretsmanager").create_secret(Name="provider")["ARN"]
        boto3.client("ssm").put_parameter(Name="/s/base-url", Value="https://api.example/live/", Type="String")
        given = {"TASK_TABLE": "tasks", "RELAY_SECRET_ID": secret, "PROVIDER_KEY_SECRET_ID": empty}
        for name, value in {**given, "BASE_URL_PARAMETER": "/s/base-url"}.items():
            monkeypatch.setenv(name, value)
        services = relay_module.get_services()
        assert services is relay_module.get_services()
        assert services.base_url == "https://api.example/live" and services.keyring.current == "k1"
        assert services.table.get("none") is None and services.admissions.get("cometapi").failures == 0
        with pytest.raises(SettingsError, match="make provider-key"):
            services.provider.prepare()


# -- logs


def test_nothing_secret_is_logged(world: World, capsys: pytest.CaptureFixture[str], caplog: Any) -> None:
    """A life with every kind of trouble, then one look at every line and every field that was logged."""
    caplog.set_level("DEBUG", logger="kling-relay")
    lines: list[str] = []
    stream = _Lines(lines)
    handler = logger.registered_handler
    before = handler.setStream(stream)  # type: ignore[attr-defined]
    try:
        task = _troubled_life(world)
    finally:
        handler.setStream(before)  # type: ignore[attr-defined]
    printed = capsys.readouterr()
    said = "".join(lines) + printed.out + printed.err
    names = ("submission_unconfirmed", "provider_account_blocked", "copy_failed", "callback_failed")
    for expected in (*names, "provider_response_unexpected"):
        assert expected in said
    key = world.keys["acme"]
    secrets = [key.api_key, key.secret_key, key.api_key.split("_")[2], token(world, task), "canary", "Signature="]
    assert [secret for secret in secrets if secret in said] == []
    assert all(json.loads(line)["service"] == "kling-relay" for line in lines if line.strip())


class _Lines:
    def __init__(self, lines: list[str]) -> None:
        self.write, self.flush = lines.append, lambda: None


def _troubled_life(world: World) -> Task:
    faults = ["dropped", "lost", "not_sent", "no_room", "arrears", "refused"]
    image = {**BODY, "image": b64(png(tail=b"canary")), "callback_url": "https://client.example/canary-hook"}
    for fault in faults:
        world.provider.submit_faults = [fault]
        world.post(image, **{"Idempotency-Key": f"canary-key-{fault}"})
        world.clock.tick(700)
        world.run(61)
    world.provider.query_faults = ["odd", "trouble", "foreign"]
    world.copy_faults = ["truncated", "source_expired"]
    task = world.create({**BODY, "external_task_id": "canary-order"})
    real, world.table.claim_callback_slot = world.table.claim_callback_slot, _broken  # type: ignore[method-assign, assignment]
    world.callback(task)
    world.table.claim_callback_slot = real  # type: ignore[method-assign]
    world.run(60)
    world.call("kling_callback", event("kling_callback", TASK_ID=task.id, CALLBACK_TOKEN="k1.canary-forged"))
    world.callback(task, {"task_id": "canary-hint"})
    done = world.until_closed(task.id)
    assert done.phase is Phase.SUCCEEDED
    world.http("GET", f"/v1/videos/image2video/{task.id}", authorization=world.key())
    world.http("GET", f"/v1/videos/image2video/{task.id}", authorization="Bearer canary-credential")
    world.post('{"prompt": "canary-broken')
    return done


def _broken(*_: Any) -> bool:
    raise ConnectionError("away")
