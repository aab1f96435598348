"""Control deadlines from a test, and serve slowly until the client hangs up. A loaded machine fails no test."""

import queue
import socket
import threading
from collections.abc import Callable, Iterable

from kling_relay.transfer.deadline import Deadline

from tests.support.loopback_servers import Handler

_WANTED_AFTER = 3  # pieces: the client has begun to read
_PAUSE = 0.01  # seconds


class Deadlines:
    """Replace `Deadline` in a module. `asked`: the seconds of each deadline that the module created."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._made: list[Deadline] = []

    def __call__(self, seconds: float) -> Deadline:
        self.asked.append(seconds)
        self._made.append(Deadline(3600))
        return self._made[-1]

    @property
    def passed(self) -> list[bool]:
        return [one.passed for one in self._made]

    def let_pass(self, number: int) -> None:
        """Run the timer of the deadline with that number."""
        self._made[number]._pass()


class SlowServer:
    """Send many pieces, a few milliseconds apart, so that the socket's own timeout never passes.

    `wanted` is called after the first pieces. `was_left` returns whether the client hung up before the end.
    """

    def __init__(self, wanted: Callable[[], None]) -> None:
        self._wanted = wanted
        self._ends: queue.Queue[bool] = queue.Queue()

    def was_left(self) -> bool:
        return self._ends.get(timeout=60)

    def send(self, connection: socket.socket, pieces: Iterable[bytes]) -> None:
        try:
            for number, piece in enumerate(pieces):
                if number == _WANTED_AFTER:
                    self._wanted()
                connection.sendall(piece)
                threading.Event().wait(_PAUSE)
        except OSError:
            self._ends.put(True)
        else:
            self._ends.put(False)

    def handler(self, pieces: Callable[[str], Iterable[bytes]]) -> Handler:
        """Return a handler that sends the pieces of the path."""
        return lambda connection, path, headers: self.send(connection, pieces(path))


def byte_by_byte(start: bytes, rest: bytes) -> list[bytes]:
    """Return `start` as one piece, then the bytes of `rest` one by one."""
    return [start, *(bytes([byte]) for byte in rest)]
