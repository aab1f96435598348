"""Limit the wall-clock time of one call's network traffic, over all of its connections."""

import socket
import threading
import time
from contextlib import suppress


class Deadline:
    """Shut down the guarded connections after `seconds`.

    A socket timeout cannot do this, because it restarts with every received byte. The shutdown uses a duplicate of the
    TCP socket. That works during the TLS handshake too, and cannot hit a reused descriptor.
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
        """Return the remaining seconds. Raises TimeoutError if none remain."""
        left = self._end - time.monotonic()
        if self.passed or left <= 0:
            raise TimeoutError
        return left

    def guard(self, connection: socket.socket) -> None:
        """Shut `connection` down too, at once if the deadline has passed."""
        with self._lock:
            self._sockets.append(socket.fromfd(connection.fileno(), connection.family, connection.type))
        if self.passed:
            self._pass()

    def close(self) -> None:
        """Stop the timer and release the sockets. Guarded connections stay open."""
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
