"""Test an image uploaded directly to the bucket, its video, and the removal of both after DELETE."""

from typing import Any

import requests

from tests.workflow.driver import BODY, QUIET, SAMPLE, Driver, call, data_of, refusal_of


def ask(driver: Driver, method: str, path: str, *, key: str = "api_key", **options: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {driver.endpoint[key]}"}
    return call(method, driver.endpoint["api_url"] + path, headers=headers, **options)


def uploaded(driver: Driver, picture: bytes = SAMPLE, **asked: Any) -> tuple[str, int]:
    """The reference of a new upload, and the status that S3 answered the upload with."""
    answer = ask(driver, "POST", "/kling/v1/uploads", json={"content_type": "image/jpeg", **asked}).json()["data"]
    form = answer["upload"]
    sent = call("POST", form["url"], data=form["fields"], files={"file": picture})
    return answer["image"], sent.status_code


def listed(driver: Driver, **options: Any) -> list[dict[str, Any]]:
    answer = ask(driver, "GET", "/v1/videos/image2video?pageNum=1&pageSize=5", **options).json()
    found: list[dict[str, Any]] = answer["data"]
    return found


def test_upload_create_list_delete(driver: Driver) -> None:
    image, status = uploaded(driver)
    assert status == 204
    task_id = driver.post({**BODY, "image": image})["task_id"]
    assert refusal_of(driver.send({**BODY, "image": image}, key="second_api_key"))[:2] == (400, 1201)
    driver.delivered(task_id)
    assert driver.paid(task_id)["request"]["image"]["length"] == len(BODY["image"]), "base64 of the very bytes"
    (entry,) = listed(driver)
    assert entry.keys() == data_of(driver.get(task_id)).keys() and entry["task_status"] == "succeed"
    assert listed(driver, key="second_api_key") == []
    assert len(driver.objects("input_bucket", "uploads/")) == 1 and driver.objects("input_bucket", task_id)

    path = f"/kling/v1/videos/image2video/{task_id}"
    assert refusal_of(ask(driver, "DELETE", path, key="second_api_key"))[:2] == (404, 1203)
    gone = data_of(ask(driver, "DELETE", path))
    assert gone["task_result"] == {"videos": []} and gone["task_status"] == "succeed"
    for again in (ask(driver, "DELETE", path), driver.get(task_id)):
        assert data_of(again) == gone
    for bucket, part in (("video_bucket", task_id), ("input_bucket", task_id), ("input_bucket", "uploads/")):
        versions = driver.s3.list_object_versions(Bucket=driver.endpoint[bucket])
        kept = [one["Key"] for kind in ("Versions", "DeleteMarkers") for one in versions.get(kind, [])]
        assert [key for key in kept if part in key] == []
    assert BODY["prompt"] not in str(driver.row(task_id))


def test_s3_takes_what_was_asked_for_and_nothing_else(driver: Driver) -> None:
    image, status = uploaded(driver, SAMPLE, size=len(SAMPLE) - 1)
    assert status == 400
    assert refusal_of(driver.send({**BODY, "image": image}))[:2] == (400, 1201)
    form = ask(driver, "POST", "/v1/uploads", json={"content_type": "image/png"}).json()["data"]["upload"]
    for change in ({"key": "uploads/other/x.png"}, {"Content-Type": "text/html"}):
        sent = call("POST", form["url"], data={**form["fields"], **change}, files={"file": SAMPLE})
        assert sent.status_code == 403
    assert driver.objects("input_bucket", "uploads/") == []


def test_a_running_task_stays(driver: Driver) -> None:
    driver.faults(callbacks="lost", never=True)
    task_id = driver.post(**QUIET)["task_id"]
    status, code, message = refusal_of(ask(driver, "DELETE", f"/v1/videos/image2video/{task_id}"))
    assert (status, code) == (409, 1201) and "running" in message
    assert driver.row(task_id)["phase"] == "submitted" and driver.paid(task_id)
