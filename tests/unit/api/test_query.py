"""Test pages of tasks: their order and their limits. Reads per page: test_list_scale.py."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from kling_relay.dynamodb import Rows
from kling_relay.tasks import idempotency
from kling_relay.tasks.task import Phase, Task
from kling_relay.tasks.task_row import new_item

from tests.support.stack_in_memory import BODY, START, World
from tests.support.table_fixtures import new_task

LIST = "/kling/v1/videos/image2video"


def fill(world: World, count: int, **fields: Any) -> list[str]:
    """`count` tasks, one a millisecond; their ids, newest first."""
    tasks = [new_task(created_at=START + number, **fields) for number in range(count)]
    for start in range(0, count, 25):
        puts = [{"PutRequest": {"Item": new_item(task)}} for task in tasks[start : start + 25]]
        world.dynamodb.batch_write_item(RequestItems={world.table.rows.name: puts})
    return [task.id for task in tasks][::-1]


def ask(world: World, query: str = "", *, tenant: str = "acme", path: str = LIST) -> tuple[int, dict[str, Any]]:
    return world.http("GET", f"{path}?{query}", authorization=world.key(tenant))


def ids(world: World, query: str = "", **options: str) -> list[str]:
    status, body = ask(world, query, **options)
    assert (status, body["code"]) == (200, 0) and type(body["data"]) is list
    return [task["task_id"] for task in body["data"]]


def test_an_empty_list(world: World) -> None:
    for path in (LIST, "/v1/videos/multi-image2video"):
        status, body = ask(world, path=path)
        assert (status, body["code"], body["data"]) == (200, 0, []) and isinstance(body["message"], str)


@pytest.mark.slow
def test_newest_first_in_pages(world: World) -> None:
    every = fill(world, 75)
    assert ids(world) == every[:30] == ids(world, "pageNum=&pageSize=")
    assert ids(world, "pageNum=2") == every[30:60] and ids(world, "pageNum=3") == every[60:]
    assert ids(world, "pageNum=4") == ids(world, "pageNum=1000&pageSize=500") == []
    assert ids(world, "pageSize=500") == every and ids(world, "pageNum=75&pageSize=1") == every[74:]


def test_each_entry_is_what_the_single_query_answers(world: World) -> None:
    done = world.until_closed(world.create({**BODY, "external_task_id": "order-1"}).id)
    _, single = world.http("GET", f"{LIST}/{done.id}", authorization=world.key())
    _, page = ask(world)
    (entry,) = page["data"]
    for view in (entry, single["data"]):
        view["task_result"]["videos"][0]["url"] = view["task_result"]["videos"][0]["url"].partition("?")[0]
    assert entry == single["data"]


def test_by_external_id_on_the_path_of_the_list(world: World) -> None:
    task = world.create({**BODY, "external_task_id": "order 1"})
    status, body = ask(world, "external_task_id=order%201")
    assert (status, body["data"]["task_id"]) == (200, task.id)
    assert ask(world, "external_task_id=order%201", tenant="umbrella")[1]["code"] == 1203


@pytest.mark.parametrize("name", ["order 1", "序号一", "a/b?c#d", 'a"b\\c', "50%", "a+b"])
def test_an_external_id_in_the_path_is_percent_encoded(world: World, name: str) -> None:
    """API Gateway hands paths on as they were sent."""
    task = world.create({**BODY, "external_task_id": name})
    path = f"/v1/videos/image2video/{quote(name, safe='')}"
    status, body = world.http("GET", path, authorization=world.key())
    assert (status, body["data"]["task_id"]) == (200, task.id)
    assert world.http("GET", path, authorization=world.key("umbrella"))[0] == 404
    assert world.http("DELETE", path, authorization=world.key())[0] == 409


def test_other_tenants_and_kinds_are_not_in_it(world: World) -> None:
    ours = fill(world, 3)
    theirs = fill(world, 3, tenant="umbrella")
    other_kind = fill(world, 2, kind="multi-image2video")
    assert ids(world) == ours and ids(world, tenant="umbrella") == theirs
    assert ids(world, path="/v1/videos/multi-image2video") == other_kind
    assert ask(world, path="/v1/videos/nonsense")[1]["code"] == 1202


@pytest.mark.parametrize(("name", "maximum"), [("pageNum", 1000), ("pageSize", 500)])
@pytest.mark.parametrize("sent", ["0", "-1", "x", "1.5", "1e2", "٣", "9" * 5000, "over"])
def test_bad_pages(world: World, name: str, maximum: int, sent: str) -> None:
    sent = str(maximum + 1) if sent == "over" else sent
    status, body = ask(world, f"{name}={sent}")
    assert (status, body["code"]) == (400, 1201)
    assert body["message"].startswith(f"{name}: ") and str(maximum) in body["message"]
    assert sent[:30] in body["message"] and len(body["message"]) < 120


def test_an_account_without_packs(world: World) -> None:
    for prefix in ("", "/kling"):
        status, body = world.http(
            "GET", f"{prefix}/account/costs?start_time=1&end_time=2", authorization=world.key("acme")
        )
        assert (status, body["code"]) == (200, 0)
        assert body["data"] == {"code": 0, "msg": "success", "resource_pack_subscribe_infos": []}
        assert world.http("GET", f"{prefix}/account/costs")[1]["code"] == 1001


def test_rows_that_come_late_are_asked_for_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    every = fill(world, 7)
    real, asked = world.dynamodb.batch_get_item, []

    class Slow:
        def batch_get_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:
            ((name, wanted),) = RequestItems.items()
            asked.append(len(wanted["Keys"]))
            assert wanted["ConsistentRead"] is True
            answer = real(RequestItems={name: {**wanted, "Keys": wanted["Keys"][:3]}})
            left = wanted["Keys"][3:]
            return {**answer, "UnprocessedKeys": {name: {**wanted, "Keys": left}} if left else {}}

    monkeypatch.setattr("kling_relay.dynamodb.time.sleep", lambda _: None)
    rows = Rows(Slow(), world.table.rows.name)
    assert set(rows.get_all([f"task#{one}" for one in every])) == {f"task#{one}" for one in every}
    assert asked == [7, 4, 1]
    monkeypatch.setattr(
        Slow, "batch_get_item", lambda self, RequestItems: {"Responses": {}, "UnprocessedKeys": RequestItems}
    )
    with pytest.raises(RuntimeError, match="too busy"):
        rows.get_all(["task#x"])


def test_a_row_that_is_gone_is_left_out(world: World) -> None:
    every = fill(world, 3)
    with_row = [world.table.get(every[0]), world.table.get(every[2])]
    real = world.table.rows.get_all
    world.table.rows.get_all = lambda pks: {pk: row for pk, row in real(pks).items() if every[1] not in pk}  # type: ignore[method-assign]
    assert world.table.page("acme", "image2video", 0, 5) == with_row


def test_lists_show_no_more_than_the_task_object(world: World) -> None:
    task = Task(
        "t" * 32, "acme", "image2video", Phase.FAILED, {"prompt": "canary"}, START, START, due_at=1, reason="no"
    )
    idempotency.record(world.table, task, body_hash="h")
    (entry,) = ask(world)[1]["data"]
    assert set(entry) == {"task_id", "task_status", "task_status_msg", "task_info", "created_at", "updated_at"}
    assert "canary" not in json.dumps(entry)


def test_what_has_outlived_its_time_is_not_shown_although_it_is_still_there(world: World) -> None:
    ends = START // 1000 + 400 * 86_400
    (old,) = fill(world, 1, phase=Phase.FAILED, expires_at=ends, external_task_id=None)
    one = f"{LIST}/{old}"
    world.clock.now = ends * 1000 - 1
    assert ids(world) == [old] and ask(world, path=one)[0] == 200
    world.clock.now = ends * 1000
    assert ids(world) == [] and ask(world, path=one)[1]["code"] == 1203
    assert world.http("DELETE", one, authorization=world.key())[1]["code"] == 1203
    assert world.row(f"task#{old}")  # DynamoDB has not come by yet
