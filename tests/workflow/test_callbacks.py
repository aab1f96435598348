"""Test the provider's webhook: lost, repeated, early, forged, false. It only triggers a query, whose answer decides."""

import json

import pytest

from tests.workflow.driver import QUIET, Driver, call, data_of, lambda_calls, states, until


def ring(url: str, body: object) -> tuple[int, str]:
    answer = call("POST", url, json=body)
    return answer.status_code, answer.text


def test_lost_callbacks_cost_time_only(driver: Driver) -> None:
    driver.faults(callbacks="lost")
    task_id = driver.post()["task_id"]
    driver.delivered(task_id)
    assert {one["result"] for one in driver.paid(task_id)["callbacks"]} == {"lost"}
    history = driver.finished(task_id)
    assert states(history)[:3] == ["WhatNext", "AwaitCallback", "Advance"] and states(history)[-1] == "Done"
    assert len(states(history)) <= 12 and lambda_calls(history) <= 4


def test_repeated_callbacks_change_nothing(driver: Driver) -> None:
    driver.faults(callbacks="repeated")
    driver.account(render_seconds=3.0)  # the notice of processing is long past when the end is told
    task_id = driver.post(**QUIET)["task_id"]
    driver.delivered(task_id)
    entry = until(lambda: len((one := driver.paid(task_id))["callbacks"]) == 9 and one)
    assert {one["result"] for one in entry["callbacks"]} == {"200"}
    assert len(entry["downloads"]) == 1 and len(driver.ledger()["tasks"]) == 1
    assert len(states(driver.finished(task_id))) == 6
    row = driver.row(task_id)
    assert set(map(tuple, [ring(entry["callback_url"], {"task_id": "1"}) for _ in range(3)])) == {
        (200, '{"code":0,"message":"SUCCEED","request_id":""}')
    }
    assert driver.row(task_id) == row and driver.paid(task_id)["queries"] == entry["queries"]


def test_a_callback_before_the_answer_to_the_post(driver: Driver) -> None:
    driver.faults(callbacks="early")
    driver.account(render_seconds=1.0)
    task_id = driver.post()["task_id"]
    driver.delivered(task_id)
    early = until(lambda: [one for one in driver.paid(task_id)["callbacks"] if one["task_status"] == "submitted"])
    assert early[0]["result"] == "200"
    assert driver.posts(task_id) == ["accepted"]


def test_callbacks_that_name_another_id(driver: Driver) -> None:
    """A relay that passes Kling's own callbacks on: the id in them is not the one that its API knows."""
    driver.faults(callback_foreign_id=True)
    task_id = driver.post()["task_id"]
    driver.delivered(task_id)
    assert driver.row(task_id)["upstream_id"] == driver.paid(task_id)["task_id"]


def test_a_forged_token_learns_nothing_and_causes_nothing(driver: Driver) -> None:
    driver.faults(callbacks="lost", never=True)
    task_id, other = driver.post(**QUIET)["task_id"], driver.post(**QUIET)["task_id"]
    until(lambda: "task_token" in driver.row(task_id))
    genuine, foreign = driver.paid(task_id)["callback_url"], driver.paid(other)["callback_url"]
    start, _, token = genuine.rpartition("/")
    before, queries = driver.row(task_id), driver.paid(task_id)["queries"]
    missing = start.replace(task_id, "0" * 32)
    forged = [
        f"{start}/{token[:-1]}{'A' if token[-1] != 'A' else 'B'}",
        f"{start}/{foreign.rpartition('/')[2]}",
        f"{start}/k1.",
        f"{start}/k9.{token.partition('.')[2]}",
        f"{start}/%00",
        f"{missing}/{token}",
        f"{missing}/none",
    ]
    answers = {ring(url, {"task_id": before["upstream_id"], "task_status": "succeed"}) for url in forged}
    assert answers == {(404, '{"code":1202,"message":"method or path not found","request_id":""}')}
    assert driver.row(task_id) == before and driver.paid(task_id)["queries"] == queries
    assert call("GET", genuine).status_code == 404


@pytest.mark.parametrize("said", ["succeed", "failed"])
def test_a_lying_body_is_not_believed(driver: Driver, said: str) -> None:
    driver.faults(callbacks="lost", never=True)
    task_id = driver.post()["task_id"]
    url = driver.paid(task_id)["callback_url"]
    video = {"id": "1", "url": "http://127.0.0.1:1/evil.mp4", "duration": "5"}
    for named in (driver.row(task_id)["upstream_id"], "999", "", None, "x" * 5000):
        lie = {"task_id": named, "task_status": said, "task_status_msg": "evil", "task_result": {"videos": [video]}}
        assert ring(url, lie)[0] == 200
        driver.write(f"task#{task_id}", asked_at=0)  # the gate against floods is not what is tested here
    assert driver.paid(task_id)["queries"] >= 5
    assert data_of(driver.get(task_id))["task_status"] == "processing"
    row = driver.row(task_id)
    assert row["phase"] == "processing" and "evil" not in json.dumps(row)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"null", b"\xff\xfe", b"[" * 60_000, b"x" * 300_000])
def test_a_callback_needs_no_readable_body(driver: Driver, body: bytes) -> None:
    driver.faults(callbacks="lost", render_seconds=0.1)
    task_id = driver.post(**QUIET)["task_id"]
    entry = until(lambda: (one := driver.paid(task_id))["status"] == "succeed" and one)
    until(lambda: "task_token" in driver.row(task_id))
    assert call("POST", entry["callback_url"], data=body).status_code == 200
    driver.delivered(task_id)
    assert "Advance" not in states(driver.finished(task_id))  # it was the callback that woke it


def test_a_flood_of_callbacks_asks_once(driver: Driver) -> None:
    driver.faults(callbacks="lost", never=True)
    task_id = driver.post(**QUIET)["task_id"]
    until(lambda: "task_token" in driver.row(task_id))
    url = driver.paid(task_id)["callback_url"]
    due_at, queries = driver.row(task_id)["due_at"], driver.paid(task_id)["queries"]
    assert ring(url, {})[0] == 200
    driver.write(f"task#{task_id}", asked_at=driver.row(task_id)["asked_at"] + 60_000)  # as if it had been just now
    for _ in range(10):
        assert ring(url, {})[0] == 200
    assert driver.paid(task_id)["queries"] - queries == 1
    assert driver.row(task_id)["due_at"] < due_at  # what was dropped is looked at, only later
