"""Define the simulator's switches, one for each fault of the provider.

A switch is off, always on, or on for the next n uses. As JSON (``POST /_sim/faults``): ``null`` or ``false`` is off,
``true`` is always on with the switch's default value, ``{"value": v, "times": n}`` is on with that value for n times
(either key may be absent), and a bare value means that value, always. For a switch without a value (a flag) a bare
whole number is a number of times.
"""

# ruff: noqa: RUF009 - each call makes a dataclass field, not a shared default
from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from local.simulator.dialects import NAMED_ERRORS


@dataclass
class Switch:
    """Hold one switch. ``value`` None = off; ``left`` None = always, otherwise the remaining number of uses."""

    default: Any
    choices: tuple[Any, ...] = ()
    value: Any = None
    left: int | None = None

    def turn(self, raw: Any) -> None:
        """Set the switch from JSON (see the module's docstring); raise ValueError for an invalid value."""
        value, times = raw, None
        if isinstance(raw, dict):
            if set(raw) - {"value", "times"}:
                raise ValueError("only value and times are allowed")
            value, times = raw.get("value", True), raw.get("times")
        elif self.default is True and isinstance(raw, int) and not isinstance(raw, bool):
            value, times = True, raw
        if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 0):
            raise ValueError("times must be a whole number, 0 or more")
        self.value = None if value is None or value is False or times == 0 else self._checked(value)
        self.left = times if self.value is not None else None

    def _checked(self, value: Any) -> Any:
        if value is True:
            return self.default
        if self.choices and value not in self.choices:
            raise ValueError(f"must be one of {', '.join(map(str, self.choices))} (got {value!r})")
        if isinstance(self.default, float) and isinstance(value, (int, float)):
            if value < 0:
                raise ValueError(f"must be 0 or more (got {value!r})")
            return float(value)
        if type(value) is not type(self.default):
            raise ValueError(f"must be a {type(self.default).__name__}, such as {self.default!r} (got {value!r})")
        return value

    def shown(self) -> Any:
        return None if self.value is None else {"value": self.value, "times": self.left}


def switch(default: Any, *choices: Any) -> Any:
    return field(default_factory=lambda: Switch(default, choices))


@dataclass
class Faults:
    """Hold all switches; off unless set. Seconds are real seconds, fractions are 0..1. ``take`` uses one up."""

    auth_error: Switch = switch(True)
    """Flag. Every request to the provider's API is refused like an unknown key: 401, 1002."""
    drop_before: Switch = switch(True)
    """Flag. The connection of a submit is closed without an answer; nothing is accepted."""
    submit_5xx: Switch = switch(500)
    """A submit is answered with this HTTP status (500, 503, 504: codes 5000, 5001, 5002); nothing is accepted."""
    maintenance: Switch = switch(True)
    """Flag. Every submit is answered with 503, 5001 in Kling's envelope; nothing is accepted. Queries
    work: a guess."""
    redirect: Switch = switch(307, 301, 302, 303, 307, 308)
    """A submit is answered with this redirect. 301, 302, 307 and 308 name the same path; nothing is accepted. 303 names
    the path of a task that was accepted and billed, as in RFC 9110. No capture shows a redirect from Kling."""
    firewall: Switch = switch("forbidden")
    """A submit with this text in a prompt is answered with 403 and an HTML page; nothing is accepted."""
    no_right: Switch = switch("kling-v3")
    """A submit for this model is refused with 403, 1103: the account may not use it."""
    too_fast: Switch = switch(True)
    """Flag. A submit is refused with 429, 1302 (too many requests)."""
    arrears: Switch = switch(True)
    """Flag. A submit is refused with 429, 1101 (the account owes money): a 429 that no retry solves."""
    no_room: Switch = switch(True)
    """Flag. A submit is refused with 429, 1303 (parallel tasks), at any number of free slots."""
    slow_submit: Switch = switch(20.0)
    """Seconds between the acceptance of a submit (it is billed at once) and its answer."""
    drop_after: Switch = switch(True)
    """Flag. A submit is accepted and billed, then the connection is closed without an answer."""
    late_accept: Switch = switch(5.0)
    """The connection of a submit is closed without an answer; it is accepted and billed this many seconds later."""
    garbage_answer: Switch = switch("html", "html", "truncated")
    """A submit is accepted and billed, and answered with 200 and an HTML page, or with truncated JSON."""
    named_error: Switch = switch("429/1303", *NAMED_ERRORS)
    """A submit is accepted and billed, and answered with this error (HTTP status/code) that names the task in
    data.task_id. 200/error: 200 with the task's id next to an `error` object. A guess: no capture shows one."""
    query_5xx: Switch = switch(500)
    """A query or a list is answered with this HTTP status (500, 503, 504)."""
    query_slow: Switch = switch(20.0)
    """Seconds before a query or a list is answered."""
    query_garbage: Switch = switch("html", "html", "truncated")
    """A query or a list is answered with 200 and an HTML page, or with truncated JSON."""
    query_unknown_status: Switch = switch("reviewing")
    """A query returns this task_status instead of one of Kling's four."""
    unknown_id: Switch = switch("404/1203", "404/1203", "400/1201", "200/null")
    """The answer to a query for an unknown id. Off: 400, 1201 in the official dialect, as four captures of 2026 show
    it, and 404, 1203 in a relay's."""
    mix_up: Switch = switch(True)
    """Flag. A query for one task is answered with another task's object: a succeeded one of the same kind, or else the
    newest. Without another task the switch is not used up."""
    reordered: Switch = switch(True)
    """Flag. A query returns a task's videos, and a list its tasks, in reverse order. With fewer than two it is not used
    up."""
    wrapped: Switch = switch(True)
    """Flag. A query is answered in the wrapper of new-api relays: code "success", data.status, data.data.data."""
    no_url: Switch = switch(True)
    """Flag. A query of a finished task returns succeed with an empty list of videos."""
    result_host: Switch = switch("localhost")
    """A query of a finished task returns video addresses with this host instead of the simulator's own."""
    callbacks: Switch = switch("lost", "on", "lost", "repeated", "early")
    """For tasks accepted from now on: no callbacks, each one three times, or the first before the submit's answer."""
    callback_foreign_id: Switch = switch(True)
    """Flag, for accepted tasks. Callbacks carry another task_id, as if a relay passed Kling's own callbacks on."""
    fail: Switch = switch("Failure to pass the risk control system")
    """For tasks accepted from now on: the task fails with this text as task_status_msg."""
    two_videos: Switch = switch(True)
    """Flag, for tasks accepted from now on: the task ends with a second video, which has its own id and other
    pictures."""
    never: Switch = switch(True)
    """Flag, for tasks accepted from now on: the task stays processing forever."""
    render_seconds: Switch = switch(8.0)
    """For tasks accepted from now on: seconds from submitted to the end, instead of the account's render_seconds."""
    render_size: Switch = switch(160)
    """For tasks accepted from now on: longest side of the video in pixels, instead of the account's render_size."""
    url_seconds: Switch = switch(60.0)
    """For result addresses issued from now on: seconds until they answer 403, instead of the account's url_seconds."""
    expired_url: Switch = switch(True)
    """Flag. A download is answered with 403 like an expired address; the next query returns a new address."""
    truncate: Switch = switch(0.5)
    """A download states its whole Content-Length and ends after this fraction of it."""
    wrong_file: Switch = switch(True)
    """Flag. A download is answered with 200 and an HTML error page."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def set(self, **switches: Any) -> None:
        """Set switches, all or none: ``set(drop_after=1, slow_submit={"value": 2, "times": 3}, wrapped=True)``."""
        with self._lock:
            tried = {}
            for name, raw in switches.items():
                old = self.__dict__.get(name)
                if not isinstance(old, Switch):
                    raise ValueError(f"{name}: unknown switch")
                tried[name] = Switch(old.default, old.choices)
                try:
                    tried[name].turn(raw)
                except ValueError as problem:
                    raise ValueError(f"{name}: {problem}") from None
            self.__dict__.update(tried)

    def take(self, name: str, when: Callable[[Any], bool] = lambda value: True) -> Any:
        """Return the switch's value and use up one of its times.

        Return None if it is off, or if `when` is false for the value.
        """
        with self._lock:
            one: Switch = getattr(self, name)
            value = one.value
            if value is None or not when(value):
                return None
            if one.left is not None:
                one.left -= 1
                if one.left <= 0:
                    one.value = one.left = None
            return value

    def clear(self) -> None:
        self.set(**{one.name: None for one in fields(self)})

    def shown(self) -> dict[str, Any]:
        """Return the switches as ``GET /_sim/faults`` shows them.

        An entry is null, or has the value and the times left (null = always).
        """
        with self._lock:
            return {one.name: getattr(self, one.name).shown() for one in fields(self)}
