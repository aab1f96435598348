"""Test the switches of the Kling simulator: faults of callbacks, submits, queries and downloads."""

from __future__ import annotations

import hashlib
import hmac
import json
import time

import pytest
import requests

from local.simulator import Simulator
from tests.support.simulator_client import (
    AUTH,
    SAMPLE,
    CallbackReceiver,
    account,
    b64,
    base,
    ended,
    faults,
    finished,
    ledger,
    query,
    shape,
    submit,
    until,
)


def statuses(receiver: CallbackReceiver) -> list[str]:
    return [json.loads(body)["task_status"] for _, _, body in receiver.got]


def test_callbacks_of_a_life(sim: Simulator, receiver: CallbackReceiver) -> None:
    task = finished(sim, callback_url=f"{receiver.url}/hook?token=1", external_task_id="mine")
    until(lambda: len(receiver.got) == 3)
    receiver.got.sort(key=lambda one: json.loads(one[2])["updated_at"])  # a slow courier may be overtaken
    assert statuses(receiver) == ["submitted", "processing", "succeed"]
    _, headers, body = receiver.got[-1]
    assert headers["User-Agent"].startswith("Apache-HttpClient/")
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert not [name for name in headers if name.lower().startswith(("webhook-", "authorization"))]
    sent = json.loads(body)
    order = ["task_id", "task_status", "task_info", "task_result", "task_status_msg", "created_at", "updated_at"]
    assert list(sent) == order
    assert sent["task_id"] == task["task_id"] and sent["task_info"] == {"external_task_id": "mine"}
    assert sent["task_result"] == {"images": [], "videos": task["task_result"]["videos"], "audios": []}
    entry = until(lambda: len((one := ledger(sim)["tasks"][0])["callbacks"]) == 3 and one)
    assert sorted((one["task_status"], one["result"]) for one in entry["callbacks"]) == [
        ("processing", "200"), ("submitted", "200"), ("succeed", "200"),
    ]  # fmt: skip


def test_callbacks_leave_only_for_this_machine(sim: Simulator) -> None:
    finished(sim, callback_url="https://hooks.example.invalid/x")
    finished(sim, callback_url="http://169.254.169.254/latest")
    books = until(lambda: (one := ledger(sim))["callbacks_refused"] == 6 and one)
    assert {one["result"] for task in books["tasks"] for one in task["callbacks"]} == {"refused"}


def test_lost_repeated_early_and_foreign_callbacks(sim: Simulator, receiver: CallbackReceiver) -> None:
    faults(sim, callbacks={"value": "lost", "times": 1})
    finished(sim, callback_url=receiver.url)
    until(lambda: len(ledger(sim)["tasks"][0]["callbacks"]) == 3)
    assert receiver.got == []

    faults(sim, callbacks={"value": "repeated", "times": 1}, callback_foreign_id=1)
    task = finished(sim, callback_url=receiver.url)
    until(lambda: len(receiver.got) == 9)
    assert statuses(receiver).count("succeed") == 3
    named = {json.loads(body)["task_id"] for _, _, body in receiver.got}
    assert len(named) == 1 and task["task_id"] not in named

    receiver.got.clear()
    account(sim, render_seconds=5)
    faults(sim, callbacks={"value": "early", "times": 1})
    submit(sim, callback_url=receiver.url)
    answered = time.time()
    assert statuses(receiver) == ["submitted"] and receiver.got[0][0] <= answered


def test_signed_callbacks(sim: Simulator, receiver: CallbackReceiver) -> None:
    secret = b"0123456789abcdef01234567"
    account(sim, webhook_secret="whsec_" + b64(secret))
    finished(sim, callback_url=receiver.url)
    _, headers, body = until(lambda: receiver.got)[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    assert headers["webhook-signature"] == "v1," + b64(hmac.new(secret, signed, hashlib.sha256).digest())


def test_switches_are_counted_checked_and_cleared(sim: Simulator) -> None:
    shown = faults(sim, too_fast=2, slow_submit=1.5, fail={"value": "no", "times": 1}, wrapped=True)
    assert shown["too_fast"] == {"value": True, "times": 2}
    assert shown["slow_submit"] == {"value": 1.5, "times": None}
    assert shown["never"] is None
    faults(sim, slow_submit=None)
    assert [submit(sim).status_code for _ in range(3)] == [429, 429, 200]
    assert requests.get(f"{sim.url}/_sim/faults", timeout=5).json()["too_fast"] is None
    for wrong in (
        {"none": 1},
        {"callbacks": "loud"},
        {"redirect": 304},
        {"named_error": "429"},
        {"slow_submit": "x"},
        {"fail": {"times": 1.5}},
        {"truncate": -1},
    ):
        assert requests.post(f"{sim.url}/_sim/faults", json={"never": True, **wrong}, timeout=5).status_code == 400
    assert requests.get(f"{sim.url}/_sim/faults", timeout=5).json()["never"] is None
    requests.post(f"{sim.url}/_sim/reset", timeout=5)
    assert not any(requests.get(f"{sim.url}/_sim/faults", timeout=5).json().values())
    assert ledger(sim)["posts"] == []


@pytest.mark.parametrize(
    ("switch", "status", "code"),
    [
        ({"auth_error": 1}, 401, 1002),
        ({"too_fast": 1}, 429, 1302),
        ({"arrears": 1}, 429, 1101),
        ({"no_room": 1}, 429, 1303),
        ({"submit_5xx": {"times": 1}}, 500, 5000),
        ({"submit_5xx": {"value": 503, "times": 1}}, 503, 5001),
        ({"submit_5xx": {"value": 504, "times": 1}}, 504, 5002),
        ({"maintenance": 1}, 503, 5001),
        ({"no_right": {"value": "kling-v2-6", "times": 1}}, 403, 1103),
    ],
)
def test_refusing_switches(sim: Simulator, switch: dict, status: int, code: int) -> None:
    faults(sim, **switch)
    answer = submit(sim)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert ledger(sim)["accepted"] == 0
    assert submit(sim).status_code == 200
    books = ledger(sim)
    assert (books["accepted"], len(books["posts"])) == (1, 2)


def test_dropped_connections(sim: Simulator) -> None:
    faults(sim, drop_before=1)
    with pytest.raises(requests.ConnectionError):
        submit(sim, external_task_id="lost")
    assert ledger(sim)["tasks"] == [] and query(sim, "lost").status_code == 400

    faults(sim, drop_after=1)
    with pytest.raises(requests.ConnectionError):
        submit(sim, external_task_id="paid")
    (entry,) = ledger(sim)["tasks"]
    assert entry["billed"] is True and query(sim, "paid").json()["data"]["task_id"] == entry["task_id"]

    faults(sim, late_accept={"value": 0.4, "times": 1})
    with pytest.raises(requests.ConnectionError):
        submit(sim, external_task_id="late")
    assert query(sim, "late").status_code == 400
    until(lambda: query(sim, "late").status_code == 200)
    assert [one["outcome"] for one in ledger(sim)["posts"]] == ["dropped", "accepted", "accepted"]


def test_slow_and_garbled_submits_are_paid_for(sim: Simulator) -> None:
    faults(sim, slow_submit={"value": 0.6, "times": 1})
    with pytest.raises(requests.ReadTimeout):
        body = {"model_name": "kling-v2-6", "image": b64(SAMPLE)}
        requests.post(f"{base(sim)}/image2video", json=body, headers=AUTH, timeout=0.2)
    assert ledger(sim)["billed"] == 1
    for number, how in enumerate(("html", "truncated"), start=2):
        faults(sim, garbage_answer={"value": how, "times": 1})
        answer = submit(sim)
        assert answer.status_code == 200 and ledger(sim)["billed"] == number
        with pytest.raises(ValueError):
            answer.json()


def test_real_slots(sim: Simulator) -> None:
    account(sim, slots=2, render_seconds=0.5)
    answers = [submit(sim) for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert answers[2].json()["message"] == "parallel task over resource pack limit"
    ended(sim, answers[0].json()["data"]["task_id"])
    assert submit(sim).status_code == 200
    assert ledger(sim)["billed"] == 3


def test_switches_of_queries(sim: Simulator) -> None:
    done = finished(sim)
    task_id = done["task_id"]
    faults(sim, query_5xx={"value": 503, "times": 1})
    assert query(sim, task_id).status_code == 503
    faults(sim, query_slow={"value": 0.3, "times": 1})
    started = time.monotonic()
    query(sim, task_id)
    assert time.monotonic() - started >= 0.3
    faults(sim, query_unknown_status={"times": 1})
    assert query(sim, task_id).json()["data"]["task_status"] == "reviewing"
    faults(sim, no_url=1)
    data = query(sim, task_id).json()["data"]
    assert (data["task_status"], data["task_result"]) == ("succeed", {"videos": []})
    faults(sim, result_host={"times": 1})
    (moved,), (own,) = (query(sim, task_id).json()["data"]["task_result"]["videos"] for _ in range(2))
    assert moved["url"].replace("//localhost:", "//127.0.0.1:") == own["url"] != moved["url"]
    faults(sim, query_garbage={"times": 1})
    assert "html" in query(sim, task_id).headers["Content-Type"]
    faults(sim, wrapped=1)
    body = query(sim, task_id).json()
    assert (body["code"], body["data"]["status"], body["data"]["progress"]) == ("success", "SUCCESS", "100%")
    assert body["data"]["data"]["data"] == done
    for how, status in (("400/1201", 400), ("404/1203", 404), ("200/null", 200)):
        faults(sim, unknown_id=how)
        assert query(sim, "nobody").status_code == status
    assert query(sim, task_id).json()["data"] == done


def test_maintenance_refuses_every_submit_and_bills_none(sim: Simulator) -> None:
    task = finished(sim)
    faults(sim, maintenance=True)
    for _ in range(3):
        body = submit(sim, external_task_id="ours").json()
        assert list(body) == ["code", "message", "request_id"] and body["code"] == 5001
    assert query(sim, task["task_id"]).status_code == 200
    faults(sim, maintenance=None)
    assert submit(sim, external_task_id="ours").status_code == 200 and ledger(sim)["accepted"] == 2


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirected_submit_is_not_accepted_where_it_was_sent(sim: Simulator, status: int) -> None:
    faults(sim, redirect={"value": status, "times": 1})
    body = {"model_name": "kling-v2-6", "image": b64(SAMPLE)}
    where = f"{base(sim)}/image2video"
    answer = requests.post(where, json=body, headers=AUTH, timeout=5, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (status, "/v1/videos/image2video")
    books = ledger(sim)
    assert (books["accepted"], books["posts"][0]["outcome"]) == (0, f"redirected {status}")


def test_who_follows_a_redirect_pays(sim: Simulator) -> None:
    faults(sim, redirect={"value": 307, "times": 1})
    assert submit(sim, dialect="cometapi").json()["code"] == 0
    assert [line["outcome"] for line in ledger(sim)["posts"]] == ["redirected 307", "accepted"]


def test_see_other_names_a_task_that_was_accepted(sim: Simulator) -> None:
    faults(sim, redirect={"value": 303, "times": 1})
    body = {"model_name": "kling-v2-6", "image": b64(SAMPLE)}
    answer = requests.post(f"{base(sim)}/image2video", json=body, headers=AUTH, timeout=5, allow_redirects=False)
    (entry,) = ledger(sim)["tasks"]
    assert (answer.status_code, entry["billed"]) == (303, True)
    assert answer.headers["Location"] == f"/v1/videos/image2video/{entry['task_id']}"


def test_a_firewall_looks_at_prompts(sim: Simulator) -> None:
    faults(sim, firewall=True)
    shots = {"multi_shot": True, "shot_type": "customize", "multi_prompt": [{"prompt": "a forbidden cat"}]}
    for blocked in ({"prompt": "a forbidden cat"}, {"negative_prompt": "forbidden"}, shots):
        answer = submit(sim, **blocked)
        assert answer.status_code == 403 and answer.headers["Content-Type"] == "text/html"
    assert submit(sim, prompt="a cat").status_code == 200
    assert [line["outcome"] for line in ledger(sim)["posts"]] == ["refused 403/html"] * 3 + ["accepted"]


def test_a_model_without_the_right_to_it(sim: Simulator) -> None:
    faults(sim, no_right="kling-v3")
    assert [submit(sim, model_name=name).status_code for name in ("kling-v3", "kling-v2-6")] == [403, 200]
    assert submit(sim, model_name="kling-v3").json()["code"] == 1103


@pytest.mark.parametrize("how", ["429/1303", "429/1302", "429/1101", "400/1201", "500/5000"])
def test_an_error_names_a_task_that_is_paid_for(sim: Simulator, how: str) -> None:
    faults(sim, named_error={"value": how, "times": 1})
    answer = submit(sim, external_task_id="ours")
    body = answer.json()
    assert f"{answer.status_code}/{body['code']}" == how
    (entry,) = ledger(sim)["tasks"]
    assert (body["data"]["task_id"], entry["billed"]) == (entry["task_id"], True)
    assert query(sim, "ours").json()["data"]["task_id"] == entry["task_id"]


def test_an_error_object_beside_the_id_of_a_paid_task(sim: Simulator) -> None:
    faults(sim, named_error={"value": "200/error", "times": 1})
    answer = submit(sim, dialect="cometapi")
    (entry,) = ledger(sim)["tasks"]
    assert (answer.status_code, answer.json()["id"], entry["billed"]) == (200, entry["task_id"], True)
    assert answer.json()["error"]["message"] and "code" not in answer.json()


def test_a_query_is_answered_with_another_task(sim: Simulator) -> None:
    first = finished(sim)
    faults(sim, mix_up=1)
    assert query(sim, first["task_id"]).json()["data"] == first, "there is no other"
    faults(sim, never=True)
    second, third = (submit(sim).json()["data"]["task_id"] for _ in range(2))
    assert query(sim, second).json()["data"]["task_id"] == first["task_id"], "the one that has succeeded"
    assert query(sim, second).json()["data"]["task_id"] == second
    faults(sim, mix_up=1)
    assert query(sim, first["task_id"]).json()["data"]["task_id"] == third, "the newest"


def test_two_videos_change_places(sim: Simulator) -> None:
    faults(sim, two_videos=1)
    task_id = submit(sim).json()["data"]["task_id"]
    one, other = videos = ended(sim, task_id)["task_result"]["videos"]
    files = [requests.get(video["url"], timeout=5).content for video in videos]
    assert one["id"] != other["id"] and files[0] != files[1]
    faults(sim, reordered=1)
    assert query(sim, task_id).json()["data"]["task_result"]["videos"] == [other, one]
    assert query(sim, task_id).json()["data"]["task_result"]["videos"] == [one, other]
    faults(sim, expired_url=1)
    assert requests.get(other["url"], timeout=5).status_code == 403
    again = query(sim, task_id).json()["data"]["task_result"]["videos"]
    assert again[0] == one and again[1]["id"] == other["id"] and again[1]["url"] != other["url"]
    single = finished(sim)["task_id"]
    faults(sim, reordered=1)
    query(sim, single)
    ids = [entry["task_id"] for entry in ledger(sim)["tasks"]]
    where = f"{base(sim)}/image2video"
    pages = [requests.get(where, headers=AUTH, timeout=5).json()["data"] for _ in range(2)]
    assert [[task["task_id"] for task in page] for page in pages] == [ids, ids[::-1]]


def test_failing_and_endless_tasks(sim: Simulator) -> None:
    faults(sim, fail={"times": 1})
    task = finished(sim)
    assert (task["task_status"], task["task_status_msg"]) == ("failed", "Failure to pass the risk control system")
    faults(sim, never=1)
    task_id = submit(sim).json()["data"]["task_id"]
    time.sleep(0.6)
    assert query(sim, task_id).json()["data"]["task_status"] == "processing"
    books = ledger(sim)
    assert (books["accepted"], books["billed"], books["running"]) == (2, 1, 1)


def test_switches_of_downloads(sim: Simulator) -> None:
    task = finished(sim)
    url = task["task_result"]["videos"][0]["url"]
    size = len(requests.get(url, timeout=5).content)
    faults(sim, truncate={"value": 0.25, "times": 1})
    with requests.get(url, stream=True, timeout=5) as answer:
        assert int(answer.headers["Content-Length"]) == size
        with pytest.raises(requests.RequestException):
            _ = answer.content
    faults(sim, wrong_file=1)
    answer = requests.get(url, timeout=5)
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/html")
    faults(sim, expired_url=1)
    assert requests.get(url, timeout=5).status_code == 403
    fresh = query(sim, task["task_id"]).json()["data"]["task_result"]["videos"][0]["url"]
    assert fresh != url and len(requests.get(fresh, timeout=5).content) == size
    assert [one["bytes"] for one in ledger(sim)["tasks"][0]["downloads"][:2]] == [size, size // 4]


def test_addresses_expire_and_are_renewed(sim: Simulator) -> None:
    faults(sim, url_seconds={"value": 1, "times": 1})
    task = finished(sim)
    url = task["task_result"]["videos"][0]["url"]
    until(lambda: requests.get(url, timeout=5).status_code == 403)
    fresh = query(sim, task["task_id"]).json()["data"]["task_result"]["videos"][0]["url"]
    assert requests.get(fresh, timeout=5).status_code == 200
    assert query(sim, task["task_id"]).json()["data"]["task_result"]["videos"][0]["url"] == fresh


def test_render_switches(sim: Simulator) -> None:
    faults(sim, render_size={"value": 64, "times": 1}, render_seconds={"value": 1.2, "times": 1})
    task = finished(sim)
    assert shape(task)[:2] == (64, 36) and task["updated_at"] - task["created_at"] >= 1200
    assert shape(finished(sim))[:2] == (160, 90)
