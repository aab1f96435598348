"""The simulator's switches: every way in which the provider can be told to misbehave.

A switch is off, on always, or on for the next n times that it is looked at. As JSON (``POST /_sim/faults``):
``null`` or ``false`` is off, ``true`` is always on with the switch's own value, ``{"value": v, "times": n}`` is on with
that value for n times (either key may be left out), and a bare value means that value, always. For a switch without a
value of its own (a flag) a bare whole number is a number of times.
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
    """One switch. ``value`` None = off; ``left`` None = always, else how many times it still works."""

    default: Any
    choices: tuple[Any, ...] = ()
    value: Any = None
    left: int | None = None

    def turn(self, raw: Any) -> None:
        """Set from JSON (see the module's docstring); ValueError for a value that the switch cannot have."""
        value, times = raw, None
        if isinstance(raw, dict):
            if set(raw) - {"value", "times"}:
                raise ValueError("a switch takes value and times")
            value, times = raw.get("value", True), raw.get("times")
        elif self.default is True and isinstance(raw, int) and not isinstance(raw, bool):
            value, times = True, raw
        if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 0):
            raise ValueError("times is a whole number, 0 or more")
        self.value = None if value is None or value is False or times == 0 else self._checked(value)
        self.left = times if self.value is not None else None

    def _checked(self, value: Any) -> Any:
        if value is True:
            return self.default
        if self.choices and value not in self.choices:
            raise ValueError("one of " + ", ".join(map(str, self.choices)))
        if isinstance(self.default, float) and isinstance(value, (int, float)):
            if value < 0:
                raise ValueError("0 or more")
            return float(value)
        if type(value) is not type(self.default):
            raise ValueError(f"a {type(self.default).__name__}, such as {self.default!r}")
        return value

    def shown(self) -> Any:
        return None if self.value is None else {"value": self.value, "times": self.left}


def switch(default: Any, *choices: Any) -> Any:
    return field(default_factory=lambda: Switch(default, choices))


@dataclass
class Faults:
    """All switches; off unless set. Seconds are real seconds, fractions are 0..1. ``take`` uses one up."""

    auth_error: Switch = switch(True)
    """Flag. Any request of the provider's API is refused as if its key were unknown: 401, 1002."""
    drop_before: Switch = switch(True)
    """Flag. The connection of a submit is closed without an answer; nothing was accepted."""
    submit_5xx: Switch = switch(500)
    """A submit is answered with this HTTP status (500, 503, 504: codes 5000, 5001, 5002); nothing was accepted."""
    maintenance: Switch = switch(True)
    """Flag. Every submit is answered with 503, 5001 in Kling's envelope; nothing is accepted. Queries
    work: a guess."""
    redirect: Switch = switch(307, 301, 302, 303, 307, 308)
    """A submit is answered with this redirect. 301, 302, 307 and 308 name the same path; nothing was accepted. 303
    names the path of a task that was accepted and billed, as RFC 9110 has it. No capture shows a redirect of Kling's.
    """
    firewall: Switch = switch("forbidden")
    """A submit with this text in a prompt is answered with 403 and an HTML page; nothing was accepted."""
    no_right: Switch = switch("kling-v3")
    """A submit for this model is refused with 403, 1103: the account may not use it."""
    too_fast: Switch = switch(True)
    """Flag. A submit is refused with 429, 1302 (too many requests)."""
    arrears: Switch = switch(True)
    """Flag. A submit is refused with 429, 1101 (the account owes money): a 429 that no retry cures."""
    no_room: Switch = switch(True)
    """Flag. A submit is refused with 429, 1303 (parallel tasks), whatever the real number of slots."""
    slow_submit: Switch = switch(20.0)
    """Seconds between accepting a submit (accepted and billed at once) and answering it."""
    drop_after: Switch = switch(True)
    """Flag. A submit is accepted and billed, then the connection is closed without an answer."""
    late_accept: Switch = switch(5.0)
    """The connection of a submit is closed without an answer; it is accepted and billed so many seconds later."""
    garbage_answer: Switch = switch("html", "html", "truncated")
    """A submit is accepted and billed, and answered with 200 and an HTML page, or with JSON that breaks off."""
    named_error: Switch = switch("429/1303", *NAMED_ERRORS)
    """A submit is accepted and billed, and answered with this error (HTTP status/code) that names the task in
    data.task_id. 200/error: 200 with the task's id beside an `error` object. A guess: no capture shows one."""
    query_5xx: Switch = switch(500)
    """A query or a list is answered with this HTTP status (500, 503, 504)."""
    query_slow: Switch = switch(20.0)
    """Seconds that a query or a list waits before it is answered."""
    query_garbage: Switch = switch("html", "html", "truncated")
    """A query or a list is answered with 200 and an HTML page, or with JSON that breaks off."""
    query_unknown_status: Switch = switch("reviewing")
    """A query names this word as task_status, in place of one of Kling's four."""
    unknown_id: Switch = switch("404/1203", "404/1203", "400/1201", "200/null")
    """How a query for an id that does not exist is answered. Off: 400, 1201 in the official dialect, as four captures
    of 2026 show it, and 404, 1203 in a relay's."""
    mix_up: Switch = switch(True)
    """Flag. A query for one task is answered with another task's object: one of the same kind that has succeeded, or
    else the newest. Without another task the switch is not used."""
    reordered: Switch = switch(True)
    """Flag. A query names a task's videos, and a list its tasks, in the reverse order. Without several it is not used.
    """
    wrapped: Switch = switch(True)
    """Flag. A query is answered in the wrapper of new-api relays: code "success", data.status, data.data.data."""
    no_url: Switch = switch(True)
    """Flag. A query of a finished task says succeed, with an empty list of videos."""
    result_host: Switch = switch("localhost")
    """A query of a finished task names this host in its videos' addresses, in place of the simulator's own."""
    callbacks: Switch = switch("lost", "on", "lost", "repeated", "early")
    """For tasks accepted from now on: no callbacks, each one three times, or the first before the submit's answer."""
    callback_foreign_id: Switch = switch(True)
    """Flag, for accepted tasks. Callbacks name another task_id, as when a relay passes Kling's own callbacks on."""
    fail: Switch = switch("Failure to pass the risk control system")
    """For tasks accepted from now on: the task ends as failed, with this text as task_status_msg."""
    two_videos: Switch = switch(True)
    """Flag, for tasks accepted from now on: the task ends with a second video of its own id, which looks different."""
    never: Switch = switch(True)
    """Flag, for tasks accepted from now on: the task stays processing for ever."""
    render_seconds: Switch = switch(8.0)
    """For tasks accepted from now on: seconds from submitted to the end, in place of the account's render_seconds."""
    render_size: Switch = switch(160)
    """For tasks accepted from now on: longest side of the video in pixels, in place of the account's render_size."""
    url_seconds: Switch = switch(60.0)
    """For result addresses issued from now on: seconds until they answer 403, in place of the account's url_seconds."""
    expired_url: Switch = switch(True)
    """Flag. A download answers 403 as an expired address does; the next query gives a fresh address."""
    truncate: Switch = switch(0.5)
    """A download states its whole Content-Length and breaks off after this fraction of it."""
    wrong_file: Switch = switch(True)
    """Flag. A download answers 200 with an HTML error page."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def set(self, **switches: Any) -> None:
        """Turn switches, all or none: ``set(drop_after=1, slow_submit={"value": 2, "times": 3}, wrapped=True)``."""
        with self._lock:
            tried = {}
            for name, raw in switches.items():
                old = self.__dict__.get(name)
                if not isinstance(old, Switch):
                    raise ValueError(f"no switch named {name}")
                tried[name] = Switch(old.default, old.choices)
                try:
                    tried[name].turn(raw)
                except ValueError as problem:
                    raise ValueError(f"{name}: {problem}") from None
            self.__dict__.update(tried)

    def take(self, name: str, when: Callable[[Any], bool] = lambda value: True) -> Any:
        """The switch's value, using up one of its times; None when it is off, or `when` is false for the value."""
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
        """As ``GET /_sim/faults`` shows them: null, or the value and the times left (null = always)."""
        with self._lock:
            return {one.name: getattr(self, one.name).shown() for one in fields(self)}
