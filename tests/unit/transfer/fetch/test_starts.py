"""Test the first bytes of a file, from servers with and without support for ranges."""

import socket

import pytest
from kling_relay.transfer.fetch import read_start
from kling_relay.transfer.fetch_error import FetchError

from tests.support.loopback_servers import Handler, respond
from tests.unit.transfer.fetch.internet import World, to

pytestmark = pytest.mark.enable_socket

URL = "https://cdn.example.com/x.png"


def start(url: str = URL, *, size: int = 4) -> tuple[bytes, int | None]:
    return read_start(url, size=size, deadline_seconds=60)


def refusal(url: str = URL) -> tuple[str, int | None]:
    with pytest.raises(FetchError) as caught:
        start(url)
    return caught.value.reason, caught.value.status


def part(span: str, body: bytes = b"abcd") -> Handler:
    return lambda connection, path, headers: respond(connection, body, status=206, Content_Range=span)


def test_a_range_is_asked_for(world: World) -> None:
    asked: list[str] = []

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        asked.append(headers["range"])
        part("bytes 0-3/99")(connection, path, headers)

    world.stand(handler)
    assert start() == (b"abcd", 99) and asked == ["bytes=0-3"]


@pytest.mark.parametrize(
    ("handler", "length"),
    [
        (part("bytes 0-3/99"), 99),
        (part("bytes 0-3/4"), 4),
        (part(" bytes 0-3/* "), None),
        (lambda c, p, h: respond(c, b"abcdefgh"), 8),
        (lambda c, p, h: respond(c, b"abcdefgh", length=False), None),
        (
            lambda c, p, h: c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n"),
            None,
        ),
    ],
)
def test_no_more_than_the_start_and_the_length_of_the_whole(handler: Handler, length: int | None, world: World) -> None:
    world.stand(handler)
    assert start() == (b"abcd", length)


def test_a_file_that_is_shorter(world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection, b"abc"))
    assert start() == (b"abc", 3)


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (lambda c, p, h: respond(c, b"abc", length=False, Content_Length="9"), "truncated"),
        (part("bytes 0-3/9", b"abc"), "truncated"),
        (lambda c, p, h: c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"), "truncated"),
        *((part(span), "bad_response") for span in ("", "bytes 1-4/9", "bytes 0-3", "bytes 0-3/x", "0-3/9")),
        (lambda c, p, h: respond(c, b"abcd", Content_Encoding="gzip"), "bad_response"),
        (lambda c, p, h: respond(c, b"abcd", length=False, Content_Length="x"), "bad_response"),
    ],
)
def test_what_cannot_be_used(handler: Handler, reason: str, world: World) -> None:
    world.stand(handler)
    assert refusal() == (reason, None)


def test_other_answers_and_redirects_are_left(world: World) -> None:
    world.stand(to("https://other.example.com/"))
    assert refusal() == ("status", 302)
    assert refusal("http://cdn.example.com/") == ("refused_url", None)
    assert len(world.dialled) == 1
