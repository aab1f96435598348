"""Test the answers of the Kling simulator: the captured shapes of both dialects, and its refusals."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
import requests

from local.simulator import Simulator, costs
from tests.support.simulator_client import (
    AUTH,
    DIALECTS,
    SAMPLE,
    account,
    b64,
    base,
    ended,
    faults,
    ledger,
    picture,
    query,
    submit,
    until,
)

UNKNOWN = {"official": 400, "cometapi": 404}


def test_official_answers_have_the_captured_shapes(sim: Simulator) -> None:
    account(sim, render_seconds=2.0)  # long enough to be seen on a busy machine
    answer = submit(sim, external_task_id="ref-1")
    body = answer.json()
    assert answer.status_code == 200
    assert list(body) == ["code", "message", "request_id", "data"]
    assert (body["code"], body["message"]) == (0, "SUCCEED")
    data = body["data"]
    assert list(data) == ["task_id", "task_status", "task_info", "created_at", "updated_at"]
    assert data["task_status"] == "submitted"
    assert data["task_info"] == {"external_task_id": "ref-1"}
    assert data["task_id"].isdecimal() and len(data["task_id"]) in (18, 19)
    assert data["created_at"] == data["updated_at"] and abs(data["created_at"] / 1000 - time.time()) < 10

    processing = until(lambda: (one := query(sim, "ref-1").json())["data"]["task_status"] == "processing" and one)
    assert list(processing) == ["code", "message", "request_id", "data"]
    order = ["task_id", "task_status", "task_info", "task_result", "task_status_msg", "created_at", "updated_at"]
    assert list(processing["data"]) == order
    assert processing["data"]["task_result"] == {} and processing["data"]["task_status_msg"] == ""

    done = ended(sim, data["task_id"])
    assert list(done) == [*order, "final_unit_deduction", "final_balance_deduction"]
    assert done["final_unit_deduction"] == "1.5"
    assert done["final_balance_deduction"] == {"quota": "0", "list_price": "0"}
    (video,) = done["task_result"]["videos"]
    assert list(video) == ["id", "url", "duration"] and video["duration"] == "5.1"
    assert done["updated_at"] - done["created_at"] >= 2000


def test_cometapi_answers_have_the_captured_shapes(sim: Simulator) -> None:
    account(sim, render_seconds=2.0)
    body = submit(sim, dialect="cometapi").json()
    assert list(body) == ["code", "message", "data"]
    assert (body["code"], body["message"], body["data"]["task_info"]) == (0, "success", {})
    task_id = body["data"]["task_id"]
    assert len(task_id) == 19 and task_id.startswith("2")

    def processing() -> dict | None:
        answer = query(sim, task_id, "cometapi").json()
        return answer if answer["data"]["task_status"] == "processing" else None

    body = until(processing)
    assert list(body) == ["code", "message", "request_id", "data"] and body["message"] == "SUCCEED"
    order = ["task_id", "task_info", "created_at", "updated_at", "task_result", "task_status"]
    assert list(body["data"]) == order
    assert ended(sim, task_id, "cometapi")["task_result"]["videos"][0]["url"].startswith(sim.url)

    several = {"prompt": "they walk on", "image_list": [{"image": b64(SAMPLE)}] * 2}
    body = submit(sim, several, "cometapi", "multi-image2video").json()
    assert list(body) == ["code", "message", "data"] and body["message"] == "SUCCEED"
    assert len(body["data"]["task_id"]) == 18


@pytest.mark.parametrize("dialect", DIALECTS)
def test_kinds_and_references(sim: Simulator, dialect: str) -> None:
    several = {"prompt": "p", "image_list": [{"image": b64(SAMPLE)}, {"image": b64(SAMPLE)}]}
    bodies = {
        "image2video": {"model_name": "kling-v3", "image": b64(SAMPLE)},
        "multi-image2video": {"model_name": "kling-v3", **several},
        "text2video": {"model_name": "kling-v2-6", "prompt": "a quiet sea", "aspect_ratio": "9:16"},
        "omni-video": {"prompt": "p <<<image_1>>>", "image_list": [{"image_url": b64(SAMPLE), "type": "first_frame"}]},
    }
    ids = {}
    for kind, body in bodies.items():
        answer = submit(sim, body, dialect, kind, external_task_id=f"my-{kind}").json()
        assert answer["code"] == 0, answer
        ids[kind] = answer["data"]["task_id"]
    for kind, task_id in ids.items():
        data = query(sim, f"my-{kind}", dialect, kind).json()["data"]
        assert data["task_id"] == task_id
        other = "text2video" if kind != "text2video" else "image2video"
        assert query(sim, task_id, dialect, other).status_code == UNKNOWN[dialect]
        elsewhere = DIALECTS[dialect == "official"]
        assert query(sim, task_id, elsewhere, kind).status_code == UNKNOWN[elsewhere]
        assert ended(sim, task_id, dialect, kind)["task_status"] == "succeed"


def test_list_newest_first(sim: Simulator) -> None:
    faults(sim, never=True)
    where = f"{base(sim)}/text2video"
    assert requests.get(where, headers=AUTH, timeout=5).json() == {"code": 0, "message": "SUCCEED", "data": []}
    body = {"model_name": "kling-v2-6", "prompt": "p"}
    ids = [submit(sim, body, kind="text2video").json()["data"]["task_id"] for _ in range(5)]
    pages = [
        [
            one["task_id"]
            for one in requests.get(f"{where}?pageNum={n}&pageSize=2", headers=AUTH, timeout=5).json()["data"]
        ]
        for n in (1, 2, 3)
    ]
    assert pages == [ids[:2:-1], ids[2:0:-1], ids[:1]]
    for wrong in ("pageNum=0", "pageNum=1001", "pageSize=501", "pageSize=x"):
        answer = requests.get(f"{where}?{wrong}", headers=AUTH, timeout=5)
        assert (answer.status_code, answer.json()["code"]) == (400, 1201)


def test_authorization(sim: Simulator) -> None:
    where = f"{base(sim)}/image2video/1"
    answer = requests.get(where, timeout=5)
    assert (answer.status_code, answer.json()) == (401, {"code": 1001, "message": "Authorization is empty"})
    answer = requests.get(where, headers={"Authorization": "Bearer other"}, timeout=5)
    assert (answer.status_code, answer.json()) == (401, {"code": 1002, "message": "api key not found"})
    answer = requests.get(f"{sim.url}/v1/nothing", headers=AUTH, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (404, 1202)

    account(sim, access_key="ak", secret_key="sk")
    now = time.time()
    codes = []
    for claims, secret in (
        ({"iss": "ak", "exp": now + 60, "nbf": now - 5}, "sk"),
        ({"iss": "ak", "exp": now - 60, "nbf": now - 90}, "sk"),
        ({"iss": "ak", "exp": now + 90, "nbf": now + 60}, "sk"),
        ({"iss": "ak", "exp": now + 60}, "other"),
        ({"iss": "who", "exp": now + 60}, "sk"),
    ):
        text = ".".join(
            base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode()
            for one in ({"alg": "HS256", "typ": "JWT"}, claims)
        )
        seal = base64.urlsafe_b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())
        headers = {"Authorization": f"Bearer {text}.{seal.rstrip(b'=').decode()}"}
        codes.append(requests.get(where, headers=headers, timeout=5).json()["code"])
    assert codes == [1201, 1004, 1003, 1000, 1002]


@pytest.mark.parametrize(
    ("kind", "body", "status", "code", "words"),
    [
        ("image2video", {}, 400, 1201, "image can not be null"),
        ("image2video", [], 400, 1201, "Failed to resolve the request body"),
        ("image2video", {"image": "data:image/png;base64,iVBORw0K"}, 400, 1201, "File is not in a valid base64 format"),
        ("image2video", {"image": "http://x/", "prompt": "x" * 2501}, 400, 1201, "prompt"),
        ("image2video", {"image": "http://x/", "model_name": "kling-v9"}, 404, 1203, "kling-v9"),
        ("image2video", {"image": "http://x/", "model_name": "kling-v3-omni"}, 404, 1203, "kling-v3-omni"),
        ("image2video", {"image": "http://x/", "duration": 5}, 400, 1201, "duration"),
        (
            "image2video",
            {"image": "http://x/", "model_name": "kling-v2-6", "duration": "7"},
            400,
            1201,
            "(kling-v2-6/std/7)",
        ),
        (
            "image2video",
            {"image": "http://x/", "model_name": "kling-v2-6", "sound": "on"},
            400,
            1201,
            "(kling-v2-6/std/5) is not supported with sound",
        ),
        (
            "image2video",
            {"image": "http://x/"},  # the documented default is kling-v1; that it still is one is a guess
            404,
            1203,
            "The model 'kling-v1' has been discontinued and is no longer available.",
        ),
        ("multi-image2video", {"prompt": "p", "image_list": [{"image": "http://x/"}]}, 404, 1203, "'kling-v1-6'"),
        ("image2video", {"image": "http://x/", "mode": "best"}, 400, 1201, "mode"),
        ("image2video", {"image": "http://x/", "cfg_scale": 2}, 400, 1201, "cfg_scale"),
        (
            "image2video",
            {"image": "http://x/", "image_tail": "http://x/", "camera_control": {"type": "simple"}},
            400,
            1201,
            "mutually exclusive",
        ),
        (
            "image2video",
            {"image": "http://x/", "image_tail": "http://x/", "model_name": "kling-v2-5-turbo"},
            400,
            1201,
            "model/mode/duration(kling-v2-5-turbo/std/5) is not supported with image_tail",
        ),
        ("multi-image2video", {"prompt": "p"}, 400, 1201, "image_list"),
        ("multi-image2video", {"image_list": [{"image": "http://x/"}]}, 400, 1201, "prompt"),
        ("text2video", {"model_name": "kling-v2-6"}, 400, 1201, "prompt"),
    ],
)
def test_refused_at_submit(sim: Simulator, kind: str, body: Any, status: int, code: int, words: str) -> None:
    answer = requests.post(f"{base(sim)}/{kind}", json=body, headers=AUTH, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert words in answer.json()["message"] and answer.json()["request_id"]
    books = ledger(sim)
    assert books["tasks"] == [] and books["posts"][0]["outcome"] == f"refused {status}/{code}"


def test_empty_strings_are_absent_and_unknown_fields_ignored(sim: Simulator) -> None:
    empty = dict.fromkeys(
        ("negative_prompt", "image_tail", "callback_url", "external_task_id", "static_mask", "mode"), ""
    )
    assert submit(sim, num_videos=2, camera_json="{}", **empty).status_code == 200
    assert ledger(sim)["tasks"][0]["external_task_id"] is None


@pytest.mark.parametrize("bad", [picture(338, 191), picture(300, 900), b"not a picture"], ids=["small", "long", "text"])
def test_a_bad_picture_is_accepted_and_fails_later_unbilled(sim: Simulator, bad: bytes) -> None:
    answer = submit(sim, image=b64(bad))
    assert answer.status_code == 200
    assert ledger(sim)["tasks"][0]["billed"] is True
    reply = until(
        lambda: (one := query(sim, answer.json()["data"]["task_id"]).json())["data"]["task_status"] == "failed" and one
    )
    assert (reply["code"], reply["message"]) == (0, "SUCCEED")
    assert reply["data"]["task_status_msg"] == "Image pixel is invalid" and reply["data"]["task_result"] == {}
    books = ledger(sim)
    assert (books["accepted"], books["billed"], books["billed_units"]) == (1, 0, "0")


def test_account_settings(sim: Simulator) -> None:
    faults(sim, never=True)
    account(sim, query_by_external_id={"cometapi": False})
    for dialect in DIALECTS:
        assert submit(sim, dialect=dialect, external_task_id="once").status_code == 200
    assert query(sim, "once").status_code == 200
    assert query(sim, "once", "cometapi").status_code == 404
    again = submit(sim, external_task_id="once")
    assert (again.status_code, again.json()["code"]) == (400, 1201)
    assert again.json()["message"] == "External_task_id once already exists"
    text = {"model_name": "kling-v2-6", "prompt": "p"}
    assert submit(sim, text, kind="text2video", external_task_id="once").json()["code"] == 1201, "one name space"
    assert submit(sim, dialect="cometapi", external_task_id="once").json()["code"] == 0
    assert [one["external_task_id"] for one in ledger(sim)["tasks"]] == ["once"] * 3

    account(sim, retired_models={"cometapi": "refused"}, echo_external_id=False, extra_models=["kling-v4"])
    assert submit(sim, dialect="cometapi", model_name="kling-v1").json()["code"] == 1203
    assert submit(sim, model_name="kling-v4", external_task_id="x").json()["data"]["task_info"] == {}
    for wrong in (
        {"no": 1},
        {"slots": "many"},
        {"retired_models": "x"},
        {"pays_in": "gold"},
        {"duplicate_external_id": {"kapon": "refuse"}},
    ):
        assert requests.post(f"{sim.url}/_sim/account", json=wrong, timeout=5).status_code == 400


# -- the official host's habits, and a relay's


def test_an_unknown_id_in_each_dialect(sim: Simulator) -> None:
    """Official: four captures of 2026. A relay's 404 is a guess."""
    answer = query(sim, "ours%2Fa")
    assert (answer.status_code, answer.json()["code"]) == (400, 1201)
    assert answer.json()["message"] == "Task not found by id/external id: ours/a"
    answer = query(sim, "ours", "cometapi")
    assert (answer.status_code, answer.json()["code"]) == (404, 1203)


def test_a_relay_takes_and_bills_what_the_official_host_refuses(sim: Simulator) -> None:
    faults(sim, never=True)
    for dialect in DIALECTS:
        for _ in range(2):
            submit(sim, dialect=dialect, external_task_id="once")
        submit(sim, dialect=dialect, model_name="kling-v1")
    assert [line["outcome"] for line in ledger(sim)["posts"]] == [
        *("accepted", "refused 400/1201", "refused 404/1203"),
        *("accepted", "accepted", "accepted"),
    ]
    assert ledger(sim)["billed"] == 4


def test_a_failed_task_keeps_its_reference(sim: Simulator) -> None:
    """A guess: nobody has observed a second submit after a failed one."""
    faults(sim, fail={"times": 1})
    ended(sim, submit(sim, external_task_id="once").json()["data"]["task_id"])
    assert submit(sim, external_task_id="once").json()["code"] == 1201


def test_a_submit_that_is_accepted_late_finds_its_reference_taken(sim: Simulator) -> None:
    faults(sim, never=True, late_accept={"value": 0.3, "times": 1})
    with pytest.raises(requests.ConnectionError):
        submit(sim, external_task_id="once")
    assert submit(sim, external_task_id="once").status_code == 200
    until(lambda: ledger(sim)["posts"][0]["outcome"] == "refused 400/1201")
    assert ledger(sim)["accepted"] == 1


def test_an_account_that_pays_in_cash(sim: Simulator) -> None:
    account(sim, pays_in="cash")
    done = ended(sim, submit(sim).json()["data"]["task_id"])
    assert done["final_unit_deduction"] == "0"
    assert done["final_balance_deduction"] == {"quota": "0.21", "list_price": "0.21"}  # 1.5 units of $0.14
    assert ledger(sim)["billed_units"] == "1.5"


def test_costs_of_the_account(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "SECONDS_BETWEEN", 0.0)
    where, times = f"{sim.url}/account/costs", "?start_time=1&end_time=2"
    assert requests.get(where + times, timeout=5).json()["code"] == 1001
    for missing in ("", "?start_time=1", "?start_time=x&end_time=2"):
        answer = requests.get(where + missing, headers=AUTH, timeout=5)
        assert (answer.status_code, answer.json()["code"]) == (400, 1201)
    account(sim, slots=3)
    body = requests.get(where + times, headers=AUTH, timeout=5).json()
    assert (body["code"], body["data"]["code"], body["data"]["msg"]) == (0, 0, "success")
    (pack,) = body["data"]["resource_pack_subscribe_infos"]
    assert "-3Con-" in pack["resource_pack_name"] and pack["remaining_quantity"] == pack["total_quantity"]
    account(sim, pays_in="cash")
    assert requests.get(where + times, headers=AUTH, timeout=5).json()["data"] == {"code": 0, "msg": "success"}
    monkeypatch.setattr(costs, "SECONDS_BETWEEN", 600.0)
    answer = requests.get(where + times, headers=AUTH, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (429, 1302)
