"""Define servers that waste time, memory or bytes: random handlers, and faults before a handler is reached.

Each could go on forever. They stop when the client hangs up, or after `PATIENCE` seconds, which `outlasted` records. No
deadline is that long, even on a loaded machine.
"""

import gzip
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.support.loopback_servers import Authority, Handler, mp4, respond, serve

PATIENCE = 30.0
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"
VIDEO = mp4(60_000)
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


outlasted: list[str] = []
"""How servers gave up before their client did."""


def _drip(connection: socket.socket, data: bytes, dice: random.Random) -> None:
    """A few bytes now and then: each of them in time for any timeout of a socket."""
    ends, step, pause = time.monotonic() + PATIENCE, dice.choice([1, 2, 7]), threading.Event()
    for at in range(0, len(data), step):
        if time.monotonic() > ends:
            outlasted.append("dripped")
            break
        connection.sendall(data[at : at + step])
        pause.wait(dice.choice([0.01, 0.05, 0.1]))


def _pour(connection: socket.socket, data: bytes) -> None:
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        connection.sendall(data)
    outlasted.append("poured")


def _headers(dice: random.Random) -> Handler:
    head = dice.choice([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 Found\r\n"])
    return lambda c, p, h: _drip(c, head + b"X-Slow: " + b"1" * 60_000, dice)  # one: http.client takes a hundred


def _body(dice: random.Random) -> Handler:
    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        start, kind = dice.randrange(100), dice.choice(["length", "close", "chunks"])
        if kind == "chunks":
            connection.sendall(_CHUNKED)
            return _drip(connection, b"1\r\nx\r\n" * 2000, dice)
        announced = {"Content_Length": str(len(VIDEO))} if kind == "length" else {}
        respond(connection, VIDEO[:start], length=False, **announced)
        return _drip(connection, VIDEO[start:], dice)

    return handler


def _endless(dice: random.Random) -> Handler:
    """Without end: chunks, chunks of one byte with an extension, trailers after the last chunk, or no frame at all."""
    extended = b"1;" + b"x" * 60_000 + b"\r\n\0\r\n"
    trailers = b"X-Trailer: " + b"x" * 60_000 + b"\r\n"
    start, more = dice.choice(
        [
            (_CHUNKED, b"8000\r\n" + bytes(0x8000) + b"\r\n"),
            (_CHUNKED, extended),
            (_CHUNKED + b"4\r\n" + PNG[:4] + b"\r\n0\r\n", trailers),
            (b"HTTP/1.1 200 OK\r\n\r\n" + VIDEO[:-9], bytes(1 << 16)),
        ]
    )

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        connection.sendall(start)
        _pour(connection, more)

    return handler


def _bomb(dice: random.Random) -> Handler:
    bomb = gzip.compress(bytes(8 << 20))
    named = (
        {"Content_Encoding": dice.choice(["gzip", "GZIP", "x-gzip", "deflate", "br"])} if dice.random() < 0.6 else {}
    )
    return lambda c, p, h: respond(c, bomb, **named)


def _huge(dice: random.Random) -> Handler:
    length = str(dice.choice([10**9 + 1, 2**31, 2**32 - 1, 2**63 - 1, 10**17, 10**30]))

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        respond(connection, VIDEO[:1000], length=False, Content_Length=length)
        _pour(connection, bytes(1 << 16))

    return handler


def _wrong_length(dice: random.Random) -> Handler:
    lie = dice.choice([len(VIDEO) + 1, len(VIDEO) * 2, len(VIDEO) - 1, 8, 0, -1, "0x10", "6e4", "1, 2", " ", "１２"])
    return lambda c, p, h: c.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {lie}\r\n\r\n".encode() + VIDEO)


def _header_flood(dice: random.Random) -> Handler:
    """Long lines, many lines, a line without end, interim answers without end."""
    start, more = dice.choice(
        [
            (b"HTTP/1.1 200 OK\r\n", b"X-Flood: " + b"x" * 60_000 + b"\r\n"),
            (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100),
            (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65_536),
            (b"", b"HTTP/1.1 100 Continue\r\nX-Flood: " + b"x" * 60_000 + b"\r\n\r\n"),
            (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000),
        ]
    )

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        connection.sendall(start)
        _pour(connection, more)

    return handler


HANDLERS: dict[str, Callable[[random.Random], Handler]] = {
    "drips headers": _headers,
    "drips body": _body,
    "endless": _endless,
    "bomb": _bomb,
    "huge length": _huge,
    "wrong length": _wrong_length,
    "header flood": _header_flood,
}


@contextmanager
def _listener(talk: Callable[[socket.socket], None], backlog: int = 8) -> Iterator[int]:
    """The port of a listener that gives the first connection to `talk`."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:

        def one() -> None:
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    talk(connection)

        threading.Thread(target=one, daemon=True).start()
        yield listener.getsockname()[1]


def _stalled_handshake(dice: random.Random) -> Callable[[socket.socket], None]:
    hello = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + bytes(5000)
    return lambda connection: _drip(connection, hello[: dice.choice([0, 1, 5, 5000])] or b"", dice) or _hold(connection)


def _hold(connection: socket.socket) -> None:
    connection.settimeout(PATIENCE)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        outlasted.append("held")


@contextmanager
def hostile(kind: str, dice: random.Random, authority: Authority) -> Iterator[int]:
    """The port of a server of that kind, in front of `cdn.example.com`."""
    with ExitStack() as stack:
        if kind == "stalls TLS":
            yield stack.enter_context(_listener(_stalled_handshake(dice)))
        elif kind == "wrong certificate":
            name = dice.choice(["evil.example.com", "example.com", "*.com", "93.184.216.34"])
            yield stack.enter_context(serve(lambda c, p, h: respond(c, VIDEO), authority.server_context(name)))
        elif kind == "accepts late":
            with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
                port = listener.getsockname()[1]
                for _ in range(3):  # until the queue is full, and the next handshake is not answered
                    waiting = stack.enter_context(socket.socket())
                    waiting.setblocking(False)
                    waiting.connect_ex(("127.0.0.1", port))
                yield port
        else:
            tls: ssl.SSLContext = authority.server_context("cdn.example.com")
            yield stack.enter_context(serve(HANDLERS[kind](dice), tls))


KINDS = [*HANDLERS, "stalls TLS", "wrong certificate", "accepts late"]
