"""Remove the copies that are stored after their task was deleted."""

from typing import Any

from kling_relay.lifecycle import polling
from kling_relay.observability import logger
from kling_relay.services import Services
from kling_relay.tasks.task import Task


def undo_copy(services: Services, task: Task) -> None:
    """Remove the copies that a copier of `task`, deleted meanwhile, may have stored after the removal."""
    remove_videos(services, task)
    logger.info("late_copy_removed", extra={"task_id": task.id})


def awaits_late_copies(services: Services, task: Task) -> bool:
    """Return whether `task` was deleted so long ago that no copier can run, and its late copies are not removed yet."""
    over = task.deleted_at is not None and services.clock.now_ms() >= copiers_gone(task.deleted_at)
    return over and task.due_at is not None


def remove_late_copies(services: Services, task: Task) -> None:
    """Remove the copies of a copier that died after the removal, and take the row out of the sweeper's index.

    An execution that was replaced meanwhile leaves the index to the newer one.
    """
    remove_videos(services, task)
    condition = "attribute_exists(#deleted_at) AND #execution = :ours"
    services.table.rows.update_if(f"task#{task.id}", "REMOVE #due_at, #queue", condition, ours=task.execution)


def copiers_gone(deleted_at: int) -> int:
    """Return the time (ms) at which every copier that started before `deleted_at` has ended. None starts after it."""
    return deleted_at + int((polling.COPY_SECONDS + polling.GRACE_SECONDS) * 1000)


def remove_videos(services: Services, task: Task) -> None:
    remove_all(services, services.settings.need("video_bucket"), f"videos/{task.tenant}/{task.id}/")


def remove_all(services: Services, bucket: str, prefix: str) -> None:
    """Remove every version and delete marker of every object under `prefix`.

    Raises RuntimeError if S3 reports an error.
    """
    while True:  # from the start each time: the listed versions are gone then
        found = services.s3.list_object_versions(Bucket=bucket, Prefix=prefix)
        versions = [*found.get("Versions", []), *found.get("DeleteMarkers", [])]
        if not versions:
            return
        objects = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in versions]
        answer: dict[str, Any] = services.s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        if answer.get("Errors"):
            raise RuntimeError(f"{len(answer['Errors'])} objects could not be removed: try again")
