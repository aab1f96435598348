"""Slow servers end on time, and leave no thread and no socket."""

import socket
import threading
import time
from contextlib import suppress

import pytest
from kling_relay import fetch
from kling_relay.fetch import open_url

from tests.unit.fetch.internet import PUBLIC, World, refusal, silence
from tests.unit.loopback import Handler, drip, respond

pytestmark = pytest.mark.enable_socket

DEADLINE = 0.4


def _drip_headers(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
    drip(connection, b"HTTP/1.1 200 OK\r\n" + b"X-Slow: 1\r\n" * 200)


def _drip_body(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
    respond(connection, length=False, **({"Content_Length": "5000"} if path == "/length" else {}))
    drip(connection, b"x" * 5000)


def _drip_chunks(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
    respond(connection, length=False, Transfer_Encoding="chunked")
    drip(connection, b"1\r\nx\r\n" * 2000)


SLOW = [_drip_headers, _drip_body, _drip_chunks, silence]


@pytest.mark.parametrize("path", ["/length", "/close"])
@pytest.mark.parametrize("handler", SLOW)
def test_a_slow_server_ends_on_time(handler: Handler, path: str, world: World) -> None:
    world.stand(handler)
    _ends_on_time("https://cdn.example.com" + path)


@pytest.mark.parametrize("handler", SLOW)
def test_a_slow_trusted_server_ends_on_time(handler: Handler, world: World) -> None:
    origin = world.plain(handler)
    _ends_on_time(origin + "/length", origin)


def test_a_slow_handshake_ends_on_time(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        world.raw(PUBLIC, listener.getsockname()[1])

        def talk() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                drip(connection, b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + bytes(5000))

        threading.Thread(target=talk, daemon=True).start()
        _ends_on_time("https://cdn.example.com/")


def _ends_on_time(url: str, trusted: str | None = None) -> None:
    started = time.monotonic()
    assert refusal(url, seconds=DEADLINE, trusted=trusted).reason == "timeout"
    assert DEADLINE * 0.9 < time.monotonic() - started < DEADLINE + 1


def test_three_seconds_to_connect_and_ten_of_silence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = world.plain(lambda connection, path, headers: respond(connection, b"x"))
    dial, dialled = fetch.dial, list[tuple[float, socket.socket]]()

    def noting(ip_address: str, port: int, timeout: float) -> socket.socket:
        dialled.append((timeout, dial(ip_address, port, timeout)))
        return dialled[-1][1]

    monkeypatch.setattr(fetch, "dial", noting)
    for seconds in (60, 2):
        with open_url(origin, max_bytes=10, deadline_seconds=seconds, trusted_origin=origin) as download:
            assert dialled[-1][1].gettimeout() == 10 and download.read() == b"x"
    assert dialled[0][0] == 3 and 1 < dialled[1][0] <= 2


def test_a_server_that_falls_silent_is_left_before_the_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "READ_SECONDS", 0.2)
    world.stand(silence)
    started = time.monotonic()
    assert refusal("https://cdn.example.com/", seconds=20).reason == "timeout"
    assert time.monotonic() - started < 10


def test_slow_redirects_share_one_deadline(world: World) -> None:
    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        threading.Event().wait(DEADLINE * 0.7)
        respond(connection, status=302, Location="/again")

    world.stand(handler)
    _ends_on_time("https://cdn.example.com/")


def test_no_thread_and_no_socket_stays(world: World) -> None:
    before = threading.active_count()
    world.stand(lambda connection, path, headers: respond(connection, b"x"))
    urls = "https://cdn.example.com/", world.plain(lambda connection, path, headers: respond(connection, b"x"))
    running = threading.active_count()
    opened: list[socket.socket] = []
    dial = fetch.dial
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "dial", lambda *args: opened.append(dial(*args)) or opened[-1])
        for url in urls:
            with open_url(url, max_bytes=10, deadline_seconds=60, trusted_origin=url) as download:
                pass
    assert [sock.fileno() for sock in opened] == [-1, -1]
    del download  # held until here: nothing was closed for want of a reader
    for _ in range(100):
        if threading.active_count() <= running:
            break
        time.sleep(0.01)
    assert threading.active_count() <= running >= before
