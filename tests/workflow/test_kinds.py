"""Test a whole run of every kind of task, with its images in its provider's fields."""

from typing import Any

import pytest

from tests.workflow.driver import BODY, Driver, data_of, play

IMAGE = BODY["image"]
BODIES: dict[str, dict[str, Any]] = {
    "image2video": {"image": IMAGE, "model_name": "kling-v3"},
    "multi-image2video": {"image_list": [{"image": IMAGE}, {"image": IMAGE}], "prompt": "from one to the other"},
    "text2video": {"prompt": "a kite over the dunes", "model_name": "kling-v3", "duration": 5},
    "omni-video": {
        "prompt": "<<<image_1>>> in the rain",
        "model_name": "kling-v3-omni",
        "image_list": [{"image_url": IMAGE}],
        "aspect_ratio": "16:9",
    },
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_task_of_every_kind_becomes_a_video(driver: Driver, kind: str) -> None:
    task_id = driver.post(BODIES[kind], kind=kind)["task_id"]
    assert play(driver.delivered(task_id))[2] > 24
    paid = driver.paid(task_id)
    assert (paid["kind"], paid["billed"], paid["external_task_id"]) == (kind, True, task_id)
    assert data_of(driver.get(task_id, kind="text2video"))["task_status"] == "succeed", "found under any kind"
    kept = len(BODIES[kind].get("image_list", [])) or int("image" in BODIES[kind])
    assert len(driver.objects("input_bucket", task_id)) == kept
