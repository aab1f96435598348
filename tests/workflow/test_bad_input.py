"""Test bad input at the front, over HTTP: the client's error, and that nothing of the input is stored."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.workflow.driver import BODY, IMAGE, Driver, call, data_of, refusal_of

MULTI = {"image_list": [{"image": IMAGE}, {"image": IMAGE}], "prompt": "p"}


@pytest.fixture
def untouched(driver: Driver) -> Iterator[Driver]:
    """The driver; afterwards neither table, provider nor bucket may know of anything."""
    before = driver.objects("input_bucket")
    yield driver
    assert driver.keys() == set()
    assert driver.ledger()["posts"] == [] and driver.objects("input_bucket") == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": None}, ("image", "image_tail")),
        ({"image": ""}, ("image", "image_tail")),
        ({"image": 7}, ("image", "(got 7)")),
        ({"image": ["a"]}, ("image", "a list with 1 entries")),
        ({"image": "not base64!"}, ("image", "base64", "11 characters")),
        ({"image": "data:image/png;base64,AAAA"}, ("image", "JPEG", "PNG")),
        ({"image": "ftp://host/x.jpg"}, ("image", "http")),
        ({"image_tail": {"url": "x"}}, ("image_tail", "object")),
        ({"prompt": "x" * 2501}, ("prompt", "2500", "2501")),
        ({"prompt": ["p"]}, ("prompt", "a list")),
        ({"cfg_scale": 1.5}, ("cfg_scale", "1.5")),
        ({"cfg_scale": "high"}, ("cfg_scale", "(got a string")),
        ({"mode": "best"}, ("mode", "best")),
        ({"duration": "16"}, ("duration", "16")),
        ({"duration": [5]}, ("duration",)),
        ({"callback_url": "ftp://x"}, ("callback_url", "(got a string")),
        ({"external_task_id": 5.5}, ("external_task_id", "5.5")),
        ({"camera_control": {"type": "spin"}}, ("camera_control.type", "spin")),
        ({"camera_control": {"type": "simple", "config": {"pan": 11}}}, ("camera_control.config.pan", "11")),
        ({"image_tail": IMAGE, "camera_control": {"type": "down_back"}}, ("image_tail", "camera_control")),
    ],
)
def test_fields_that_cannot_be(untouched: Driver, change: dict[str, Any], words: tuple[str, ...]) -> None:
    status, code, message = refusal_of(untouched.send({**BODY, **change}))
    assert (status, code) == (400, 1201)
    assert [word for word in words if word not in message] == [], message
    assert len(message) < 300 and "Traceback" not in message


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"image_list": None}, "image_list"),
        ({"image_list": []}, "image_list"),
        ({"image_list": [{"image": IMAGE}] * 5}, "image_list"),
        ({"image_list": [{"image": IMAGE}, {}]}, "image_list[1]"),
        ({"image_list": [{"image": IMAGE}, {"image": "%"}]}, "image_list[1].image"),
        ({"prompt": None}, "prompt"),
        ({"aspect_ratio": "4:3"}, "aspect_ratio"),
    ],
)
def test_fields_of_several_images_that_cannot_be(untouched: Driver, change: dict[str, Any], word: str) -> None:
    status, code, message = refusal_of(untouched.send({**MULTI, **change}, kind="multi-image2video"))
    assert (status, code) == (400, 1201) and word in message, message


@pytest.mark.parametrize(
    "body", [b"", b"   ", b"{", b"[]", b"null", b'"text"', b"7", b"\xff\xfe\x00", b'{"a":NaN}', b"[" * 20_000, b"{}"]
)
def test_bodies_that_are_no_request(untouched: Driver, body: bytes) -> None:
    status, code, message = refusal_of(untouched.send(body))
    assert (status, code) == (400, 1201) and message.startswith("image:" if body == b"{}" else "body:")


def test_a_body_over_the_handlers_limit(untouched: Driver) -> None:
    for size in (5_500_001, 6_000_000):
        body = json.dumps({**BODY, "image": "A" * (size - len(json.dumps({**BODY, "image": ""})))}).encode()
        assert len(body) == size
        status, code, message = refusal_of(untouched.send(body))
        assert (status, code) == (413, 1201) and "5500000" in message and "URL" in message


@pytest.mark.parametrize("size", [10 * 1024 * 1024 + 1, 25_000_000])
def test_a_body_over_the_gateways_limit(untouched: Driver, size: int) -> None:
    status, code, message = refusal_of(untouched.send(b"x" * size))
    assert (status, code) == (413, 1201) and "5500000" in message


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/kling/v1/videos/video2video"),
        ("GET", "/kling/v1/videos/video2video/abc"),
        ("GET", "/"),
        ("GET", "/kling/v1/nothing"),
        ("POST", "/kling/v2/videos/image2video"),
        ("POST", "/v1/videos/image2video/abc"),
        ("PUT", "/v1/videos/image2video"),
        ("PATCH", "/v1/videos/image2video/abc"),
        ("POST", "/v1/videos/image2video/../../.."),
    ],
)
def test_no_such_kind_path_or_method(untouched: Driver, method: str, path: str) -> None:
    headers = {"Authorization": f"Bearer {untouched.endpoint['api_key']}"}
    answer = call(method, untouched.endpoint["api_url"] + path, headers=headers, json=BODY)
    assert refusal_of(answer)[:2] == (404, 1202)
    assert answer.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, 1001),
        ("", 1001),
        ("Bearer wrong", 1002),
        ("Bearer a.b.c", 1002),
        ("Basic dXNlcjpwYXNz", 1002),
        ("Bearer kr_aaaaaaaaaaaaaaaa_" + "b" * 43 + "_cccccc", 1002),
        ("Bearer " + "x" * 9000, 1002),
    ],
)
def test_who_may_not_call(untouched: Driver, header: str | None, code: int) -> None:
    url = f"{untouched.endpoint['api_url']}/v1/videos/image2video"
    headers = {} if header is None else {"Authorization": header}
    for method, where in (("POST", url), ("GET", f"{url}/{'0' * 32}")):
        assert refusal_of(call(method, where, headers=headers, json=BODY))[:2] == (401, code)


def test_a_key_with_one_letter_changed(untouched: Driver) -> None:
    key = untouched.endpoint["api_key"]
    for place in (5, 30, len(key) - 1):
        other = key[:place] + ("x" if key[place] != "x" else "y") + key[place + 1 :]
        assert refusal_of(untouched.send(BODY, headers={"Authorization": f"Bearer {other}"}))[:2] == (401, 1002)


@pytest.mark.parametrize(
    "reference", ["0" * 32, "nobody", "a" * 500, "..%2f..", "%00", "%F0%9F%90%B1", "key#x", "gate"]
)
def test_tasks_that_do_not_exist(untouched: Driver, reference: str) -> None:
    status, code, _ = refusal_of(untouched.get(reference))
    assert (status, code) in ((404, 1203), (404, 1202))


def test_what_clients_send_and_is_forgiven(driver: Driver) -> None:
    """The other side: a data: prefix, numbers for texts, blanks, unknown fields, an old name of the model."""
    odd = {"image": f"data:image/jpeg;base64,{IMAGE}", "duration": 5, "negative_prompt": "", "mode": None}
    task_id = driver.post({**odd, "model": "kling-v2-6", "num_videos": 1, "camera_json": "{}"})["task_id"]
    driver.delivered(task_id)
    sent = driver.paid(task_id)["request"]
    assert (sent["duration"], sent["model_name"], sent["image"]["length"]) == ("5", "kling-v2-6", len(IMAGE))
    assert not {"negative_prompt", "mode", "num_videos", "camera_json", "model"} & sent.keys()
    answer = call("GET", f"{driver.endpoint['api_url']}/kling/v1/videos/image2video/{task_id}", headers={
        "Authorization": driver.endpoint["api_key"], "Content-Type": "application/json", "Accept": "*/*"})  # fmt: skip
    assert data_of(answer)["task_status"] == "succeed"
