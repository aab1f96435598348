"""Test POSTs to an address of a client: checked like every fetch, sent once, and only the answer's head is read."""

import socket
from typing import Any

import kling_relay
import pytest
from kling_relay.transfer.fetch import Receipt, post
from kling_relay.transfer.fetch_error import FetchError
from kling_relay.transfer.pinned_connection import FRAME_BYTES

from tests.support.loopback_servers import Handler, respond
from tests.support.timed_servers import SlowServer
from tests.unit.transfer.fetch.internet import World, silence, to

pytestmark = pytest.mark.enable_socket

URL, HEADERS = "https://cdn.example.com/hook?x=1", {"Content-Type": "application/json", "webhook-id": "msg-1"}


def refusal(url: str, *, seconds: float = 60, local: bool = False) -> str:
    with pytest.raises(FetchError) as caught:
        post(url, b"{}", HEADERS, deadline_seconds=seconds, local=local)
    return caught.value.reason


def receiver(seen: list[Any], answer: Handler) -> Handler:
    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        """Reads all first: a close with bytes unread would take the answer back."""
        body = b""
        while len(body) < int(headers.get("content-length", 0)):
            body += connection.recv(1000)
        seen.append((headers[":method"], path, body, headers))
        answer(connection, path, headers)

    return handler


def test_the_body_and_its_headers_arrive_once(world: World) -> None:
    seen: list[Any] = []
    world.stand(receiver(seen, lambda c, p, h: respond(c, status=204)))
    assert post(URL, b'{"a":1}', HEADERS, deadline_seconds=60) == Receipt(204, None)
    ((method, path, body, headers),) = seen
    assert (method, path, body) == ("POST", "/hook?x=1", b'{"a":1}')
    assert (headers["content-type"], headers["webhook-id"], headers["host"]) == (
        "application/json",
        "msg-1",
        "cdn.example.com",
    )
    assert (headers["accept-encoding"], headers["connection"]) == ("identity", "close")
    assert (headers["user-agent"], headers["accept"]) == (kling_relay.USER_AGENT, "*/*")


@pytest.mark.parametrize("status", [200, 299, 301, 400, 410, 429, 500, 503])
def test_every_status_is_told(status: int, world: World) -> None:
    world.stand(receiver([], lambda c, p, h: respond(c, status=status)))
    assert post(URL, b"{}", HEADERS, deadline_seconds=60) == Receipt(status, None)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        *(("0", 0), ("120", 120), (" 7 ", 7), ("999999999", 999_999_999), ("9999999999", None)),
        *((said, None) for said in ("", "-1", "1.5", "soon", "Wed, 21 Oct 2026 07:28:00 GMT")),
    ],
)
def test_how_long_to_stay_away(said: str, seconds: int | None, world: World) -> None:
    world.stand(receiver([], lambda c, p, h: respond(c, status=429, Retry_After=said)))
    assert post(URL, b"{}", HEADERS, deadline_seconds=60) == Receipt(429, seconds)


def test_a_redirect_is_an_answer_and_is_not_followed(world: World) -> None:
    seen: list[Any] = []
    world.stand(receiver(seen, to("https://other.example.com/elsewhere")))
    assert post(URL, b"{}", HEADERS, deadline_seconds=60).status == 302
    assert len(seen) == 1 and len(world.dialled) == 1


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_no_body_is_read(encoding: str, world: World) -> None:
    poured = SlowServer(lambda: None)

    def pieces(path: str) -> list[bytes]:
        return [b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\n\r\n" % encoding.encode(), *[b"x" * 100_000] * 300]

    world.stand(receiver([], poured.handler(pieces)))
    assert post(URL, b"{}", HEADERS, deadline_seconds=60).status == 200
    assert poured.was_left()


@pytest.mark.parametrize("more", [0, 1])
def test_an_answer_weighs_64_kib_at_most(more: int, world: World) -> None:
    line = b"X: " + b"x" * 1019 + b"\r\n"
    head = b"HTTP/1.1 204 X\r\n" + line * 63
    head += b"X: " + b"x" * (FRAME_BYTES + more - len(head) - 7) + b"\r\n\r\n"
    world.stand(receiver([], lambda connection, path, headers: connection.sendall(head)))
    if more:
        assert refusal(URL) == "too_large"
    else:
        assert post(URL, b"{}", HEADERS, deadline_seconds=60).status == 204


def test_a_receiver_that_says_nothing_is_left_at_the_deadline(world: World) -> None:
    world.stand(silence)
    assert refusal(URL, seconds=0.3) == "timeout"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://cdn.example.com/", "refused_url"),
        ("https://cdn.example.com:8443/", "refused_url"),
        ("https://inside.example.com/", "refused_address"),
        ("https://two-faced.example.com/", "refused_address"),
        ("https://127.0.0.1/", "refused_address"),
        ("https://missing.example.com/", "unresolved"),
        ("https://[cdn/", "refused_url"),
    ],
)
@pytest.mark.parametrize("local", [False, True])
def test_addresses_are_checked_as_everywhere(url: str, reason: str, local: bool, world: World) -> None:
    if local and "127.0.0.1" in url:
        reason = "network"  # tried: nobody listens at that port
    assert refusal(url, local=local) == reason
    assert bool(world.dialled) == (reason == "network")


def test_a_rehearsal_reaches_loopback_and_nothing_else_does(world: World) -> None:
    url = world.plain(receiver([], lambda c, p, h: respond(c, status=201)))
    assert post(url, b"{}", HEADERS, deadline_seconds=60, local=True) == Receipt(201, None)
    dialled = len(world.dialled)
    with pytest.raises(FetchError, match="refused_url"):
        post(url, b"{}", HEADERS, deadline_seconds=60)
    assert len(world.dialled) == dialled
