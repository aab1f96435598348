"""What clients and browsers do below JSON, over HTTP, through the front and the emulator's gateway."""

import gzip
import json
from typing import Any

import pytest
import requests

from tests.workflow.driver import BODY, Driver, call

GOOD = json.dumps(BODY).encode()


def post(driver: Driver, body: Any, **headers: str) -> requests.Response:
    given = {"Authorization": f"Bearer {driver.endpoint['api_key']}", "Content-Type": "application/json", **headers}
    url = f"{driver.endpoint['api_url']}/kling/v1/videos/image2video"
    return call("POST", url, data=body, headers=given)


@pytest.mark.parametrize(
    ("body", "headers", "http", "words"),
    [
        (GOOD.replace(b'"prompt": "', b'"prompt": "\xe9'), {}, 400, "UTF-8"),
        (GOOD.decode().encode("utf-16"), {}, 400, "UTF-8"),
        (gzip.compress(GOOD, mtime=0), {"Content-Encoding": "gzip"}, 415, "Content-Encoding"),
        (gzip.compress(GOOD, mtime=0), {}, 400, "UTF-8"),
        (b"image=x&prompt=y", {"Content-Type": "application/x-www-form-urlencoded"}, 400, "a form was sent"),
        (b"--x\r\n\xff\xd8\xff", {"Content-Type": "multipart/form-data; boundary=x"}, 400, "a form was sent"),
    ],
)
def test_what_arrives_damaged_is_never_paid(driver: Driver, body: bytes, headers: Any, http: int, words: str) -> None:
    answer = post(driver, body, **headers)
    assert answer.status_code == http and words in answer.json()["message"]
    assert driver.keys() == set() and driver.ledger()["posts"] == []


def test_a_stream_is_a_body(driver: Driver) -> None:
    assert post(driver, iter([GOOD[:20], GOOD[20:]])).status_code == 200


def test_a_key_in_another_header(driver: Driver) -> None:
    url = f"{driver.endpoint['api_url']}/v1/account/costs"
    for key, status in ((driver.endpoint["api_key"], 200), (f"sk-{driver.endpoint['api_key']}", 200), ("x", 401)):
        assert call("GET", url, headers={"X-API-KEY": key}).status_code == status


def test_a_page_of_the_fronts_calls_the_api(driver: Driver) -> None:
    """On AWS the parameter is "*"; here the front's own origin, so that another page reaches nothing by itself."""
    url = driver.endpoint["api_url"]
    asked = {"Origin": url, "Access-Control-Request-Method": "POST"}
    preflight = call("OPTIONS", f"{url}/kling/v1/videos/image2video", headers=asked)
    assert preflight.status_code == 200 and "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    unknown = call("GET", f"{url}/nowhere", headers={"Origin": url})
    refused = post(driver, b"{}", Origin=url)
    for answer, status in ((preflight, 200), (unknown, 404), (refused, 400)):
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (status, url)
    assert post(driver, GOOD, Origin="https://evil.example").status_code == 403
