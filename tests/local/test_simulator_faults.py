"""The switches of the Kling simulator: callbacks, submits, queries, downloads that go wrong."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from http.server import ThreadingHTTPServer

import pytest
import requests

from local.simulator import Simulator
from tests.local.simulator_client import (
    AUTH,
    SAMPLE,
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


def statuses(receiver: ThreadingHTTPServer) -> list[str]:
    return [json.loads(body)["task_status"] for _, _, body in receiver.got]


def test_callbacks_of_a_life(sim: Simulator, receiver: ThreadingHTTPServer) -> None:
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


def test_lost_repeated_early_and_foreign_callbacks(sim: Simulator, receiver: ThreadingHTTPServer) -> None:
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


def test_signed_callbacks(sim: Simulator, receiver: ThreadingHTTPServer) -> None:
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
    for wrong in ({"none": 1}, {"callbacks": "loud"}, {"slow_submit": "x"}, {"fail": {"times": 1.5}}, {"truncate": -1}):
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
    assert ledger(sim)["tasks"] == [] and query(sim, "lost").status_code == 404

    faults(sim, drop_after=1)
    with pytest.raises(requests.ConnectionError):
        submit(sim, external_task_id="paid")
    (entry,) = ledger(sim)["tasks"]
    assert entry["billed"] is True and query(sim, "paid").json()["data"]["task_id"] == entry["task_id"]

    faults(sim, late_accept={"value": 0.4, "times": 1})
    with pytest.raises(requests.ConnectionError):
        submit(sim, external_task_id="late")
    assert query(sim, "late").status_code == 404
    until(lambda: query(sim, "late").status_code == 200)
    assert [one["outcome"] for one in ledger(sim)["posts"]] == ["dropped", "accepted", "accepted"]


def test_slow_and_garbled_submits_are_paid_for(sim: Simulator) -> None:
    faults(sim, slow_submit={"value": 0.6, "times": 1})
    with pytest.raises(requests.ReadTimeout):
        requests.post(f"{base(sim)}/image2video", json={"image": b64(SAMPLE)}, headers=AUTH, timeout=0.2)
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
    for how, status in (("400/1201", 400), ("200/null", 200)):
        faults(sim, unknown_id=how)
        assert query(sim, "nobody").status_code == status
    assert query(sim, task_id).json()["data"] == done


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
