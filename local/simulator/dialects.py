"""Write the ids, envelopes and errors of the simulated dialects, as documents and public captures show them."""

from __future__ import annotations

import json
import secrets
import threading
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from local.simulator.ledger import now_ms

if TYPE_CHECKING:
    from local.simulator.ledger import Entry

KINDS = ("image2video", "multi-image2video", "text2video", "omni-video")
RELAYS = ("cometapi", "yutoai", "powertokens", "relay")  # "relay": the new-api family
DIALECTS = ("official", *RELAYS)
OWN_IDS = ("powertokens", "relay")  # relays with their own task ids; their callbacks come from Kling, with its ids

NAMED_ERRORS = ("429/1303", "429/1302", "429/1101", "400/1201", "500/5000", "200/error")

# Start of each kind of id in milliseconds since 1970: an id is (now - start) << 22, plus 22 low bits. Both are derived
# from captured pairs of task_id and created_at.
KLING_IDS_START = 1568028518780
COMETAPI_IDS_START = 1288834974657


@dataclass(frozen=True)
class Refusal:
    """Hold a failed call: HTTP status, Kling's code, Kling's message."""

    status: int
    code: int
    message: str


@dataclass
class Answer:
    """Hold an answer. ``dropped``: nothing is sent, and the connection is closed.

    ``cut``: only this many bytes of the body are sent, then the connection is closed. Content-Length states all of
    them.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json;charset=utf-8"})
    dropped: bool = False
    cut: int | None = None


def as_json(body: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())


def refuse(refusal: Refusal) -> Answer:
    """Return Kling's error envelope. Unknown keys are refused without request_id, as captured."""
    body: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.code not in (1001, 1002):
        body["request_id"] = str(uuid.uuid4())
    return as_json(body, refusal.status)


def server_error(status: int) -> Answer:
    code, message = {503: (5001, "server is under maintenance"), 504: (5002, "internal timeout")}.get(
        status, (5000, "internal error")
    )
    return refuse(Refusal(status, code, message))


def redirect(status: int, path: str) -> Answer:
    return Answer(status, b"", {"Location": path})


def forbidden() -> Answer:
    """Return a firewall's refusal, without Kling's envelope."""
    page = b"<html><head><title>403 Forbidden</title></head><body><h1>Request blocked</h1></body></html>"
    return Answer(403, page, {"Content-Type": "text/html"})


def named_error(how: str, task_id: str) -> Answer:
    """Return an error that names a task; `how` is one of NAMED_ERRORS."""
    status, code = how.split("/")
    if code == "error":
        error = {"message": "upstream error", "type": "upstream_error", "code": "upstream_error"}
        return as_json({"id": task_id, "object": "video", "error": error})
    body = {"code": int(code), "message": _NAMED_WORDS.get(code, "internal error"), "request_id": str(uuid.uuid4())}
    return as_json({**body, "data": {"task_id": task_id, "task_status": "submitted"}}, int(status))


_NAMED_WORDS = {
    "1303": "parallel task over resource pack limit",
    "1302": "API requests too fast",
    "1101": "account is in arrears",
    "1201": "bad parameter",
}


def garbage(how: str, answer: Answer) -> Answer:
    """Return 200 with an invalid body: an HTML page, or the first half of the JSON."""
    if how == "html":
        page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>Bad gateway</h1></body></html>"
        return Answer(200, page, {"Content-Type": "text/html"})
    return Answer(200, answer.body[: len(answer.body) // 2], answer.headers)


class Ids:
    """Generate task and video ids: strings of digits, unique, growing with time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._low = secrets.randbits(22)

    def new(self, start: int = KLING_IDS_START) -> str:
        with self._lock:
            self._low = (self._low + 1 + secrets.randbits(6)) % (1 << 22)
            return str((now_ms() - start) << 22 | self._low)

    def task(self, dialect: str, kind: str) -> str:
        """Return a task id.

        CometAPI has been observed to use its own ids for image2video, and Kling's ids for other kinds.
        """
        if dialect in OWN_IDS:
            return f"task_{secrets.token_hex(16)}"
        return self.new(COMETAPI_IDS_START if (dialect, kind) == ("cometapi", "image2video") else KLING_IDS_START)


def submitted(entry: Entry) -> Answer:
    """Return the answer to an accepted submit. Relays of the new-api family return OpenAI's video object."""
    if entry.dialect == "relay":
        video = {"id": entry.task_id, "task_id": entry.task_id, "object": "video", "model": entry.model_name}
        return as_json({**video, "status": "queued", "progress": 0, "created_at": entry.accepted_at // 1000})
    data: dict[str, Any] = {
        "task_id": entry.task_id,
        "task_status": "submitted",
        "task_info": entry.task_info(),
        "created_at": entry.accepted_at,
        "updated_at": entry.accepted_at,
    }
    if entry.dialect == "yutoai":
        del data["task_info"]
    if entry.dialect != "cometapi":
        return as_json({"code": 0, "message": "SUCCEED", "request_id": str(uuid.uuid4()), "data": data})
    message = "SUCCEED" if entry.kind == "multi-image2video" else "success"
    return as_json({"code": 0, "message": message, "data": data})


def task_object(entry: Entry, videos: list[dict[str, str]], charged: dict[str, Any]) -> dict[str, Any]:
    """Return one task as a query shows it.

    The key order differs with dialect and status, as captured. `charged`: the cost fields of a finished task.
    """
    units = charged if entry.status == "succeed" else {}
    result = {"videos": videos} if entry.status == "succeed" else {}
    shown: dict[str, Any] = {"task_id": entry.kling_id if entry.dialect == "relay" else entry.task_id}
    if entry.dialect != "cometapi" and entry.status != "failed":
        shown |= {"task_status": entry.status, "task_info": entry.task_info(), "task_result": result}
        shown |= {"task_status_msg": "", "created_at": entry.accepted_at, "updated_at": entry.updated_at}
        return shown | units
    shown |= {"task_info": entry.task_info(), "created_at": entry.accepted_at, "updated_at": entry.updated_at}
    shown |= {"task_result": result, "task_status": entry.status}
    if entry.status in ("succeed", "failed"):
        shown["task_status_msg"] = entry.status_msg
    return shown | units


def envelope(data: Any) -> Answer:
    """Return the answer to a query or a list."""
    return as_json({"code": 0, "message": "SUCCEED", "request_id": str(uuid.uuid4()), "data": data})


WRAPPERS_WORDS = {
    "submitted": ("SUBMITTED", "10%"),
    "processing": ("IN_PROGRESS", "30%"),
    "succeed": ("SUCCESS", "100%"),
    "failed": ("FAILURE", "100%"),
}


def wrapped(task: dict[str, Any]) -> Answer:
    """Return the same task in the wrapper of new-api relays, which has Kling's answer two levels down."""
    status, progress = WRAPPERS_WORDS.get(task["task_status"], ("UNKNOWN", "30%"))
    outer = {"task_id": task["task_id"], "status": status, "progress": progress}
    if status == "FAILURE":
        outer["fail_reason"] = task["task_status_msg"]
    return as_json({"code": "success", "message": "", "data": {**outer, "data": {"code": 0, "data": task}}})


def relayed(entry: Entry, task: dict[str, Any]) -> Answer:
    """Return the new-api family's answer to a query.

    It is the relay's own row, with its own id and times in seconds. The row contains Kling's last answer, which a task
    that has only been submitted does not have yet.
    """
    status, progress = WRAPPERS_WORDS.get(task["task_status"], ("UNKNOWN", "30%"))
    videos = task["task_result"].get("videos") or [{"url": ""}]
    row = {
        "id": 1,
        "task_id": entry.task_id,
        "platform": "50",
        "action": "generate",
        "status": status,
        "fail_reason": entry.status_msg,
        "result_url": videos[0]["url"],
        "submit_time": entry.accepted_at // 1000,
        "start_time": 0 if status == "SUBMITTED" else entry.updated_at // 1000,
        "finish_time": (entry.ended_at or 0) // 1000,
        "progress": progress,
        "data": None if status == "SUBMITTED" else {"code": 0, "message": "SUCCEED", "data": task},
    }
    return as_json({"code": "success", "message": "", "data": row})


def relay_refuses(refusal: Refusal) -> Answer:
    """Return an error of the new-api family.

    A bad key gets OpenAI's error. Other errors have a text in place of Kling's code, and HTTP 400.
    """
    if refusal.status == 401:
        error = {"message": refusal.message, "type": "new_api_error", "param": "", "code": None}
        return as_json({"error": error}, 401)
    word = "task_not_exist" if refusal.message == "task not found" else "task_failed"
    return as_json({"code": word, "message": refusal.message, "data": None}, 400)


def callback_body(entry: Entry, task_id: str, videos: list[dict[str, str]]) -> bytes:
    """Return Kling's legacy callback: the bare task without an envelope. Its videos have no watermark fields."""
    videos = [{name: one[name] for name in ("id", "url", "duration")} for one in videos]
    body = {
        "task_id": task_id,
        "task_status": entry.status,
        "task_info": entry.task_info(),
        "task_result": {"images": [], "videos": videos, "audios": []},
        "task_status_msg": entry.status_msg,
        "created_at": entry.accepted_at,
        "updated_at": entry.updated_at,
    }
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
