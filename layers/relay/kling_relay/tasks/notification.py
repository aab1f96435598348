"""Define notices: the content of a task's notifications, and the time of the next delivery. Pure.

A move that changes the client's `task_status` appends a notice to the task's row, in the same write: the row is the
outbox. A notice becomes an event on the stack's bus, and a webhook if the client gave a `callback_url`. Webhooks have
the body of Kling's own callbacks (legacy API: flat, without an envelope), so that existing receivers accept them.
notifications/webhook_retry.py has the schedule of the attempts.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

PREFIX = "notice_"  # of the row's attributes: notice_1, notice_2, ...
SCHEMA = 1  # of the event's detail

# The client's task_status -> the event's detail-type.
EVENTS = {
    "submitted": "Kling Task Accepted",
    "processing": "Kling Task Processing",
    "succeed": "Kling Task Succeeded",
    "failed": "Kling Task Failed",
}

State = Literal["none", "due", "delivered", "given_up", "gone"]  # gone: the receiver answered 410


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice. Times are Unix milliseconds.

    `number`: its position among the task's notices, from 1. `status`: the task_status that it reports. `event`: the
    event is not sent yet. `webhook`: the state of its webhook. `tries`: attempts of the webhook. `answer`: the result
    of the last attempt, an HTTP status or a class of failure, never the receiver's text.
    """

    number: int
    status: str
    at: int
    event: bool = True
    webhook: State = "none"
    tries: int = 0
    next_at: int = 0
    answer: str = ""

    @property
    def attribute(self) -> str:
        return f"{PREFIX}{self.number}"

    @property
    def open(self) -> bool:
        return self.event or self.webhook == "due"

    def id(self, task_id: str) -> str:
        """Return the id of webhook and event, the same at every attempt: receivers detect repetitions by it."""
        return f"evt_{task_id}_{self.number}"

    def text(self) -> str:
        return json.dumps(asdict(self))


def read(row: Mapping[str, Any]) -> tuple[Notice, ...]:
    """Read the notices from a row's plain attributes, in their order."""
    texts = [stored for name, stored in row.items() if name.startswith(PREFIX) and name != "notice_seq"]
    return tuple(sorted((Notice(**json.loads(text)) for text in texts), key=lambda notice: notice.number))


def new(earlier: tuple[Notice, ...], status: str, at: int, *, webhook: bool) -> Notice:
    """Create the notice after `earlier` ones. A receiver that has answered 410 gets no more webhooks."""
    state: State = "none" if not webhook else "gone" if any(one.webhook == "gone" for one in earlier) else "due"
    return Notice(len(earlier) + 1, status, at, webhook=state, next_at=at)


def next_at(notices: tuple[Notice, ...]) -> int | None:
    """Return the time of the next delivery of a task's notices (ms); None if all are delivered."""
    times = [one.at if one.event else one.next_at for one in notices if one.open]
    return min(times, default=None)


def shown(all_notices: tuple[Notice, ...]) -> list[dict[str, Any]]:
    """List the states of a task's webhooks for its client. It extends Kling's contract, whose clients ignore it."""
    return [
        {
            "sequence": one.number,
            "task_status": one.status,
            "state": one.webhook,
            "tries": one.tries,
            "answer": one.answer,
        }
        for one in all_notices
        if one.webhook != "none"
    ]


def webhook_body(view: Mapping[str, Any], notice: Notice) -> bytes:
    """Build Kling's legacy callback body for `notice`, from the client's current `view` of the task.

    A notice of an earlier status reports that status, without later results. `sequence` is our own field: receivers
    detect a wrong order by it.
    """
    body: dict[str, Any] = {
        "task_id": view["task_id"],
        "task_status": notice.status,
        "task_status_msg": view["task_status_msg"] if notice.status == "failed" else "",
        "task_info": view["task_info"],
        "task_result": {"images": [], "videos": []},
        "created_at": view["created_at"],
        "updated_at": notice.at,
        "sequence": notice.number,
    }
    if notice.status == "succeed":
        body["task_result"]["videos"] = view.get("task_result", {}).get("videos", [])
    if notice.status in ("succeed", "failed") and "final_unit_deduction" in view:
        body["final_unit_deduction"] = view["final_unit_deduction"]
    return json.dumps(body, separators=(",", ":")).encode()
