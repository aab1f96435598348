"""Reads what providers answer about a task, in every dialect that is known. Pure.

What is not understood is never success: an unknown status word is `None` ("still running" to the caller), an answer
that cannot be read as a task is no snapshot at all.
"""

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from kling_relay.transfer import url_escaping

Status = Literal["submitted", "processing", "succeed", "failed"]

_MAX_VIDEOS = 8  # these two keep a row small, whatever the provider says
_MAX_URL_CHARACTERS = 8192
_WORD = re.compile(r"[\w.-]{1,64}")  # what codes and status words look like: fit for a log, unlike free text
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
    """What the provider says of one task. `status` is None for a word that nobody documented; `word` is that word,
    or "unreadable"."""

    upstream_id: str
    status: Status | None
    word: str = ""
    message: str = ""
    videos: tuple[dict[str, str], ...] = ()
    reference: str | None = None
    created_at: int | None = None
    units: str | None = None
    cash: str | None = None
    """What was taken from the account's balance of money (final_balance_deduction.quota), unless that is 0. `units` is
    then never a zero: the task was not free."""
    ids: tuple[str, ...] = ()  # every id that the answer gives the task, outermost first: a relay wraps one in another

    def is_about(self, upstream_id: str) -> bool:
        """Whether this is the task that was asked for by `upstream_id`."""
        return upstream_id == self.upstream_id or upstream_id in self.ids


def error_code(answer: dict[str, Any]) -> int | str:
    """The answer's own code: 0 for success however it is written; a bare callback body, which has no code, counts as
    0. "unreadable" for what is neither a number nor one word: a code is logged and stored."""
    code = answer.get("code", 0)
    if isinstance(code, bool) or not isinstance(code, int | str):
        return "unreadable"
    text = _plain(code)
    if text.lower() in ("success", "0"):
        return 0
    return int(text) if text.removeprefix("-").isdecimal() and len(text) < 20 else text


def read(answer: Any) -> ProviderTask | None:
    """The task that `answer` speaks of, or None where it speaks of none (an error, a list, something else)."""
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
        upstream_id=ids[0],  # a relay's own id stands outside the one that it wraps
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
    """Units and cash that the task took. An account that pays in cash may state 0 units or none: a guess, since no
    answer of such an account has been captured. A quota that is no number counts as cash that was taken."""
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
    """Whether `answer`, which may be an error, holds the id of a task anywhere: then a task may have been made. A relay
    may quote Kling's whole answer in the text of its error."""
    listed = answer if isinstance(answer, list) else [answer]
    data = [one.get("data") for one in listed if isinstance(one, dict)]
    levels = [*listed, *(one for given in data for one in (given if isinstance(given, list) else [given]))]
    return any(_id(level) is not None for level in levels if isinstance(level, dict)) or _names_task(answer, _DEEPEST)


def _names_task(value: Any, depth: int) -> bool:
    if isinstance(value, str):
        return _QUOTED_ID.search(value) is not None
    if depth == 0 or not isinstance(value, dict | list):
        return False
    if isinstance(value, list):
        return any(_names_task(one, depth - 1) for one in value)
    ids = (given for name, given in value.items() if name.lower().replace("_", "") == "taskid")
    return any(_identity(one) is not None for one in ids) or any(_names_task(one, depth - 1) for one in value.values())


def _id(level: dict[str, Any]) -> str | None:
    return _identity(level.get("task_id")) or _identity(level.get("id"))


def _identity(value: Any) -> str | None:
    """An id, or None for what a program writes if it has none."""
    text = _text(value)
    return None if text is None or text.lower() in _NO_IDS else text


def read_list(answer: Any) -> tuple[list[ProviderTask], int] | None:
    """The tasks of one page of a list, and how many of its entries cannot be read as a task. None where `answer` is no
    list: an error, or `data` that is something else, were it null."""
    if not isinstance(answer, dict) or error_code(answer) != 0 or not isinstance(answer.get("data"), list):
        return None
    tasks = [read(entry) for entry in answer["data"]]
    known = [task for task in tasks if task is not None]
    return known, len(tasks) - len(known)


def _levels(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects that wrap each other under "data", or in a list of one there, outermost first; the envelope itself is
    left out if it is one."""
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


def _plain(said: int | str) -> str:
    text = said if isinstance(said, str) else str(said)
    return text if not text or _WORD.fullmatch(text) else "unreadable"


def _text(value: Any, maximum: int = 256) -> str | None:
    """A text or number as a text that can be stored: JSON may hold half a surrogate pair, the table may not."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value)[:maximum].encode("utf-8", "replace").decode()


def _milliseconds(value: Any) -> int | None:
    """A time since 1970 in milliseconds; relays that write seconds are known by their numbers, which are smaller."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value * 1000 if 0 < value < _LEAST_MILLISECONDS else value


def _message(inside_out: list[dict[str, Any]]) -> str:
    said = _first(inside_out, "task_status_msg", "fail_reason", "message", "error")
    if isinstance(said, dict):
        said = said.get("message")
    return _text(said, 1000) or ""


def _videos(inside_out: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The videos at the first place that holds a usable address. Relays of the new-api family write the address of a
    success into `fail_reason`."""
    result, metadata = _only(_first(inside_out, "task_result")), _first(inside_out, "metadata")
    outputs = _first(inside_out, "outputs")
    places = [
        result.get("videos") if isinstance(result, dict) else None,
        [out for out in outputs if _is_video(out)] if isinstance(outputs, list) else None,
        *(_first(inside_out, name) for name in ("url", "result_url", "video_url")),
        metadata.get("url") if isinstance(metadata, dict) else None,
        _first(inside_out, "fail_reason"),
    ]
    for place in places:
        listed = (place if isinstance(place, list) else [place])[:_MAX_VIDEOS]
        videos = [_video(index, item) for index, item in enumerate(listed)]
        if any(videos):
            return [video for video in videos if video]
    return []


def _only(value: Any) -> Any:
    """What a list of one holds; anything else as it is."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _is_video(output: Any) -> bool:
    return isinstance(output, dict) and output.get("type", "video") == "video"


def _address(item: Any, name: str) -> str:
    """The address at `name` of an entry, or the entry itself if it is a text; empty if it is none."""
    url = item.get(name) if isinstance(item, dict) else item if name == "url" else None
    if not isinstance(url, str) or not url.strip(" ").lower().startswith(("https://", "http://")):
        return ""
    url = url_escaping.escaped(url)
    return url if len(url) <= _MAX_URL_CHARACTERS and url.isprintable() else ""


def _video(index: int, item: Any) -> dict[str, str]:
    """The entry as texts; empty if it holds no usable address."""
    if not (url := _address(item, "url")):
        return {}
    told = item if isinstance(item, dict) else {}
    video = {"id": _text(told.get("id")) or str(index), "url": url, "duration": _text(told.get("duration")) or ""}
    if watermark_url := _address(item, "watermark_url"):
        video["watermark_url"] = watermark_url
    return video
