"""Notices: what a task has to tell, when it is told, and how. Pure but for the jitter's dice.

A move that changes the word which clients see appends a notice to the task's row, in the same write: the row is the
outbox. A notice becomes an event on the stack's bus, and a webhook where the client gave a `callback_url`. Webhooks
have the body of Kling's own callbacks (legacy API: flat, without an envelope), so that existing receivers take them,
and are tried as Standard Webhooks says: ten times within three days.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

PREFIX = "notice_"  # of the row's attributes: notice_1, notice_2, ...
SLOTS = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)  # seconds before each try: 75.6 h at least
_JITTER = 0.2
SHORTEST_PUT_OFF = 15  # seconds until a webhook is tried that could not be tried now
LONGEST_PUT_OFF = 3_600
MAX_RETRY_AFTER = 86_400  # seconds that a receiver may ask us to stay away
SCHEMA = 1  # of the event's detail

# The word that clients see -> the event's detail-type.
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

    `number`: its place among the task's notices, from 1. `status`: Kling's word that it tells. `event`: the event is
    still to be sent. `webhook`: how its webhook stands. `tries`: of the webhook. `answer`: what the last try met, an
    HTTP status or a class of failure, never the receiver's own words.
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
        """The same at every try, for webhook and event: what receivers know a repetition by."""
        return f"evt_{task_id}_{self.number}"

    def text(self) -> str:
        return json.dumps(asdict(self))


def read(row: Mapping[str, Any]) -> tuple[Notice, ...]:
    """The notices among a row's plain attributes, in their order."""
    texts = [given for name, given in row.items() if name.startswith(PREFIX) and name != "notice_seq"]
    return tuple(sorted((Notice(**json.loads(text)) for text in texts), key=lambda notice: notice.number))


def new(earlier: tuple[Notice, ...], status: str, at: int, *, webhook: bool) -> Notice:
    """The notice after `earlier` ones. A receiver that has answered 410 is not told anything any more."""
    state: State = "none" if not webhook else "gone" if any(one.webhook == "gone" for one in earlier) else "due"
    return Notice(len(earlier) + 1, status, at, webhook=state, next_at=at)


def next_at(notices: tuple[Notice, ...]) -> int | None:
    """When somebody has to look at a task's notices again (ms); None where everything is told."""
    times = [one.at if one.event else one.next_at for one in notices if one.open]
    return min(times, default=None)


def tried(notice: Notice, now: int) -> Notice:
    """A try begins: noted before it is made, so that one that never reports back counts and comes in its slot."""
    tries = notice.tries + 1
    slot = SLOTS[tries] if tries < len(SLOTS) else 0
    # Later, never sooner: whoever is back after three days still gets the last one.
    pause = slot * (1 + random.uniform(0, _JITTER))  # nosec B311 # noqa: S311  (jitter, no secret)
    return replace(notice, tries=tries, next_at=now + int(pause * 1000))


def put_off(notice: Notice, now: int) -> Notice:
    """The webhook cannot be tried now, which counts as no try. An older notice waits longer, so that thousands of one
    tenant do not come again every minute."""
    pause = min(max(SHORTEST_PUT_OFF, (now - notice.at) / 4000), LONGEST_PUT_OFF)
    pause *= 1 + random.uniform(0, _JITTER)  # nosec B311 # noqa: S311  (jitter, no secret)
    return replace(notice, next_at=now + int(pause * 1000))


def answered(notice: Notice, answer: str, *, status: int | None, retry_after: int | None, now: int) -> Notice:
    """What becomes of a notice whose try has ended: `status` is the receiver's, None where there was no answer;
    `retry_after` (s) is what it asked for. Standard Webhooks: 2xx is success, 410 stops, all else comes again."""
    notice = replace(notice, answer=answer)
    if status is not None and 200 <= status < 300:
        return replace(notice, webhook="delivered")
    if status == 410:
        return replace(notice, webhook="gone")
    if notice.tries >= len(SLOTS):
        return replace(notice, webhook="given_up")
    if retry_after is not None:
        earliest = now + min(retry_after, MAX_RETRY_AFTER) * 1000
        return replace(notice, next_at=max(notice.next_at, earliest))
    return notice


def again(notice: Notice, now: int) -> Notice:
    """A notice that an operator has sent once more, with all its tries."""
    return replace(notice, webhook="due", tries=0, next_at=now, answer="")


def shown(all_notices: tuple[Notice, ...]) -> list[dict[str, Any]]:
    """How the webhooks of a task stand, for its client: beyond Kling's contract, whose clients ignore it."""
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
    """Kling's legacy callback body for `notice`, from the client's `view` of the task as it is now. A notice of an
    earlier status tells that one, without what came later. `sequence` is ours: what came out of order can be told."""
    told: dict[str, Any] = {
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
        told["task_result"]["videos"] = view.get("task_result", {}).get("videos", [])
    if notice.status in ("succeed", "failed") and "final_unit_deduction" in view:
        told["final_unit_deduction"] = view["final_unit_deduction"]
    return json.dumps(told, separators=(",", ":")).encode()
