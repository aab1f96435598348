"""Build the task object that a client gets, with the URLs of its videos."""

from typing import Any

from kling_relay.services import Services
from kling_relay.tasks import notification
from kling_relay.tasks.task import TASK_STATUS, Phase, Task

# a presigned URL expires with the session that signed it, even if its own expiry is later
_PRESIGNED_SECONDS = 12 * 3600


def task_object(services: Services, task: Task) -> dict[str, Any]:
    """Build the task object for an answer about one task, and for an entry of a list."""
    return client_view(task, video_urls(services, task))


def places(services: Services, task: Task) -> list[dict[str, Any]]:
    """List the videos of a task by bucket and key, for readers with their own S3 rights."""
    bucket = services.settings.need("video_bucket") if task.videos else ""
    names = ("id", "key", "duration", "size", "watermark_key")
    return [{"bucket": bucket, **{name: video[name] for name in names if name in video}} for video in task.videos]


def video_urls(services: Services, task: Task) -> dict[str, str]:
    """Return archive key -> URL. URLs are signed at every call and never stored.

    The delivery key signs them. Without one they are S3 presigned URLs.
    """
    keys = [video[name] for video in task.videos for name in ("key", "watermark_key") if name in video]
    if keys and (signer := services.delivery_key):
        now = services.clock.now_ms() / 1000
        return {key: signer.url_of(key, now) for key in keys}
    bucket = services.settings.need("video_bucket") if keys else ""
    return {
        key: services.s3.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=_PRESIGNED_SECONDS
        )
        for key in keys
    }


def client_view(task: Task, video_urls: dict[str, str]) -> dict[str, Any]:
    """Build the task object of Kling's legacy API field by field, never from the row as a whole.

    `video_urls`: archive key -> URL for the client. Types are those that existing clients need: times are integer
    milliseconds, `task_info` is always an object, video id and duration are always strings.
    """
    info = {} if task.external_task_id is None else {"external_task_id": task.external_task_id}
    view: dict[str, Any] = {
        "task_id": task.id,
        "task_status": TASK_STATUS[task.phase],
        "task_status_msg": task.reason if TASK_STATUS[task.phase] == "failed" else "",
        "task_info": info,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
    }
    if task.phase is Phase.SUCCEEDED:
        view["task_result"] = {"videos": [_video_view(video, video_urls) for video in task.videos]}
    if task.callback_url is not None:
        view["callback"] = notification.shown(task.notices)
    if task.units is not None:
        view["final_unit_deduction"] = task.units
    return view


def _video_view(video: dict[str, Any], video_urls: dict[str, str]) -> dict[str, str]:
    view = {"id": video["id"], "url": video_urls[video["key"]], "duration": video["duration"]}
    if "watermark_key" in video:
        view["watermark_url"] = video_urls[video["watermark_key"]]
    return view
