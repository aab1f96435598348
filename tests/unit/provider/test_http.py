"""Test the connection of each call: a GET may reuse a kept-alive one, which may be dead; a paid POST may not.

That a connection dies so while a Lambda is frozen, or behind a NAT gateway, is a document's; what the next write on it
meets is a guess: a reset, as here.

The client is `requests`, which would retry, follow, read the environment and keep cookies. None of it may happen.
"""

import json
import logging
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kling_relay.provider.client import Provider
from kling_relay.provider.outcomes import Accepted, Found, Unknown

from tests.support.loopback_servers import respond
from tests.support.provider_calls import KEY, post, provider_at, scripted_server

pytestmark = pytest.mark.enable_socket

TASK = {"code": 0, "message": "SUCCEED", "data": {"task_id": "7", "task_status": "submitted"}}


class KeepAlive:
    """A provider that keeps connections open. `dead`: the first connection resets on the next request, without a sign
    before. `closes_idle`: it ends each connection after an answer, without a header that announces it. `post_ends`: how
    the connection ends after a whole POST: `reset`, `close` (no answer) or `half` (of an answer).

    `requests`: (number of the connection, method) of all that arrived. `closed`: connections that the client closed.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.requests: list[tuple[int, str]] = []
        self.closed = threading.Semaphore(0)
        self.dead = self.closes_idle = False
        self.post_ends = ""
        self._listener = listener

    def run(self) -> None:
        with suppress(OSError):
            for number in range(100):
                connection = self._listener.accept()[0]
                threading.Thread(target=self._talk, args=(connection, number), daemon=True).start()

    def _talk(self, connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rb") as sent:
            while head := sent.readline():
                length = 0
                while (line := sent.readline().strip().lower()) != b"":
                    name, _, value = line.decode().partition(": ")
                    length = int(value) if name == "content-length" else length
                sent.read(length)
                method = head.decode().split(" ")[0]
                self.requests.append((number, method))
                body = json.dumps(TASK).encode()
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                ending = "reset" if self.dead and number == 0 else self.post_ends if method == "POST" else ""
                if ending == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif ending == "half":
                    connection.sendall(answer[: -len(body) // 2])
                elif ending == "":
                    connection.sendall(answer)
                if ending or self.closes_idle:
                    return
            self.closed.release()


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


def test_the_connection_of_a_paid_post_is_closed_after_it(server: KeepAlive, provider: Provider) -> None:
    """The server sees its end, and a query opens another one."""
    assert isinstance(post(provider), Accepted)
    assert server.closed.acquire(timeout=10)
    assert ask(provider)
    assert server.requests == [(0, "POST"), (1, "GET")]


def test_a_paid_post_does_not_take_the_connection_of_the_queries(server: KeepAlive, provider: Provider) -> None:
    assert ask(provider) and isinstance(post(provider), Accepted) and ask(provider)
    assert server.requests == [(0, "GET"), (1, "POST"), (0, "GET")]


def test_a_server_that_closes_idle_connections(server: KeepAlive, provider: Provider) -> None:
    server.closes_idle = True
    assert ask(provider)
    assert isinstance(post(provider), Accepted)
    assert isinstance(post(provider), Accepted)
    assert ask(provider)
    assert [method for _, method in server.requests] == ["GET", "POST", "POST", "GET"]


@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize("ending", ["reset", "close", "half"])
def test_a_paid_post_whose_answer_is_lost_is_in_doubt_and_sent_once(
    server: KeepAlive, provider: Provider, ending: str, asked_before: bool
) -> None:
    if asked_before:
        assert ask(provider)
    server.post_ends = ending
    assert isinstance(post(provider), Unknown)
    assert [method for _, method in server.requests].count("POST") == 1


# -- what `requests` would do by itself


def test_no_cookie_is_sent_back() -> None:
    seen: list[Any] = []

    def answer(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        seen.append(headers.get("cookie"))
        respond(connection, json.dumps(TASK).encode(), Set_Cookie="session=canary; Path=/")

    with scripted_server(answer) as (provider, _):
        assert ask(provider) and isinstance(post(provider), Accepted) and ask(provider)
    assert seen == [None] * 3


def test_no_proxy_no_netrc_and_no_roots_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password canary\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("NO_PROXY", "")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(tmp_path / "none.pem"))
    with scripted_server(lambda connection, *_: respond(connection, json.dumps(TASK).encode())) as (provider, seen):
        assert ask(provider) and isinstance(post(provider), Accepted)
    assert seen == [f"GET /v1/videos/image2video/7 bearer {KEY}", f"POST /v1/videos/image2video bearer {KEY}"]


def test_a_body_that_is_no_json_is_not_sent() -> None:
    with scripted_server(lambda connection, *_: respond(connection)) as (provider, seen):
        assert type(post(provider, cfg_scale=float("nan"))).__name__ == "NotSent"
    assert seen == []


@pytest.mark.parametrize("raw", [b"HTTP/1.1 200 OK\r\n: canary\r\n\r\n{}", b"HTTP/1.1 302 X\r\nLocation: /a\r\n\r\n"])
def test_no_log_holds_the_address_or_what_was_sent(raw: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """urllib3 logs the address of each request at debug level, and as a warning if the headers are malformed."""
    with (
        caplog.at_level(logging.DEBUG),
        scripted_server(lambda connection, *_: connection.sendall(raw)) as (provider, _),
    ):
        post(provider, prompt="canary-prompt")
        provider.query("image2video", "canary-id")
        provider_at("http://127.0.0.1:9").query("image2video", "canary-id")
    for text in ("canary", "image2video", "127.0.0.1", KEY):
        assert text not in caplog.text
