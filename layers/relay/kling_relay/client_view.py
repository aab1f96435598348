"""A task as its client gets it, with the addresses of its videos."""

from typing import Any

from kling_relay.services import Relay
from kling_relay.tasks.task import Task, client_view

_PRESIGNED_SECONDS = 12 * 3600  # a presigned URL ends with the session that signed it, whatever it says itself


def task_object(relay: Relay, task: Task) -> dict[str, Any]:
    """The task object of every answer about one task, and of every entry of a list."""
    return client_view(task, video_urls(relay, task))


def places(relay: Relay, task: Task) -> list[dict[str, Any]]:
    """The videos of a task by bucket and key, for readers with rights of their own."""
    bucket = relay.settings.need("video_bucket") if task.videos else ""
    named = ("id", "key", "duration", "size", "watermark_key")
    return [{"bucket": bucket, **{name: video[name] for name in named if name in video}} for video in task.videos]


def video_urls(relay: Relay, task: Task) -> dict[str, str]:
    """Archive key -> URL, signed anew at every call and stored nowhere: by the delivery key, or without one by S3's
    own scheme."""
    keys = [video[name] for video in task.videos for name in ("key", "watermark_key") if name in video]
    if keys and (signer := relay.delivery_key):
        now = relay.clock.now_ms() / 1000
        return {key: signer.url_of(key, now) for key in keys}
    bucket = relay.settings.need("video_bucket") if keys else ""
    return {
        key: relay.s3.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=_PRESIGNED_SECONDS
        )
        for key in keys
    }
