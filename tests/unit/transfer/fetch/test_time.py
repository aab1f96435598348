"""Test slow servers: fetch hangs up at the deadline, and leaves no thread and no socket."""

import itertools
import socket
import threading
from collections.abc import Callable, Iterable
from types import SimpleNamespace

import pytest
from kling_relay.transfer import deadline, fetch, pinned_connection
from kling_relay.transfer.fetch import open_url

from tests.support.loopback_servers import respond
from tests.support.timed_servers import Deadlines, SlowServer, byte_by_byte
from tests.unit.transfer.fetch.internet import PUBLIC, World, refusal, silence

pytestmark = pytest.mark.enable_socket

SECONDS = 300  # of a deadline that passes only when a test lets it
LENGTH = b"Content-Length: 5000\r\n"


def headers(path: str) -> list[bytes]:
    return byte_by_byte(b"HTTP/1.1 200 OK\r\n", b"X-Slow: 1\r\n" * 50)


def body(path: str) -> list[bytes]:
    return byte_by_byte(b"HTTP/1.1 200 OK\r\n%b\r\n" % (LENGTH if path == "/length" else b""), b"x" * 500)


def chunks(path: str) -> list[bytes]:
    return byte_by_byte(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 90)


@pytest.fixture
def deadlines(monkeypatch: pytest.MonkeyPatch) -> Deadlines:
    made = Deadlines()
    monkeypatch.setattr(fetch, "Deadline", made)
    return made


@pytest.fixture
def slow(deadlines: Deadlines) -> SlowServer:
    return SlowServer(lambda: deadlines.let_pass(0))


@pytest.mark.parametrize("path", ["/length", "/close"])
@pytest.mark.parametrize("pieces", [headers, body, chunks])
def test_a_slow_server_is_left(
    pieces: Callable[[str], Iterable[bytes]], path: str, world: World, deadlines: Deadlines, slow: SlowServer
) -> None:
    world.stand(slow.handler(pieces))
    assert refusal("https://cdn.example.com" + path, seconds=SECONDS).reason == "timeout"
    assert slow.was_left() and deadlines.asked == [SECONDS]


@pytest.mark.parametrize("pieces", [headers, body, chunks])
def test_a_slow_trusted_server_is_left(
    pieces: Callable[[str], Iterable[bytes]], world: World, deadlines: Deadlines, slow: SlowServer
) -> None:
    origin = world.plain(slow.handler(pieces))
    assert refusal(origin + "/length", seconds=SECONDS, trusted=origin).reason == "timeout"
    assert slow.was_left() and deadlines.asked == [SECONDS]


def test_a_slow_handshake_is_left(world: World, slow: SlowServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        world.raw(PUBLIC, listener.getsockname()[1])

        def talk() -> None:
            with listener.accept()[0] as connection:
                slow.send(connection, byte_by_byte(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", bytes(500)))

        threading.Thread(target=talk, daemon=True).start()
        assert refusal("https://cdn.example.com/", seconds=SECONDS).reason == "timeout"
        assert slow.was_left()


def test_silence_is_left_at_the_deadline(world: World, deadlines: Deadlines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned_connection, "READ_SECONDS", SECONDS)

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        deadlines.let_pass(0)
        silence(connection, path, headers)

    world.stand(handler)
    assert refusal("https://cdn.example.com/", seconds=SECONDS).reason == "timeout"


def test_three_seconds_to_connect_and_ten_of_silence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = world.plain(lambda connection, path, headers: respond(connection, b"x"))
    dial, dialled = pinned_connection.dial, list[tuple[float, socket.socket]]()

    def noting(ip_address: str, port: int, timeout: float) -> socket.socket:
        dialled.append((timeout, dial(ip_address, port, timeout)))
        return dialled[-1][1]

    monkeypatch.setattr(pinned_connection, "dial", noting)
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: 7.0))
    for seconds in (60, 2):
        with open_url(origin, max_bytes=10, deadline_seconds=seconds, trusted_origin=origin) as download:
            assert dialled[-1][1].gettimeout() == 10 and download.read() == b"x"
    assert [timeout for timeout, _ in dialled] == [3, 2]


def test_a_server_that_falls_silent_is_left_before_the_deadline(
    world: World, deadlines: Deadlines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinned_connection, "READ_SECONDS", 0.2)
    world.stand(silence)
    assert refusal("https://cdn.example.com/", seconds=SECONDS).reason == "timeout"
    assert deadlines.passed == [False]


def test_slow_redirects_share_one_deadline(world: World, deadlines: Deadlines) -> None:
    hops = itertools.count(1)

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        if next(hops) == 2:
            deadlines.let_pass(0)
        respond(connection, status=302, Location="/again")

    world.stand(handler)
    assert refusal("https://cdn.example.com/", seconds=SECONDS).reason == "timeout"
    assert deadlines.asked == [SECONDS] and next(hops) == 3


def test_no_thread_and_no_socket_stays(world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection, b"x"))
    urls = "https://cdn.example.com/", world.plain(lambda connection, path, headers: respond(connection, b"x"))
    opened: list[socket.socket] = []
    dial = pinned_connection.dial
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pinned_connection, "dial", lambda *args: opened.append(dial(*args)) or opened[-1])
        for url in urls:
            with open_url(url, max_bytes=10, deadline_seconds=60, trusted_origin=url) as download:
                pass
    assert [sock.fileno() for sock in opened] == [-1, -1]
    del download  # held until here: nothing was closed for want of a reader
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(60)
            assert not thread.is_alive(), "a deadline goes on after its fetch"
