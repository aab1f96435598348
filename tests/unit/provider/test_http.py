"""Test the connection of each call: a GET may reuse a kept-alive one, which may be dead; a paid POST may not.

That a connection dies without a sign while a Lambda is frozen, or behind a NAT gateway, is from a document. The effect
of the next write on it is a guess: a reset, as here.
"""

import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest
from kling_relay.provider.client import Provider
from kling_relay.provider.outcomes import Accepted, Found

from tests.support.provider_calls import post, provider_at

pytestmark = pytest.mark.enable_socket

TASK = {"code": 0, "message": "SUCCEED", "data": {"task_id": "7", "task_status": "submitted"}}


class KeepAlive:
    """A provider that keeps connections open. `dead`: those that reset what comes next, and show nothing before.

    `requests`: (number of the connection, method) of all that arrived.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.requests: list[tuple[int, str]] = []
        self.dead = False
        self._listener = listener

    def run(self) -> None:
        with suppress(OSError):
            for number in range(100):
                connection = self._listener.accept()[0]
                threading.Thread(target=self._talk, args=(connection, number), daemon=True).start()

    def _talk(self, connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rb") as sent:
            while head := sent.readline():
                headers = Counter[str]()
                while (line := sent.readline().strip().lower()) != b"":
                    name, _, value = line.decode().partition(": ")
                    headers[name] = int(value) if name == "content-length" else 0
                sent.read(headers["content-length"])
                method = head.decode().split(" ")[0]
                self.requests.append((number, method))
                if self.dead and number == 0:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
                    return
                body = json.dumps(TASK).encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


@pytest.fixture
def server() -> Iterator[KeepAlive]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = KeepAlive(listener)
        threading.Thread(target=one.run, daemon=True).start()
        yield one


@pytest.fixture
def provider(server: KeepAlive) -> Provider:
    return provider_at(f"http://127.0.0.1:{server._listener.getsockname()[1]}")


def ask(provider: Provider) -> bool:
    return isinstance(provider.query("image2video", "7"), Found)


def test_queries_share_a_connection(server: KeepAlive, provider: Provider) -> None:
    assert ask(provider) and ask(provider)
    assert server.requests == [(0, "GET"), (0, "GET")]


@pytest.mark.parametrize("dead", [False, True])
def test_a_paid_post_has_a_connection_of_its_own(server: KeepAlive, provider: Provider, dead: bool) -> None:
    """After a query, and after another POST: in a connection that is dead it would be in doubt."""
    assert ask(provider)
    server.dead = dead
    assert isinstance(post(provider), Accepted)
    assert isinstance(post(provider), Accepted)
    assert server.requests == [(0, "GET"), (1, "POST"), (2, "POST")]


def test_a_query_after_a_post_may_use_its_connection(server: KeepAlive, provider: Provider) -> None:
    assert isinstance(post(provider), Accepted) and ask(provider)
    assert server.requests == [(0, "POST"), (0, "GET")]
