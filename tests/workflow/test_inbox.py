"""Files that are dropped into the input bucket, on the whole stack: S3's own event, EventBridge, the queue, a video."""

import json
from typing import Any

import pytest

from tests.workflow.driver import SAMPLE, Driver, until

pytestmark = pytest.mark.xdist_group("stack-1")


def drop(driver: Driver, key: str, data: bytes, **metadata: str) -> None:
    driver.s3.put_object(Bucket=driver.endpoint["input_bucket"], Key=key, Body=data, Metadata=metadata)


def result(driver: Driver, key: str) -> dict[str, Any] | None:
    """The result of an upload, None as long as there is none."""
    bucket, name = driver.endpoint["input_bucket"], f"results/{key}.json"
    if name not in driver.objects("input_bucket", name):
        return None
    told: dict[str, Any] = json.loads(driver.s3.get_object(Bucket=bucket, Key=name)["Body"].read())
    return told


def test_a_dropped_photo_becomes_a_video(driver: Driver) -> None:
    key = "inbox/summer 2026/ünï+co%de & más.JPG"
    drop(driver, key, SAMPLE, prompt="waves", mode="std", duration="5")
    told = until(lambda: result(driver, key))
    task_id = told["task_id"]
    row = driver.phase(task_id, "succeeded")
    assert row["tenant"] == "inbox" and json.loads(row["request"])["prompt"] == "waves"
    assert driver.paid(task_id)["billed"]
    assert len(driver.objects("video_bucket", task_id)) == 1
