"""Test a requested video with a watermark: it is listed next to the plain one, and is in the bucket too."""

import pytest

from tests.workflow.driver import Driver, call, data_of, play


def test_both_videos_are_archived(driver: Driver) -> None:
    task_id = driver.post(watermark_info={"enabled": True})["task_id"]
    (video,) = driver.ended(task_id)["task_result"]["videos"]
    (plain,) = (key for key in driver.objects("video_bucket", task_id) if "watermark" not in key)
    names = {"url": plain, "watermark_url": plain.replace(".mp4", "-watermark.mp4")}
    got = {name: call("GET", video[name]).content for name in names}
    assert play(got["url"]) == play(got["watermark_url"]) and got["url"] != got["watermark_url"]
    assert sorted(driver.objects("video_bucket", task_id)) == sorted(names.values())
    for name, key in names.items():
        stored = driver.s3.get_object(Bucket=driver.endpoint["video_bucket"], Key=key)["Body"].read()
        assert stored == got[name] and key in video[name]
    paid = driver.paid(task_id)
    assert paid["billed"] and paid["request"]["watermark_info"] == {"enabled": True}
    assert sorted(one["marked"] for one in paid["downloads"] if one["status"] == 200) == [False, True]

    url = f"{driver.endpoint['api_url']}/v1/videos/image2video/{task_id}"
    gone = data_of(call("DELETE", url, headers={"Authorization": f"Bearer {driver.endpoint['api_key']}"}))
    assert gone["task_result"] == {"videos": []} and driver.objects("video_bucket", task_id) == []


@pytest.mark.parametrize("asked", [{}, {"watermark_info": {"enabled": False}}])
def test_one_video_where_no_watermark_was_asked_for(driver: Driver, asked: dict[str, dict[str, bool]]) -> None:
    task_id = driver.post(**asked)["task_id"]
    driver.delivered(task_id)
    (video,) = driver.ended(task_id)["task_result"]["videos"]
    assert "watermark_url" not in video
