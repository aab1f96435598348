"""Test that a deadline closes its connection when its time is over, and changes nothing after `close`."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest
from kling_relay.transfer import deadline as module
from kling_relay.transfer.deadline import Deadline

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


class Timer:
    """What a deadline asks of a `threading.Timer`."""

    def __init__(self, seconds: float, function: Callable[[], None]) -> None:
        self.seconds, self.function, self.calls, self.daemon = seconds, function, list[str](), False

    def start(self) -> None:
        self.calls.append(f"start, daemon {self.daemon}")

    def cancel(self) -> None:
        self.calls.append("cancel")


def test_the_real_timer_ends_a_connection_and_not_too_soon(pair: tuple[socket.socket, socket.socket]) -> None:
    """`recv` has no timeout: it returns when the deadline has passed."""
    ours, theirs = pair
    began = time.monotonic()
    with closing(Deadline(0.05)) as one:
        one.guard(ours)
        assert theirs.recv(1) == b""
        assert time.monotonic() - began > 0.04 and one.passed
        assert ours.recv(1) == b""


def test_the_timer_has_the_seconds_and_holds_up_no_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "threading", SimpleNamespace(Timer=Timer, Lock=threading.Lock))
    one = Deadline(7)
    timer = one._timer
    assert isinstance(timer, Timer) and (timer.seconds, timer.calls) == (7, ["start, daemon True"])
    one.close()
    assert timer.calls[1:] == ["cancel"]


def test_a_connection_that_comes_too_late_is_ended_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with closing(Deadline(3600)) as one:
        one._pass()
        one.guard(ours)
        assert theirs.recv(1) == b""


def test_what_is_over_is_left_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    one = Deadline(3600)
    one.guard(ours)
    one.close()
    one._pass()
    ours.sendall(b"x")
    assert theirs.recv(1) == b"x"


def test_seconds_left_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with closing(Deadline(60)) as one:
        now[0] = 159.5
        assert one.seconds_left() == 0.5
        now[0] = 160
        with pytest.raises(TimeoutError):
            one.seconds_left()
    with closing(Deadline(60)) as one:
        one._pass()
        with pytest.raises(TimeoutError):
            one.seconds_left()
