"""Record the simulated provider's ledger: every submit that arrived, every accepted task, and its cost.

In tests the ledger is the truth, not the service's table: a task that is in it twice was paid for twice.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

PICTURE_FIELDS = {"image", "image_url", "image_tail", "static_mask", "mask"}
ENDS = ("succeed", "failed")


@dataclass
class Entry:
    """Hold one accepted task. Times are milliseconds since 1970; units are Kling's, as a decimal string."""

    task_id: str
    dialect: str
    kind: str
    external_task_id: str | None
    model_name: str
    accepted_at: int
    units: str
    request: dict[str, Any]
    """The body as sent, with each inline picture replaced by its sha256 and its length in base64 characters."""
    callback_url: str | None
    seconds: int
    render_seconds: float
    """Seconds from submitted to the end."""
    echo_external_id: bool = True
    kling_id: str = ""
    """Kling's task id, which its callbacks carry; it differs from task_id for relays with their own ids."""
    billed: bool = True
    """True from the acceptance on; false again if the task fails and the units are refunded."""
    status: str = "submitted"
    status_msg: str = ""
    updated_at: int = 0
    ended_at: int | None = None
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    """One entry per delivery: at, task_status, result (HTTP status, "lost", "refused" or "error: ...")."""
    queried_at: list[int] = field(default_factory=list)
    queried_by_external_id: int = 0
    downloads: list[dict[str, Any]] = field(default_factory=list)
    """One entry per GET of a video: at, status, bytes sent, whether an Authorization header was present, and whether it
    was the video with the watermark (`marked`)."""
    video_id: str = ""
    two_videos: bool = False
    second_video_id: str = ""
    """For the fault two_videos: the id of the second video, which is the picture with the watermark."""
    video_key: str = ""
    wants_watermark: bool = False
    """Whether the request asked for a second video with a watermark."""
    marked_key: str = ""
    """The video_key of the video with the watermark."""
    video_seconds: str = ""
    """The video's real length in Kling's format, such as "5.1"."""

    def task_info(self) -> dict[str, str]:
        return {"external_task_id": self.external_task_id} if self.external_task_id and self.echo_external_id else {}

    def progress(self) -> float:
        """Return 0..1 for a progress bar; 1 only at the end."""
        if self.status in ENDS:
            return 1.0
        return round(min(0.99, (now_ms() - self.accepted_at) / 1000 / max(self.render_seconds, 0.001)), 3)

    def shown(self) -> dict[str, Any]:
        """Return the entry as the control API shows it."""
        hidden = {"video_key", "marked_key", "echo_external_id"}
        shown = {name: value for name, value in self.__dict__.items() if name not in hidden}
        shown |= {"callbacks": list(self.callbacks), "queried_at": list(self.queried_at)}
        return shown | {"downloads": list(self.downloads), "queries": len(self.queried_at), "progress": self.progress()}


def without_pictures(value: Any, name: str = "") -> Any:
    """Return the request with inline pictures replaced by {"sha256": ..., "length": characters of base64}."""
    if isinstance(value, dict):
        return {key: without_pictures(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [without_pictures(one, name) for one in value]
    if name in PICTURE_FIELDS and isinstance(value, str) and value and not value.startswith(("http://", "https://")):
        return {"sha256": hashlib.sha256(value.encode()).hexdigest(), "length": len(value)}
    return value


class Ledger:
    """Hold the ledger, thread-safe. ``lock`` also guards the changes of the entries."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.entries: dict[str, Entry] = {}
        self.posts: list[dict[str, Any]] = []
        self.callbacks_refused = 0

    def clear(self) -> None:
        with self.lock:
            self.entries, self.posts, self.callbacks_refused = {}, [], 0

    def post(self, dialect: str, kind: str, body: Any) -> dict[str, Any]:
        """Record a submit that arrived; the caller later adds ``outcome`` (and ``task_id``)."""
        reference = body.get("external_task_id") if isinstance(body, dict) else None
        line = {"at": now_ms(), "dialect": dialect, "kind": kind, "external_task_id": reference, "outcome": "arrived",
                "task_id": None}  # fmt: skip
        with self.lock:
            self.posts.append(line)
        return line

    def accept(self, entry: Entry) -> None:
        with self.lock:
            entry.updated_at = entry.accepted_at
            self.entries[entry.task_id] = entry

    def move(self, entry: Entry, status: str, message: str = "") -> bool:
        """Change a task's status; return False if it has already ended, or a reset has deleted it."""
        with self.lock:
            if self.entries.get(entry.task_id) is not entry or entry.status in ENDS:
                return False
            entry.status, entry.status_msg, entry.updated_at = status, message, now_ms()
            if status in ENDS:
                entry.ended_at = entry.updated_at
            if status == "failed":
                entry.billed = False
            return True

    def find(self, dialect: str, kind: str, reference: str, by_external_id: bool = True) -> Entry | None:
        """Find a task by task_id, else by external_task_id (the newest with it), within one dialect and kind."""
        with self.lock:
            entry = self.entries.get(reference)
            if entry and (entry.dialect, entry.kind) == (dialect, kind):
                return entry
            found = [one for one in self.listed(dialect, kind) if one.external_task_id == reference]
            return found[0] if found and by_external_id else None

    def listed(self, dialect: str, kind: str) -> list[Entry]:
        """List the tasks of one dialect and kind, newest first."""
        with self.lock:
            return [one for one in reversed(self.entries.values()) if (one.dialect, one.kind) == (dialect, kind)]

    def anywhere(self, reference: str) -> Entry | None:
        """Find a task by task_id or external_task_id in any dialect and kind, for the control API."""
        with self.lock:
            newest_first = reversed(self.entries.values())
            return next((one for one in newest_first if reference in (one.task_id, one.external_task_id)), None)

    def running(self) -> int:
        """Count the tasks that hold a slot: from submitted until the end."""
        with self.lock:
            return sum(one.status not in ENDS for one in self.entries.values())

    def shown(self) -> dict[str, Any]:
        with self.lock:
            entries = list(self.entries.values())
            return {
                "posts": [dict(one) for one in self.posts],
                "tasks": [one.shown() for one in entries],
                "accepted": len(entries),
                "billed": sum(one.billed for one in entries),
                "billed_units": str(sum((Decimal(one.units) for one in entries if one.billed), Decimal(0))),
                "running": self.running(),
                "callbacks_refused": self.callbacks_refused,
            }


def now_ms() -> int:
    return int(time.time() * 1000)
