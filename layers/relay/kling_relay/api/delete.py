"""DELETE of a task: cancels what nothing was paid for, removes what has ended, and leaves alone what is running.

A copier may still be at work when its task is deleted: that of an expired task, or a second one. It may store its copy
after the removal, so archive_video reads the row once more when a copy has ended (`undo_copy`). A copier that dies in
between leaves its copy behind. The deleted row therefore stays due until no copier can live, and the sweeper brings it
back (`remove_late_copies`).
"""

from collections.abc import Iterator
from typing import Any

from kling_relay.api.request import image_places
from kling_relay.dynamodb import LostRace
from kling_relay.errors import KlingError
from kling_relay.lifecycle import polling
from kling_relay.notifications import deliver, result_file
from kling_relay.observability import logger
from kling_relay.services import Relay
from kling_relay.tasks.task import CLOSED, Phase, Task

_CANCELLED = "cancelled by DELETE before it was sent to the provider; nothing was charged"


def remove(relay: Relay, task: Task) -> Task:
    """End and remove `task`: its objects in every version, then what its row tells. What was dropped below inbox/ is
    its owner's and stays; its result names no video any more. Every step can be repeated, and a repeated DELETE does,
    so that a crash in between leaves nothing behind. Raises KlingError (409) for a running task."""
    if task.deleted_at is None:
        task = _end(relay, task)
        deliver.hand_over(relay, task)
        logger.info("task_deleted", extra={"task_id": task.id, "phase": task.phase})
    _remove_videos(relay, task)
    inputs = relay.settings.need("input_bucket")
    _remove_all(relay, inputs, f"inputs/{task.tenant}/{task.id}/")
    for key in _uploads(task):
        _remove_all(relay, inputs, key)
    scrubbed = relay.table.scrub(task)
    result_file.write(relay, scrubbed)
    return scrubbed


def undo_copy(relay: Relay, task: Task) -> None:
    """Remove what a copier of `task`, which was deleted meanwhile, may have stored after the removal."""
    _remove_videos(relay, task)
    logger.info("late_copy_removed", extra={"task_id": task.id})


def awaits_late_copies(relay: Relay, task: Task) -> bool:
    """Whether `task` was deleted so long ago that no copier of it can be at work, and nothing has been done since."""
    over = task.deleted_at is not None and relay.clock.now_ms() >= _copiers_gone(task.deleted_at)
    return over and task.due_at is not None


def remove_late_copies(relay: Relay, task: Task) -> None:
    """Remove what a copier left that died after the removal, and take the row out of the sweeper's index. An execution
    that has been replaced meanwhile leaves that to the newer one."""
    _remove_videos(relay, task)
    condition = "attribute_exists(#deleted_at) AND #execution = :ours"
    relay.table.rows.update_if(f"task#{task.id}", "REMOVE #due_at, #queue", condition, ours=task.execution)


def _copiers_gone(deleted_at: int) -> int:
    """When every copier that began before `deleted_at` has ended (ms). None begins after it."""
    return deleted_at + int((polling.COPY_SECONDS + polling.GRACE_SECONDS) * 1000)


def _end(relay: Relay, task: Task) -> Task:
    """Mark the row in one conditional write: from here on nothing can move the task any more."""
    now = relay.clock.now_ms()
    try:
        if task.phase is Phase.ACCEPTED and task.unsure_since is None:  # neither at the provider nor possibly there
            return relay.table.move(task, Phase.FAILED, reason=_CANCELLED, deleted_at=now, updated_at=now)
        if task.phase in CLOSED:
            return relay.table.mark_deleted(task, now, None if task.rendered_at is None else _copiers_gone(now))
    except LostRace:
        moved = relay.table.get(task.id)
        if moved is not None:  # claimed, ended, or deleted by another DELETE
            return moved if moved.deleted_at is not None else _end(relay, moved)
    raise KlingError(
        1201, "the task is running and may have been charged: it can be deleted once it has ended", http=409
    )


def _uploads(task: Task) -> Iterator[str]:
    for _, holder, key in image_places(task.request):
        if isinstance(holder[key], dict) and "upload" in holder[key]:
            yield holder[key]["upload"]


def _remove_videos(relay: Relay, task: Task) -> None:
    _remove_all(relay, relay.settings.need("video_bucket"), f"videos/{task.tenant}/{task.id}/")


def _remove_all(relay: Relay, bucket: str, prefix: str) -> None:
    """Every version and delete marker of every object under `prefix`."""
    while True:  # from the start each time: what was listed is gone then
        found = relay.s3.list_object_versions(Bucket=bucket, Prefix=prefix)
        versions = [*found.get("Versions", []), *found.get("DeleteMarkers", [])]
        if not versions:
            return
        objects = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in versions]
        answer: dict[str, Any] = relay.s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        if answer.get("Errors"):
            raise RuntimeError(f"{len(answer['Errors'])} objects could not be removed: try again")
