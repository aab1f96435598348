"""A wall-clock limit for everything that one call does on the network, over all of its connections."""

import socket
import threading
import time
from contextlib import suppress


class Deadline:
    """Shuts the connections that it guards down when `seconds` have passed.

    A socket timeout cannot do this, since every byte that drips in starts it anew. The shutdown goes through a
    duplicate of the TCP socket, which works during the TLS handshake too and cannot hit a descriptor that was reused.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._pass)
        self._timer.daemon = True
        self._timer.start()

    def seconds_left(self) -> float:
        """Raises TimeoutError where there are none."""
        left = self._end - time.monotonic()
        if self.passed or left <= 0:
            raise TimeoutError
        return left

    def guard(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.append(socket.fromfd(connection.fileno(), connection.family, connection.type))
        if self.passed:
            self._pass()

    def close(self) -> None:
        self._timer.cancel()
        with self._lock:
            while self._sockets:
                self._sockets.pop().close()

    def _pass(self) -> None:
        with self._lock:
            self.passed = True
            for guarded in self._sockets:
                with suppress(OSError):
                    guarded.shutdown(socket.SHUT_RDWR)
