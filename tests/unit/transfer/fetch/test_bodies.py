"""Test hostile bodies and answers: they end as short errors without data from the request."""

import http.client
import logging
import socket
import traceback

import pytest
from kling_relay.transfer.fetch import open_url
from kling_relay.transfer.fetch_error import FetchError

from tests.support.loopback_servers import Handler, respond
from tests.unit.transfer.fetch.internet import PUBLIC, SECRET, World, get, refusal, silence, to

pytestmark = pytest.mark.enable_socket


def test_length_type_and_pieces(world: World) -> None:
    world.stand(lambda c, p, h: respond(c, b"0123456789", Content_Type="video/mp4"))
    with open_url("https://cdn.example.com/", max_bytes=10, deadline_seconds=60) as download:
        assert (download.length, download.content_type, download.framed) == (10, "video/mp4", True)
        assert [download.read(4) for _ in range(4)] == [b"0123", b"4567", b"89", b""]


def test_chunks_are_joined_and_framed(world: World) -> None:
    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n")
        connection.sendall(b"" if path == "/cut" else b"0\r\n\r\n")

    world.stand(handler)
    assert get("https://cdn.example.com/whole") == b"abcdefg"
    assert refusal("https://cdn.example.com/cut").reason == "truncated"
    with open_url("https://cdn.example.com/", max_bytes=10, deadline_seconds=60) as download:
        assert (download.length, download.framed) == (None, True)


def test_an_end_of_connection_is_a_body_without_frame(world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection, b"abc", length=False))
    with open_url("https://cdn.example.com/", max_bytes=10, deadline_seconds=60) as download:
        assert (download.length, download.framed, download.read()) == (None, False, b"abc")


@pytest.mark.parametrize("sent", [0, 1, 500, 999])
def test_a_short_body_is_truncated(sent: int, world: World) -> None:
    world.stand(lambda c, p, h: respond(c, b"x" * sent, length=False, Content_Length="1000"))
    assert refusal("https://cdn.example.com/").reason == "truncated"


def test_an_announced_size_over_the_limit_is_not_read(world: World) -> None:
    world.stand(lambda c, p, h: respond(c, b"x", length=False, Content_Length="1001"))
    assert refusal("https://cdn.example.com/", limit=1000).reason == "too_large"


def test_an_endless_body_stops_at_the_limit(world: World) -> None:
    sent = 0

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        nonlocal sent
        respond(connection, length=False)
        while True:
            connection.sendall(b"x" * 10_000)
            sent += 10_000

    world.stand(handler)
    assert refusal("https://cdn.example.com/", limit=50_000, piece=1 << 30).reason == "too_large"
    assert sent < 20_000_000


def test_a_body_of_exactly_the_limit_passes(world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection, b"x" * 1000, length=path == "/length"))
    assert len(get("https://cdn.example.com/length", limit=1000)) == 1000
    assert len(get("https://cdn.example.com/none", limit=1000)) == 1000


def test_the_smallest_limits_are_limits(world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection, b"x"))
    assert get("https://cdn.example.com/", limit=1, seconds=1) == b"x"


def test_no_more_is_read_than_one_byte_over_the_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = http.client.HTTPResponse.read
    monkeypatch.setattr(http.client.HTTPResponse, "read", lambda one, size: (asked.append(size), real(one, size))[1])
    world.stand(lambda connection, path, headers: respond(connection, b"x" * 5000, length=False))
    with open_url("https://cdn.example.com/", max_bytes=1000, deadline_seconds=60) as download:
        assert len(download.read(600)) == 600
        with pytest.raises(FetchError, match="too_large"):
            download.read(-1)
    assert asked == [600, 401]


def test_a_mebibyte_a_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(http.client.HTTPResponse, "read", lambda _, size: (asked.append(size), b"x" * size)[1])
    world.stand(lambda connection, path, headers: respond(connection, length=False))
    with open_url("https://cdn.example.com/", max_bytes=1 << 30, deadline_seconds=60) as download:
        assert len(download.read()) == len(download.read(1 << 29)) == 1 << 20
    assert asked == [1 << 20] * 2


@pytest.mark.parametrize(("size", "got"), [(1, b"a"), (0, b"abc"), (-1, b"abc")])
def test_no_size_is_no_end(size: int, got: bytes, world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection, b"abc"))
    with open_url("https://cdn.example.com/", max_bytes=10, deadline_seconds=60) as download:
        assert (download.content_type, download.read(size)) == ("", got)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "GZIP", "identity, gzip", "aws-chunked,gzip"])
def test_encoded_bodies_are_refused(encoding: str, world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection, b"\x1f\x8b", Content_Encoding=encoding))
    assert refusal("https://cdn.example.com/").reason == "bad_response"


@pytest.mark.parametrize("name", ["Identity", "aws-chunked", "aws-chunked,", "utf-8", "none", "binary", "null", ""])
def test_a_name_of_no_encoding_is_ignored(name: str, world: World) -> None:
    """S3 keeps "aws-chunked" of some uploads; the others are guesses at what programs write."""
    world.stand(lambda connection, path, headers: respond(connection, b"x", Content_Encoding=name))
    assert get("https://cdn.example.com/") == b"x"


@pytest.mark.parametrize("length", ["-1", "abc", "1_0", "+5", "5, 6", "9" * 30, "5\r\nContent-Length: 6"])
def test_a_length_that_is_none_is_refused(length: str, world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection, b"12345", length=False, Content_Length=length))
    assert refusal("https://cdn.example.com/").reason == "bad_response"


@pytest.mark.parametrize("length", [True, False])
def test_a_206_that_holds_every_byte_is_the_file(length: bool, world: World) -> None:
    answer = {"status": 206, "Content_Range": "bytes 0-2/3", "length": length}
    world.stand(lambda connection, path, headers: respond(connection, b"abc", **answer))  # type: ignore[arg-type]
    assert get("https://cdn.example.com/") == b"abc"


@pytest.mark.parametrize("span", ["bytes 0-2/4", "bytes 1-3/4", "bytes 0-2/*", "bytes 0-3/4", "", "0-2/3"])
def test_a_206_that_holds_less_is_none(span: str, world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection, b"abc", status=206, Content_Range=span))
    assert refusal("https://cdn.example.com/").status == 206


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 401, 403, 404, 410, 429, 500, 503])
def test_other_answers_give_their_status(status: int, world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection, b"banner", status=status))
    error = refusal("https://cdn.example.com/")
    assert (error.reason, error.status, str(error)) == ("status", status, "status")


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"\0" * 100,
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200,
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000,
    ],
)
def test_what_is_not_http_is_a_network_error(garbage: bytes, world: World) -> None:
    world.stand(lambda connection, path, headers: connection.sendall(garbage))
    assert refusal("https://cdn.example.com/").reason == "network"


def test_nobody_listens(world: World) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        world.raw(PUBLIC, unused.getsockname()[1])
        assert refusal("https://cdn.example.com/").reason == "network"


@pytest.mark.parametrize(
    "handler",
    [
        lambda c, p, h: respond(c, b"leak-banner", status=500, Server="leak-banner"),
        lambda c, p, h: c.sendall(b"leak-banner"),
        lambda c, p, h: c.sendall(b"HTTP/1.1 200 leak-banner\r\nleak-banner\r\nContent-Length: 9\r\n\r\nx"),
        lambda c, p, h: respond(c, b"x", length=False, Content_Length="9"),
        lambda c, p, h: respond(c, b"x", length=False, Transfer_Encoding="chunked"),
        to("https://127.0.0.1/leak-banner"),
        to("https://missing.example.com/leak-banner"),
        to("https://[leak-banner/"),
        None,
    ],
)
def test_errors_and_logs_say_nothing(handler: Handler | None, world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    if handler:
        world.stand(handler)
    else:
        world.stand(silence, certificate="evil.example.com")
    url = f"https://cdn.example.com/path-part?{SECRET}"
    with pytest.raises(FetchError) as caught:
        get(url, limit=1 << 20)
        raise FetchError("network")  # one of the cases is a body that ends without frame: nothing to tell
    text = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(caught.value)
    for secret in (SECRET, "path-part", PUBLIC, "leak-banner", "missing.example", "evil.example"):
        assert secret not in text


def test_http_client_stays_as_it_was_found() -> None:
    assert http.client.HTTPConnection.debuglevel == 0
