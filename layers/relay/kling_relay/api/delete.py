"""Delete a task: cancel it before payment, remove it after its end, refuse while it runs.

A copier may still run when its task is deleted: that of an expired task, or a second one. It may store its copy after
the removal, so archive_video reads the row once more after a copy (`undo_copy`). A copier that dies in between leaves
its copy behind. The deleted row therefore stays due until no copier can be alive, and the sweeper starts its workflow
again (`remove_late_copies`).
"""

from collections.abc import Iterator

from kling_relay.dynamodb import ConflictError
from kling_relay.errors import KlingError
from kling_relay.kinds.image_places import image_places
from kling_relay.lifecycle.late_copies import copiers_gone, remove_all, remove_videos
from kling_relay.notifications import deliver, result_file
from kling_relay.observability import logger
from kling_relay.services import Services
from kling_relay.tasks.task import CLOSED, Phase, Task

_CANCELLED = "cancelled by DELETE before it was sent to the provider; nothing was charged"


def remove(services: Services, task: Task) -> Task:
    """End and remove `task`: its objects in every version, then its row's content. Raises KlingError (409) if it runs.

    An object below inbox/ is its owner's and stays; its result names no video any more. Every step can be repeated, and
    a repeated DELETE repeats them, so that a crash in between leaves nothing behind.
    """
    if task.deleted_at is None:
        task = _end(services, task)
        deliver.invoke_notifier(services, task)
        logger.info("task_deleted", extra={"task_id": task.id, "phase": task.phase})
    remove_videos(services, task)
    inputs = services.settings.need("input_bucket")
    remove_all(services, inputs, f"inputs/{task.tenant}/{task.id}/")
    for key in _uploads(task):
        remove_all(services, inputs, key)
    scrubbed = services.table.scrub(task)
    result_file.write(services, scrubbed)
    return scrubbed


def _end(services: Services, task: Task) -> Task:
    """Mark the row in one conditional write: the task cannot move any more."""
    now = services.clock.now_ms()
    try:
        if task.phase is Phase.ACCEPTED and task.unsure_since is None:  # neither at the provider nor possibly there
            return services.table.move(task, Phase.FAILED, reason=_CANCELLED, deleted_at=now, updated_at=now)
        if task.phase in CLOSED:
            return services.table.mark_deleted(task, now, None if task.rendered_at is None else copiers_gone(now))
    except ConflictError:
        moved = services.table.get(task.id)
        if moved is not None:  # claimed, ended, or deleted by another DELETE
            return moved if moved.deleted_at is not None else _end(services, moved)
    raise KlingError(1201, "the task is running and may have been charged; delete it after it has ended", http=409)


def _uploads(task: Task) -> Iterator[str]:
    for _, holder, key in image_places(task.request):
        if isinstance(holder[key], dict) and "upload" in holder[key]:
            yield holder[key]["upload"]
