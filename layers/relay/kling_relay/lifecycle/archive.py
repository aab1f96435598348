"""Copy all the videos of a task into the video bucket, under keys derived from task and video."""

import time
from typing import Any, Literal

from kling_relay.dynamodb import ConflictError
from kling_relay.lifecycle import late_copies, polling
from kling_relay.lifecycle.poll import expire_watched, query
from kling_relay.lifecycle.step import AdvanceInput, Step, wait
from kling_relay.observability import Metric, logger
from kling_relay.provider.client import Provider
from kling_relay.provider.profiles import Profile
from kling_relay.services import Services
from kling_relay.tasks import output_names
from kling_relay.tasks.task import Phase, Task
from kling_relay.transfer import s3_copy, ssrf_rules
from kling_relay.transfer.ssrf_rules import AddressError

MAX_VIDEO_BYTES = 2_000_000_000  # fits into the function's temporary storage, which spools a file of unknown length


def copy_outputs(services: Services, task: Task, *, seconds: float) -> list[dict[str, Any]]:
    """Copy every output of `task` within `seconds`, and the watermarked ones if the client requested them.

    A retry finds the copies of the first attempt, because a key follows its video. Older versions numbered their keys
    by position (`0.mp4`). Those objects stay unchanged: nothing proves which video they hold, so it is copied again.
    Raises s3_copy.ArchiveError.
    """
    provider = services.provider_of(task)
    wants_watermark = task.request.get("watermark_info", {}).get("enabled") is True
    ends_at = time.monotonic() + seconds
    copied = []
    for output, name in zip(task.outputs, output_names.names(task.outputs), strict=True):
        stored = _copy(services, provider, output["url"], key(task, name), ends_at)
        video: dict[str, Any] = {"id": output["id"], "duration": output["duration"], "key": stored.key}
        video |= {"size": stored.size, "md5": stored.md5}
        if wants_watermark and "watermark_url" in output:
            twin = key(task, f"{name}-watermark")
            video["watermark_key"] = _copy(services, provider, output["watermark_url"], twin, ends_at).key
        copied.append(video)
    return copied


def key(task: Task, name: str) -> str:
    """Return the key of a video of `task`, by its name from output_names.py."""
    return f"videos/{task.tenant}/{task.id}/{name}.mp4"


def _copy(services: Services, provider: Provider, url: str, key: str, ends_at: float) -> s3_copy.StoredVideo:
    profile = provider.profile
    stored = s3_copy.archive(
        services.archive_s3,
        bucket=services.settings.need("video_bucket"),
        key=key,
        url=url,
        max_bytes=MAX_VIDEO_BYTES,
        deadline_seconds=max(1.0, ends_at - time.monotonic()),
        trusted_origin=profile.base_url,
        check_host=lambda host: _check_host(services, profile, host),
        authorization=provider.authorization,
    )
    if not stored.has_video_track:
        logger.warning("video_track_missing", extra={"bytes": stored.size})
    return stored


def _check_host(services: Services, profile: Profile, host: str) -> None:
    """Report a host that is not in the provider's list. Raises AddressError if the operator denies such copies.

    By default it is only reported, since no provider guarantees the hosts of its videos.
    """
    own = ssrf_rules.origin(ssrf_rules.parse(profile.base_url))[1]
    if ssrf_rules.is_below(host, [own, *profile.result_hosts]):
        return
    denied = services.settings.result_hosts == "deny"
    logger.warning("result_host_not_listed", extra={"host": host, "denied": denied})
    services.measure({Metric.RESULT_HOST_NOT_LISTED: 1})
    if denied:
        raise AddressError("refused_host")


def on_rendered(services: Services, task: Task, inputs: AdvanceInput) -> Task | Step:
    """Move a rendered task: start its copy, or record the result of one.

    After a failed copy the provider is queried again, since its URL may have expired. That never creates a new
    generation.
    """
    now = services.clock.now_ms()
    if inputs.copied:
        over: dict[str, Any] = {"outputs": None, "reason": "", "failure": None}
        return services.table.move(task, Phase.SUCCEEDED, videos=inputs.copied, updated_at=now, **over)
    if inputs.copy_failed is not None:
        task = services.table.move(
            task,
            None,
            waits_for=f"its copy to S3 ({inputs.copy_failed})",
            retry_at=_next_copy(services, task, task.copies),
        )
    if now >= _copied_by(services, task):
        return expire_watched(
            services, task, f"rendered, but {task.waits_for.replace('its copy', 'the copy')} did not succeed"
        )
    if task.retry_at is not None and task.retry_at > now:
        return wait(services, task, (task.retry_at - now) / 1000, scaled=False)
    if task.copies:
        provider_task = query(services, task)
        if provider_task is not None and provider_task.is_rendered:
            units = provider_task.units or task.units
            outputs = output_names.named(provider_task.videos, task.outputs)
            task = services.table.move(task, None, outputs=outputs, units=units, updated_at=now)
    return Step(task, "archive")


def _copied_by(services: Services, task: Task) -> int:
    """Return the time (ms) at which a task without a copy expires.

    After the one late move this is the end of the watch.
    """
    if task.expired_at is not None:
        return task.created_at + int(polling.WATCH_UNTIL_SECONDS * 1000)
    return (task.rendered_at or task.created_at) + services.settings.deadline_seconds * 1000


def _next_copy(services: Services, task: Task, copies: int) -> int:
    """Return the earliest time (ms) of the next copy after `copies` attempts: later each time, more so after expiry."""
    maximum = 1800 if task.expired_at is None else polling.WATCH_SECONDS
    return services.clock.now_ms() + services.settings.scaled_ms(polling.backoff(copies, first=5, maximum=maximum))


def start_copy_attempt(
    services: Services, task_id: str, execution: str, left_ms: int
) -> Task | Literal["advance", "done"]:
    """Record the start of a copy, so that an attempt that never returns is retried, later each time.

    Return the task to copy, or the workflow's next state if there is nothing to copy. `execution`: the calling
    workflow. `left_ms`: the remaining time of this Lambda call.
    """
    task = services.table.get(task_id)
    if task is None or task.execution != execution:
        return "advance"  # a newer execution replaced it
    if late_copies.awaits_late_copies(services, task):
        late_copies.remove_late_copies(services, task)
        return "done"
    if task.phase is not Phase.RENDERED:
        return "advance"  # moved meanwhile: the row decides
    copies, ends_at = task.copies + 1, services.clock.now_ms() + left_ms
    due_at = ends_at + int(polling.GRACE_SECONDS * 1000)
    try:
        return services.table.move(
            task, None, copies=copies, retry_at=_next_copy(services, task, copies), due_at=due_at
        )
    except ConflictError:  # another copier has ended it: an error would set off FunctionErrorsAlarm
        return "advance"
