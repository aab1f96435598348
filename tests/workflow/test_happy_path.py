"""Test the way from POST to a video in S3, as seen by client, bucket, provider's ledger and workflow."""

import hashlib
import json
import re
import stat
import time
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

from kling_relay_cli import STATE
from tests.workflow.driver import (
    BODY,
    IMAGE,
    QUIET,
    Driver,
    call,
    data_of,
    lambda_calls,
    picture_server,
    play,
    refusal_of,
    states,
)


def test_an_image_becomes_a_video(driver: Driver) -> None:
    task = driver.post(external_task_id="order-17")
    task_id = task["task_id"]
    assert task["task_status"] == "submitted" and task["task_status_msg"] == ""
    assert task["task_info"] == {"external_task_id": "order-17"}
    assert data_of(driver.get(task_id))["task_id"] == task_id  # readable the moment its id is out

    video = driver.delivered(task_id)
    assert play(video)[:2] == (160, 90)
    done = driver.ended(task_id)
    assert done["task_info"] == {"external_task_id": "order-17"} and done["task_status_msg"] == ""
    assert "final_unit_deduction" not in done  # this dialect does not say it
    assert done["task_result"]["videos"][0]["id"] == driver.paid(task_id)["video_id"]
    assert done["task_result"]["videos"][0]["duration"] == "5.1"
    assert data_of(driver.get("order-17"))["task_id"] == task_id
    assert data_of(driver.get(task_id, kind="multi-image2video"))["task_id"] == task_id  # some clients ask any kind
    (key,) = driver.objects("video_bucket", task_id)
    assert re.fullmatch(f"videos/demo/{task_id}/[0-9a-f]{{16}}\\.mp4", key)
    told = "\n".join(driver.logs())  # which conftest.py looks through for secrets, after every test
    assert all(f'"message":"{what}"' in told for what in ("submit_attempted", "task_moved", "videos_copied"))
    assert driver.objects("input_bucket", task_id) == [f"inputs/demo/{task_id}/image.jpg"]


def test_what_the_provider_is_told(driver: Driver) -> None:
    without_model = {name: value for name, value in BODY.items() if name != "model_name"}
    task_id = driver.post(
        without_model, external_task_id="mine", callback_url="https://client.example/hook", unheard_of=1, image_tail=""
    )["task_id"]
    driver.ended(task_id)
    entry = driver.paid(task_id)
    assert entry["billed"] and entry["external_task_id"] == task_id and len(driver.ledger()["tasks"]) == 1
    sent = entry["request"]
    assert set(sent) == {"image", "prompt", "duration", "model_name", "external_task_id", "callback_url"}
    assert sent["model_name"] == "kling-v3"  # always said: the provider's own default is a retired model
    assert sent["image"] == {"sha256": hashlib.sha256(IMAGE.encode()).hexdigest(), "length": len(IMAGE)}
    assert entry["callback_url"].startswith(f"{driver.endpoint['api_url']}/hooks/kling/{task_id}/")
    assert "mine" not in json.dumps(entry) and "client.example" not in json.dumps(entry)
    assert {one["authorization"] for one in entry["downloads"]} == {False}  # the key goes to the API only


def test_an_image_by_its_address(driver: Driver) -> None:
    with picture_server() as (address, asked):
        task_id = driver.post(image=f"{address}/cat.jpg?size=1")["task_id"]
        video = driver.delivered(task_id)
    assert play(video)[:2] == (160, 90) and asked == ["/cat.jpg?size=1"]
    assert driver.paid(task_id)["request"]["image"] == f"{address}/cat.jpg?size=1"
    assert driver.objects("input_bucket", task_id) == []


def test_several_images_become_a_video(driver: Driver) -> None:
    with picture_server() as (address, asked):
        pictures = [{"image": IMAGE}, {"image": f"data:image/jpeg;base64,{IMAGE}"}, {"image": f"{address}/3.jpg"}]
        body = {"image_list": pictures, "prompt": "they walk on", "aspect_ratio": "1:1"}
        task_id = driver.post(body, kind="multi-image2video")["task_id"]
        video = driver.delivered(task_id)
    assert play(video)[:2] == (160, 160) and asked == ["/3.jpg"]
    entry = driver.paid(task_id)
    assert (entry["kind"], entry["request"]["model_name"]) == ("multi-image2video", "kling-v1-6")
    bare = {"sha256": hashlib.sha256(IMAGE.encode()).hexdigest(), "length": len(IMAGE)}
    assert [one["image"] for one in entry["request"]["image_list"]] == [bare, bare, f"{address}/3.jpg"]


def test_the_same_order_twice_is_one_task(driver: Driver) -> None:
    first = driver.post(external_task_id="once")
    assert driver.post(external_task_id="once")["task_id"] == first["task_id"]
    status, code, message = refusal_of(driver.send({**BODY, "external_task_id": "once", "prompt": "another"}))
    assert (status, code) == (400, 1201) and "external_task_id" in message

    answers = [driver.send(BODY, headers={"Idempotency-Key": "k-1"}) for _ in range(2)]
    again = {data_of(answer)["task_id"] for answer in answers}
    assert len(again) == 1 and first["task_id"] not in again
    other = driver.post(external_task_id="once", key="second_api_key")  # another tenant's name space
    for task_id, key in ((first["task_id"], "api_key"), (again.pop(), "api_key"), (other["task_id"], "second_api_key")):
        driver.delivered(task_id, key=key)
        driver.paid(task_id)
    assert driver.ledger()["accepted"] == 3


def test_tenants_do_not_see_each_other(driver: Driver) -> None:
    task_id = driver.post(external_task_id="private")["task_id"]
    answers = [driver.get(name, key="second_api_key") for name in (task_id, "private", "0" * 32)]
    assert {refusal_of(answer) for answer in answers} == {(404, 1203, "task not found")}
    driver.delivered(task_id)


@pytest.mark.parametrize("signed_with", ["secret_key", "api_key"])
def test_clients_that_sign_tokens(driver: Driver, signed_with: str) -> None:
    claims = {"iss": driver.endpoint["access_key"], "exp": int(time.time()) + 1800, "nbf": int(time.time()) - 5}
    token = jwt.encode(claims, driver.endpoint[signed_with], algorithm="HS256")
    answer = driver.send(BODY, headers={"Authorization": f"Bearer {token}"})
    if signed_with == "secret_key":
        assert driver.delivered(data_of(answer)["task_id"])
    else:
        assert refusal_of(answer)[:2] == (401, 1002) and driver.ledger()["posts"] == []


def test_a_callback_saves_transitions(driver: Driver) -> None:
    """What an ordinary task costs: six state transitions, one Lambda invocation of the workflow's own."""
    driver.account(render_seconds=2.5)  # as far apart as Kling's own notices, in scaled time
    task_id = driver.post(**QUIET)["task_id"]
    driver.delivered(task_id)
    history = driver.finished(task_id)
    assert states(history) == ["WhatNext", "AwaitCallback", "WhatNext", "ArchiveVideo", "WhatNext", "Done"]
    assert lambda_calls(history) == 1
    assert driver.paid(task_id)["queries"] <= 3  # one a callback


def test_the_row_of_an_ended_task(driver: Driver) -> None:
    task_id = driver.post()["task_id"]
    driver.delivered(task_id)
    row = driver.row(task_id)
    assert row["phase"] == "succeeded" and not {"due_at", "queue", "lease_until", "waits_for"} & row.keys()
    assert row["expires_at"] > row["created_at"] // 1000 + 399 * 86_400
    assert IMAGE[:100] not in json.dumps(row)


def test_the_endpoint_file_lies_in_the_state_folder(driver: Driver) -> None:
    path = driver.stack.options.state / "endpoint.json"
    assert driver.stack.options.state != STATE and json.loads(path.read_text()) == driver.endpoint
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_video_address_takes_ranges_and_needs_its_signature(driver: Driver) -> None:
    task_id = driver.post()["task_id"]
    whole = driver.delivered(task_id)
    url = driver.ended(task_id)["task_result"]["videos"][0]["url"]
    for asked, wanted in (("bytes=0-99", whole[:100]), ("bytes=-7", whole[-7:]), ("bytes=5-", whole[5:])):
        part = call("GET", url, headers={"Range": asked})
        assert (part.status_code, part.content) == (206, wanted)
    assert call("GET", url, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416
    head = call("HEAD", url)
    assert (head.status_code, head.headers["Content-Type"]) == (200, "video/mp4")
    assert head.headers["Content-Length"] == str(len(whole)) and head.headers["Cache-Control"] == "max-age=300"
    name = urlsplit(url).path.rpartition("/")[2]
    assert head.headers["Content-Disposition"] == f'inline; filename="{task_id}-{name}"'
    assert call("GET", url.replace("Signature=", "Signature=0")).status_code == 403
    assert call("GET", url.partition("?")[0]).status_code == 403
    (ends,) = parse_qs(urlsplit(url).query)["Expires"]
    assert 30 * 86_400 <= int(ends) - time.time() + 60 < 31 * 86_400 + 120
    key = {"Authorization": f"Bearer {driver.endpoint['api_key']}"}
    gone = call("DELETE", f"{driver.endpoint['api_url']}/v1/videos/image2video/{task_id}", headers=key)
    assert gone.status_code == 200
    assert call("GET", url).status_code == 403  # at the edge of CloudFront within five minutes
