"""Test that the bytes of an answer outside its body count too: http.client would read them forever."""

import io
import socket
from typing import Any

import pytest
from kling_relay.transfer.fetch import open_url
from kling_relay.transfer.fetch_error import FetchError
from kling_relay.transfer.pinned_connection import FRAME_BYTES, Metered

from tests.support.loopback_servers import respond, serve

pytestmark = pytest.mark.enable_socket

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def fetched(start: bytes, more: bytes = b"", *, max_bytes: int = 1000) -> bytes:
    """The body of an answer that begins with `start` and goes on with `more`, again and again."""

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        connection.sendall(start)
        while more:
            connection.sendall(more)

    with serve(handler) as port:
        origin = f"http://127.0.0.1:{port}"
        limits: Any = {"max_bytes": max_bytes, "deadline_seconds": 20, "trusted_origin": origin}
        with open_url(origin, **limits) as download:
            return b"".join(iter(download.read, b""))


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (b"", b"HTTP/1.1 100 Continue\r\nX: " + b"x" * 60_000 + b"\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X: " + b"x" * 60_000 + b"\r\n"),
        (CHUNKED, b"1;" + b"x" * 60_000 + b"\r\nx\r\n"),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: " + b"x" * 60_000 + b"\r\n"),
    ],
)
def test_what_is_poured_around_a_body_ends_at_the_limit(start: bytes, more: bytes) -> None:
    with pytest.raises(FetchError, match="too_large"):
        fetched(start, more)


def test_a_body_of_the_limit_in_small_chunks_passes() -> None:
    chunks = b"10\r\n" + b"x" * 16 + b"\r\n"
    assert len(fetched(CHUNKED + chunks * 4000 + b"0\r\n\r\n", max_bytes=64_000)) == 64_000
    assert FRAME_BYTES > 4000 * 6


def test_a_large_head_passes() -> None:
    head = b"".join(b"X-%d: " % number + b"x" * 600 + b"\r\n" for number in range(90))
    assert fetched(b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: 2\r\n\r\nok") == b"ok"


@pytest.mark.parametrize("more", [0, 1])
def test_the_last_byte_of_the_limit_passes_and_one_more_does_not(more: int) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"x" * 1000 + b"\r\n") * 65
    head += b"X: " + b"x" * (FRAME_BYTES + more - len(head) - 7) + b"\r\n\r\n"
    if more:
        with pytest.raises(FetchError, match="too_large"):
            fetched(head + b"0123456789", max_bytes=10)
    else:
        assert fetched(head + b"0123456789", max_bytes=10) == b"0123456789"


def test_who_counts_a_connection_closes_it() -> None:
    connection = io.BytesIO(b"x")
    counted = Metered(connection, 5)  # type: ignore[arg-type]
    counted.close()
    assert connection.closed and counted.closed


def test_each_hop_has_its_own_head() -> None:
    padding = "x" * 40_000

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        if path == "/end":
            return respond(connection, b"end", X_Padding=padding)
        return respond(connection, status=302, Location="/again" if path == "/" else "/end", X_Padding=padding)

    with serve(handler) as port:
        origin = f"http://127.0.0.1:{port}"
        with open_url(origin, max_bytes=10, deadline_seconds=5, trusted_origin=origin) as download:
            assert download.read() == b"end"
