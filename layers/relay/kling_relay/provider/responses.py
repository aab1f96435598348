"""Parse the providers' answers about a task, in every known dialect. Pure.

An answer that cannot be parsed is never a success: an unknown status is `None` ("still running" to the caller), and an
answer that cannot be read as a task gives no ProviderTask.
"""

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from kling_relay.transfer import url_escaping

Status = Literal["submitted", "processing", "succeed", "failed"]

_MAX_VIDEOS = 8  # these two keep a row small, for any answer
_MAX_URL_CHARACTERS = 8192
_WORD = re.compile(r"[\w.-]{1,64}")  # the form of codes and status words: fit for a log, unlike free text
_NO_IDS = {"", "0", "null", "none", "nil", "undefined", "false"}
_DEEPEST = 8  # levels of an answer that are searched for a task's id
_QUOTED_ID = re.compile(r"(?<![a-z_])task_?id\W{1,6}(?=[\w-]*\d)[\w-]{4,}", re.IGNORECASE)
_LEAST_MILLISECONDS = 100_000_000_000  # in March 1973; as seconds in the year 5138

_STATUS_WORDS: dict[str, Status] = {
    **dict.fromkeys(("submitted", "queued", "pending", "not_start"), "submitted"),
    **dict.fromkeys(("processing", "running", "in_progress"), "processing"),
    **dict.fromkeys(("succeed", "succeeded", "success", "completed"), "succeed"),
    **dict.fromkeys(("failed", "failure", "fail"), "failed"),
}


@dataclass(frozen=True, slots=True)
class ProviderTask:
    """The provider's state of one task.

    `status` is None for an undocumented status word; `word` is that raw word, or "unreadable".
    """

    upstream_id: str
    status: Status | None
    word: str = ""
    message: str = ""
    videos: tuple[dict[str, str], ...] = ()
    reference: str | None = None
    created_at: int | None = None
    units: str | None = None
    cash: str | None = None
    """The amount charged to the account's balance of money (final_balance_deduction.quota), unless it is 0.

    `units` is then never a zero: the task was not free.
    """
    ids: tuple[str, ...] = ()  # every id that the answer gives the task, outermost first: a relay wraps one in another

    @property
    def is_rendered(self) -> bool:
        """Whether the provider has finished and gives the URL of a video. "succeed" without a URL is not enough."""
        return self.status == "succeed" and bool(self.videos)

    def is_about(self, upstream_id: str) -> bool:
        """Return whether this is the task that was queried by `upstream_id`."""
        return upstream_id == self.upstream_id or upstream_id in self.ids


def error_code(answer: dict[str, Any]) -> int | str:
    """Return the answer's own code: 0 for success in any spelling.

    A bare callback body, which has no code, counts as 0. "unreadable" if it is neither a number nor one word, because a
    code is logged and stored.
    """
    code = answer.get("code", 0)
    if isinstance(code, bool) or not isinstance(code, int | str):
        return "unreadable"
    text = _plain(code)
    if text.lower() in ("success", "0"):
        return 0
    return int(text) if text.removeprefix("-").isdecimal() and len(text) < 20 else text


def read(answer: Any) -> ProviderTask | None:
    """Return the task in `answer`, or None if it has none (an error, a list, something else)."""
    if not isinstance(answer, dict) or error_code(answer) != 0:
        return None
    levels = _levels(answer)
    ids = tuple(one for level in levels if (one := _id(level)) is not None)
    if not ids:
        return None
    inside_out = levels[::-1]
    word = _plain(_text(_first(inside_out, "task_status", "status")) or "")
    info = _first(inside_out, "task_info")
    reference = info.get("external_task_id") if isinstance(info, dict) else None
    units, cash = _charged(inside_out)
    return ProviderTask(
        upstream_id=ids[0],  # a relay's own id is outside the one that it wraps
        status=_STATUS_WORDS.get(word.lower()),
        word=word,
        message=_message(inside_out),
        videos=tuple(_videos(inside_out)),
        reference=_text(reference or _first(inside_out, "external_task_id", "external_id")),
        created_at=_milliseconds(_first(inside_out, "created_at", "create_time", "submit_time")),
        units=units,
        cash=cash,
        ids=ids,
    )


def _charged(inside_out: list[dict[str, Any]]) -> tuple[str | None, str | None]:
    """Return the units and the cash that the task was charged.

    An account that pays in cash may state 0 units or none: a guess, since no answer of such an account has been
    captured. A quota that is not a number counts as cash.
    """
    units = _text(_first(inside_out, "final_unit_deduction"))
    balance = _first(inside_out, "final_balance_deduction")
    cash = _text(balance.get("quota")) if isinstance(balance, dict) else None
    if not cash or _is_zero(cash):
        return units, None
    return None if units is not None and _is_zero(units) else units, cash


def _is_zero(amount: str) -> bool:
    try:
        return Decimal(amount) == 0
    except InvalidOperation:
        return False


def names_task(answer: Any) -> bool:
    """Return whether `answer`, which may be an error, contains the id of a task: then a task may have been made.

    It searches eight levels. A relay may quote Kling's whole answer in the text of its error.
    """
    listed = answer if isinstance(answer, list) else [answer]
    data = [one.get("data") for one in listed if isinstance(one, dict)]
    levels = [*listed, *(one for items in data for one in (items if isinstance(items, list) else [items]))]
    return any(_id(level) is not None for level in levels if isinstance(level, dict)) or _names_task(answer, _DEEPEST)


def _names_task(value: Any, depth: int) -> bool:
    if isinstance(value, str):
        return _QUOTED_ID.search(value) is not None
    if depth == 0 or not isinstance(value, dict | list):
        return False
    if isinstance(value, list):
        return any(_names_task(one, depth - 1) for one in value)
    ids = (value_of_id for name, value_of_id in value.items() if name.lower().replace("_", "") == "taskid")
    return any(_identity(one) is not None for one in ids) or any(_names_task(one, depth - 1) for one in value.values())


def _id(level: dict[str, Any]) -> str | None:
    return _identity(level.get("task_id")) or _identity(level.get("id"))


def _identity(value: Any) -> str | None:
    """Return an id, or None for the placeholders that programs write without one."""
    text = _text(value)
    return None if text is None or text.lower() in _NO_IDS else text


def read_list(answer: Any) -> tuple[list[ProviderTask], int] | None:
    """Parse one page of a list: its tasks, and the number of entries that cannot be read as a task.

    None if `answer` is not a list: an error, or `data` of another type, even null.
    """
    if not isinstance(answer, dict) or error_code(answer) != 0 or not isinstance(answer.get("data"), list):
        return None
    tasks = [read(entry) for entry in answer["data"]]
    known = [task for task in tasks if task is not None]
    return known, len(tasks) - len(known)


def _levels(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects that wrap each other under "data", or in a list of one there, outermost first.

    The envelope itself is left out if it is one.
    """
    levels = [answer]
    while isinstance(inner := _only(levels[-1].get("data")), dict) and len(levels) < 8:
        levels.append(inner)
    return [level for level in levels if "code" not in level]


def _first(levels: list[dict[str, Any]], *names: str) -> Any:
    for level in levels:
        for name in names:
            if level.get(name) not in (None, ""):
                return level[name]
    return None


def _plain(code: int | str) -> str:
    text = code if isinstance(code, str) else str(code)
    return text if not text or _WORD.fullmatch(text) else "unreadable"


def _text(value: Any, maximum: int = 256) -> str | None:
    """Return a text or number as a storable text: JSON may hold half a surrogate pair, the table may not."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value)[:maximum].encode("utf-8", "replace").decode()


def _milliseconds(value: Any) -> int | None:
    """Return a time since 1970 in milliseconds. Relays that write seconds are recognised by smaller numbers."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value * 1000 if 0 < value < _LEAST_MILLISECONDS else value


def _message(inside_out: list[dict[str, Any]]) -> str:
    message = _first(inside_out, "task_status_msg", "fail_reason", "message", "error")
    if isinstance(message, dict):
        message = message.get("message")
    return _text(message, 1000) or ""


def _videos(inside_out: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the videos at the first location with a usable URL.

    Relays of the new-api family write the URL of a success into `fail_reason`.
    """
    result, metadata = _only(_first(inside_out, "task_result")), _first(inside_out, "metadata")
    outputs = _first(inside_out, "outputs")
    locations = [
        result.get("videos") if isinstance(result, dict) else None,
        [out for out in outputs if _is_video(out)] if isinstance(outputs, list) else None,
        *(_first(inside_out, name) for name in ("url", "result_url", "video_url")),
        metadata.get("url") if isinstance(metadata, dict) else None,
        _first(inside_out, "fail_reason"),
    ]
    for location in locations:
        listed = (location if isinstance(location, list) else [location])[:_MAX_VIDEOS]
        videos = [_video(index, item) for index, item in enumerate(listed)]
        if any(videos):
            return [video for video in videos if video]
    return []


def _only(value: Any) -> Any:
    """Return the item of a list of one; any other value unchanged."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _is_video(output: Any) -> bool:
    return isinstance(output, dict) and output.get("type", "video") == "video"


def _address(item: Any, name: str) -> str:
    """Return the URL at `name` of an entry, or the entry itself if it is a text; empty if it is no URL."""
    url = item.get(name) if isinstance(item, dict) else item if name == "url" else None
    if not isinstance(url, str) or not url.strip(" ").lower().startswith(("https://", "http://")):
        return ""
    url = url_escaping.escaped(url)
    return url if len(url) <= _MAX_URL_CHARACTERS and url.isprintable() else ""


def _video(index: int, item: Any) -> dict[str, str]:
    """Return the entry as texts; empty if it has no usable URL."""
    if not (url := _address(item, "url")):
        return {}
    fields = item if isinstance(item, dict) else {}
    video = {"id": _text(fields.get("id")) or str(index), "url": url, "duration": _text(fields.get("duration")) or ""}
    if watermark_url := _address(item, "watermark_url"):
        video["watermark_url"] = watermark_url
    return video
