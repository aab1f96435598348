"""Test files dropped into the input bucket, on the whole stack: S3's own event, EventBridge, the queue, a video."""

import json
import os
import time
from collections import Counter
from typing import Any

from tests.workflow.driver import SAMPLE, Driver, until
from tests.workflow.test_room import at_once

LINES = int(os.environ.get("INBOX_LINES") or 30)


def drop(driver: Driver, key: str, data: bytes, **metadata: str) -> str:
    made = driver.s3.put_object(Bucket=driver.endpoint["input_bucket"], Key=key, Body=data, Metadata=metadata)
    return str(made["VersionId"])


def result(driver: Driver, key: str, version: str) -> dict[str, Any] | None:
    """The result of a version; None as long as there is none."""
    try:
        found = driver.s3.get_object(Bucket=driver.endpoint["input_bucket"], Key=f"results/{key}.json")
    except driver.s3.exceptions.NoSuchKey:
        return None
    told: dict[str, Any] = json.loads(found["Body"].read())
    return told if told["source"]["version"] == version else None


def ended(driver: Driver, key: str, version: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        told = result(driver, key, version)
        return told if told is not None and told["task_status"] in ("succeed", "failed") else None

    found: dict[str, Any] = until(look)
    return found


def test_a_dropped_photo_becomes_a_video(driver: Driver) -> None:
    key = "inbox/summer 2026/ünï+co%de & más.JPG"
    version = drop(driver, key, SAMPLE, prompt="waves", mode="std", duration="5")
    told = ended(driver, key, version)
    assert told["task_status"] == "succeed", told
    task_id = told["task_id"]
    row = driver.row(task_id)
    assert row["tenant"] == "inbox" and json.loads(row["request"])["prompt"] == "waves"
    assert driver.paid(task_id)["billed"]
    (video,) = told["videos"]
    assert (
        driver.objects("video_bucket", task_id) == [video["key"]] and video["bucket"] == driver.endpoint["video_bucket"]
    )


def test_what_is_uploaded_in_parts_and_what_is_no_image(driver: Driver) -> None:
    bucket, key = driver.endpoint["input_bucket"], "inbox/parts.jpg"
    upload = driver.s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    where = {"Bucket": bucket, "Key": key, "UploadId": upload}
    parts = [SAMPLE[:20_000], SAMPLE[20_000:]]
    tags = [driver.s3.upload_part(**where, PartNumber=n, Body=part)["ETag"] for n, part in enumerate(parts, 1)]
    done = {"Parts": [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]}
    version = driver.s3.complete_multipart_upload(**where, MultipartUpload=done)["VersionId"]
    bad = drop(driver, "inbox/notes.txt", b"no image")
    empty = drop(driver, "inbox/empty.png", b"")
    assert ended(driver, key, version)["task_status"] == "succeed"
    assert ".jpg" in ended(driver, "inbox/notes.txt", bad)["task_status_msg"]
    assert "empty" in ended(driver, "inbox/empty.png", empty)["task_status_msg"]


def test_a_required_sidecar_brings_the_image_on_its_way(driver: Driver) -> None:
    drop(driver, "inbox/waiting/settings.json", b'{"require_sidecar": true, "duration": "5"}')
    version = drop(driver, "inbox/waiting/cat.jpg", SAMPLE)
    until(lambda: result(driver, "inbox/waiting/cat.jpg", version))
    drop(driver, "inbox/waiting/cat.json", b'{"prompt": "from the sidecar"}')
    told = ended(driver, "inbox/waiting/cat.jpg", version)
    assert json.loads(driver.row(told["task_id"])["request"])["prompt"] == "from the sidecar"
    assert driver.ledger()["accepted"] == 1


def test_a_list_of_requests_against_three_slots(driver: Driver) -> None:
    """`make inbox` makes it a thousand lines."""
    lines, many = LINES, LINES > 100
    driver.account(slots=3, render_seconds=0.3 if many else 1.0)
    drop(driver, "inbox/list/settings.json", b'{"require_sidecar": true}')
    drop(driver, "inbox/list/cat.jpg", SAMPLE)
    bodies = [json.dumps({"kind": "text2video", "prompt": f"number {n}", "duration": "5"}) for n in range(1, lines + 1)]
    bodies[6] = '{"kind": "image2video", "image": "../elsewhere.jpg"}'
    bodies[9] = '{"kind": "image2video", "image": "cat.jpg", "prompt": "beside the list"}'
    key, began = "inbox/list/night.tasks.jsonl", time.monotonic()
    version = drop(driver, key, "\n".join(bodies).encode())
    swept = began

    def all_ended() -> dict[str, Any] | None:
        nonlocal swept
        if time.monotonic() - swept > (10 if many else 1):  # nobody else does here, where a minute takes three seconds
            swept = time.monotonic()
            driver.sweep()
        told = result(driver, key, version)
        if many:
            time.sleep(1)
        return told if told is not None and told["finished"] else None

    summary = until(all_ended, 7200 if many else 110)
    took = time.monotonic() - began
    assert {name: summary[name] for name in ("lines", "accepted", "rejected", "succeeded", "failed")} == {
        "lines": lines,
        "accepted": lines - 1,
        "rejected": 1,
        "succeeded": lines - 1,
        "failed": 0,
    }, summary["reasons"]
    assert summary["rejected_lines"] == [7] and "image: " in summary["reasons"][0]["message"]
    books = driver.ledger()
    paid = Counter(entry["external_task_id"] for entry in books["tasks"])
    assert len(paid) == lines - 1 and set(paid.values()) == {1} and books["billed"] == lines - 1
    assert max(at_once(books["tasks"])) <= 3
    results = [json.loads(driver.s3.get_object(Bucket=driver.endpoint["input_bucket"], Key=name)["Body"].read())
               for name in driver.objects("input_bucket", f"results/{key}/")]  # fmt: skip
    assert {told["source"]["line"] for told in results} == set(range(1, lines + 1))
    assert {told["task_id"] for told in results if told["task_id"]} == set(paid)
    assert all(told["videos"] for told in results if told["source"]["line"] != 7)
    print(f"\n{lines} lines against 3 slots: {took:.0f} s, {len(books['posts'])} POSTs, {books['accepted']} accepted")
