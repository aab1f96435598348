"""All the videos of a task into the video bucket, under keys that follow from task and video."""

import time
from typing import Any

from kling_relay.observability import Metric, logger
from kling_relay.provider.client import Provider
from kling_relay.provider.profiles import Profile
from kling_relay.services import Relay
from kling_relay.tasks import output_names
from kling_relay.tasks.task import Task
from kling_relay.transfer import s3_copy, ssrf_rules
from kling_relay.transfer.ssrf_rules import AddressError

MAX_VIDEO_BYTES = 2_000_000_000  # fits into the function's temporary storage, where one of unknown length goes first


def copy_outputs(relay: Relay, task: Task, *, seconds: float) -> list[dict[str, Any]]:
    """Copy every output of `task` within `seconds`, the watermarked ones too if the client asked for them. Raises
    archive.ArchiveError.

    A second try finds what the first one finished, because a key follows its video. Older versions numbered their keys
    by place (`0.mp4`). What lies there is left alone: nothing proves which video it is, so it is copied once more.
    """
    provider = relay.provider_of(task)
    wants_watermark = task.request.get("watermark_info", {}).get("enabled") is True
    ends_at = time.monotonic() + seconds
    copied = []
    for output, name in zip(task.outputs, output_names.names(task.outputs), strict=True):
        stored = _copy(relay, provider, output["url"], key(task, name), ends_at)
        video: dict[str, Any] = {"id": output["id"], "duration": output["duration"], "key": stored.key}
        video |= {"size": stored.size, "md5": stored.md5}
        if wants_watermark and "watermark_url" in output:
            twin = key(task, f"{name}-watermark")
            video["watermark_key"] = _copy(relay, provider, output["watermark_url"], twin, ends_at).key
        copied.append(video)
    return copied


def key(task: Task, name: str) -> str:
    """The place of a video of `task`, by its name of output_names.py."""
    return f"videos/{task.tenant}/{task.id}/{name}.mp4"


def _copy(relay: Relay, provider: Provider, url: str, key: str, ends_at: float) -> s3_copy.StoredVideo:
    profile = provider.profile
    stored = s3_copy.archive(
        relay.archive_s3,
        bucket=relay.settings.need("video_bucket"),
        key=key,
        url=url,
        max_bytes=MAX_VIDEO_BYTES,
        deadline_seconds=max(1.0, ends_at - time.monotonic()),
        trusted_origin=profile.base_url,
        check_host=lambda host: _check_host(relay, profile, host),
        authorization=provider.authorization,
    )
    if not stored.has_video_track:
        logger.warning("video_track_missing", extra={"bytes": stored.size})
    return stored


def _check_host(relay: Relay, profile: Profile, host: str) -> None:
    """Raises AddressError for a host off the provider's list where the operator wants no such copies. By default it is
    only reported, since no provider promises where its videos lie."""
    own = ssrf_rules.origin(ssrf_rules.parse(profile.base_url))[1]
    if ssrf_rules.is_below(host, [own, *profile.result_hosts]):
        return
    denied = relay.settings.result_hosts == "deny"
    logger.warning("result_host_not_listed", extra={"host": host, "denied": denied})
    relay.measure({Metric.RESULT_HOST_NOT_LISTED: 1})
    if denied:
        raise AddressError("refused_host")
