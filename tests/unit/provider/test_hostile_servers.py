"""Test a paid POST against hostile servers and broken networks: one POST, one class of outcome, in time."""

import gzip
import json
import socket
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from kling_relay.provider import client as module
from kling_relay.provider import http
from kling_relay.provider.outcomes import (
    Accepted,
    AccountBlocked,
    Found,
    Misconfigured,
    NotSent,
    QueryFailed,
    Refused,
    Throttled,
    Unknown,
)
from kling_relay.transfer import pinned_connection

from tests.support.loopback_servers import Authority, respond
from tests.support.provider_calls import KEY, post, provider_at, scripted_server
from tests.support.timed_servers import Deadlines, SlowServer, byte_by_byte

pytestmark = pytest.mark.enable_socket

ACCEPTED = {"code": 0, "message": "SUCCEED", "data": {"task_id": "7", "task_status": "submitted"}}


FULL = {"code": 1303, "message": "parallel task over resource pack limit", "request_id": "9984d27b"}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, ACCEPTED, Accepted),
        (201, ACCEPTED, Accepted),
        (200, {"id": "task_1", "object": "video", "status": "queued"}, Accepted),
        (200, {"code": 0, "data": None}, Unknown),
        (200, {"code": 0, "data": {"task_id": ""}}, Unknown),
        (200, [], Unknown),
        (200, b"", Unknown),
        (200, b"\xff\xfe{}", Unknown),
        (200, b"[" * 100_000, Unknown),
        (200, {"code": 1303, "message": "full"}, Throttled),
        (200, {"code": 1301, "message": "policy"}, Refused),
        (200, {"code": 1102, "message": "used up"}, AccountBlocked),
        (500, {"code": 1201, "message": "bad"}, Unknown),  # a relay may have tried another account before
        (503, {"code": 1303, "message": "full"}, Unknown),
        (
            503,
            {"code": 5001, "message": "maintenance"},
            Throttled,
        ),  # of the official host alone: test_provider_answers.py
        (200, {"id": "req_1", "error": {"message": "timed out"}}, Unknown),
        (400, {"error": {"message": "bad"}, "request": {"deep": [{"task_id": "1"}]}}, Unknown),
        (429, {"code": 1303, "message": "full", "data": {"task_id": "1"}}, Unknown),
        (200, {"code": 0, "data": {"task_id": 0}}, Unknown),
        (200, {"code": 0, "data": {"id": "null"}}, Unknown),
        (400, {"code": 5000, "message": "inside"}, Unknown),
        (400, {"code": "invalid_request", "message": "bad"}, Refused),
        (400, {"error": {"message": "bad", "type": "invalid_request_error"}}, Refused),
        (400, {"code": 400, "message": "bad"}, Refused),
        (500, {"code": "do_request_failed", "message": "bad"}, Unknown),
        # Relays that flatten Kling's 1303: surely refused, so it can only be worth waiting.
        (400, {"code": "task_failed", "message": "parallel task over resource pack limit"}, Throttled),
        (400, {"code": "fail_to_fetch_task", "message": f"upstream: {json.dumps(FULL)}"}, Throttled),
        (400, {"error": {"message": "Parallel task over resource pack limit.", "type": "new_api_error"}}, Throttled),
        (400, {"code": "task_failed", "message": "resource pack exhausted"}, Refused),
        (400, {"code": 1201, "message": "prompt: parallel task over resource pack limit"}, Refused),
        (409, {"code": "task_failed", "message": "parallel task over resource pack limit"}, Unknown),
        (500, {"code": "fail_to_fetch_task", "message": "parallel task over resource pack limit"}, Unknown),
        (429, {"code": 1100, "message": "account"}, AccountBlocked),
        (429, {"code": 1304, "message": "address"}, AccountBlocked),
        (429, b"slow down", Throttled),
        (401, b"", AccountBlocked),
        (402, {}, AccountBlocked),
        (403, b"<html>", Refused),
        (404, b"<html>", Refused),
        (408, b"", Unknown),
        (409, {}, Unknown),
        (413, b"", Refused),
        (425, b"", Unknown),
        (502, b"<html>", Unknown),
        (524, ACCEPTED, Unknown),
    ],
)
def test_what_an_answer_means(status: int, body: Any, kind: type) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with scripted_server(lambda connection, *_: respond(connection, raw, status=status)) as (provider, seen):
        outcome = post(provider)
    assert isinstance(outcome, kind)
    assert seen == [f"POST /v1/videos/image2video bearer {KEY}"]


@pytest.mark.parametrize(
    ("body", "too_fast"), [({"code": 1302, "message": "slow"}, True), ({"code": 1303}, False), (b"slow down", True)]
)
def test_haste_is_told_from_want_of_room(body: Any, too_fast: bool) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with scripted_server(lambda connection, *_: respond(connection, raw, status=429)) as (provider, _):
        outcome = post(provider)
    assert isinstance(outcome, Throttled) and outcome.too_fast is too_fast


def test_the_words_of_a_refusal_are_bounded_and_can_be_stored() -> None:
    raw = b'{"code":1201,"message":"' + b"x" * 499 + b'\\ud83d and more"}'
    with scripted_server(lambda connection, *_: respond(connection, raw, status=400)) as (provider, _):
        assert post(provider).error.message == "x" * 499 + "?"
    raw = b'{"code":1201,"message":{"deep":["est"]}}'
    with scripted_server(lambda connection, *_: respond(connection, raw, status=400)) as (provider, _):
        assert post(provider).error.message == "no reason given"


@pytest.mark.parametrize("location", ["/elsewhere", "http://127.0.0.1:1/", "http://[", "", "https://evil.example/%zz"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int, location: str) -> None:
    with scripted_server(lambda connection, *_: respond(connection, status=status, Location=location)) as (
        provider,
        seen,
    ):
        assert isinstance(post(provider), Unknown if status == 303 else Misconfigured)  # 303: it was carried out
        assert isinstance(provider.query("image2video", "1"), QueryFailed)
    assert len(seen) == 2


def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with scripted_server(lambda connection, *_: respond(connection, bomb, Content_Encoding="gzip")) as (provider, _):
        assert isinstance(post(provider), Unknown)


@pytest.mark.parametrize("headers", [{"Content_Encoding": "gzip"}, {}])
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_packed_answer_is_read(pack: Any, headers: dict[str, str]) -> None:
    """That edges compress unasked, with or without the header, is a guess from reports about CDNs."""
    packed = pack(json.dumps(ACCEPTED).encode())
    with scripted_server(lambda c, p, h: respond(c, packed, **headers)) as (provider, requests):
        assert isinstance(post(provider), Accepted) and isinstance(provider.query("image2video", "7"), Found)
    assert len(requests) == 2
    with scripted_server(lambda c, p, h: respond(c, packed[:-5], **headers)) as (provider, _):
        assert post(provider) == Unknown("HTTP 200 without a readable body")
    with scripted_server(lambda c, p, h: respond(c, pack(json.dumps(FULL).encode()), status=429)) as (provider, _):
        assert isinstance(post(provider), Throttled)


def test_a_huge_answer_is_read_in_part() -> None:
    sent = 0

    def flood(connection: socket.socket, *_: Any) -> None:
        nonlocal sent
        respond(connection, length=False)
        while True:
            sent += connection.send(b" " * 65536)

    with scripted_server(flood) as (provider, _):
        assert isinstance(post(provider, seconds=10), Unknown)
    assert sent < http.MAX_ANSWER_BYTES * 8  # what was read, and the buffers of two sockets


def says_nothing(connection: socket.socket, *_: Any) -> None:
    connection.recv(1)


def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that calls of the provider trust, instead of the world's."""
    authority = Authority(tmp_path)
    context = pinned_connection.trusting(str(authority.pem))
    monkeypatch.setattr(pinned_connection, "tls_context", lambda: context)
    return authority


@pytest.fixture
def deadlines(monkeypatch: pytest.MonkeyPatch) -> Deadlines:
    """Those of http.py: each call makes one, and one more for each connection. All other limits are out of the way."""
    made = Deadlines()
    monkeypatch.setattr(http, "Deadline", made)
    monkeypatch.setattr(http, "CONNECT_SECONDS", 300)
    monkeypatch.setattr(module, "QUERY_SECONDS", 200)
    return made


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    "pieces",
    [
        byte_by_byte(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 60),
        byte_by_byte(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 500),
        [b"HTTP/1.1 100 Continue\r\n\r\n"] * 500,
    ],
    ids=["header", "body", "interim answers"],
)
def test_a_server_that_takes_its_time(
    pieces: list[bytes], tls: bool, deadlines: Deadlines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left when the deadline of the call passes, though each piece comes in time for the socket."""
    authority = trusted(tmp_path, monkeypatch)
    slow = SlowServer(lambda: deadlines.let_pass(-2))
    context = authority.server_context("127.0.0.1") if tls else None
    with scripted_server(slow.handler(lambda path: pieces), context) as (provider, seen):
        assert isinstance(post(provider, 100), Unknown) and slow.was_left()
        assert isinstance(provider.query("image2video", "1"), QueryFailed) and slow.was_left()
    assert len(seen) == 2
    assert deadlines.asked == [400, 300, 500, 300]
    assert deadlines.passed == [True, False, True, False]


@pytest.mark.parametrize("tls", [False, True])
def test_a_server_that_says_nothing(
    tls: bool, deadlines: Deadlines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket's own timeout ends that, before any deadline."""
    authority = trusted(tmp_path, monkeypatch)
    monkeypatch.setattr(module, "QUERY_SECONDS", 0.2)
    with scripted_server(says_nothing, authority.server_context("127.0.0.1") if tls else None) as (provider, _):
        assert isinstance(post(provider, 0.2), Unknown)
        assert isinstance(provider.query("image2video", "1"), QueryFailed)
    assert deadlines.passed == [False] * 4


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000,
    ],
)
def test_what_is_no_http(raw: bytes) -> None:
    with scripted_server(lambda connection, *_: connection.sendall(raw)) as (provider, seen):
        assert isinstance(post(provider), Unknown)
    assert len(seen) == 1


# -- networks: nothing was sent


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_connection_that_is_refused_was_not_sent() -> None:
    provider = provider_at(f"http://127.0.0.1:{closed_port()}")
    assert isinstance(post(provider), NotSent)
    assert isinstance(provider.query("image2video", "1"), QueryFailed)


def test_a_name_that_does_not_resolve_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def gai(*_: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", gai)
    assert post(provider_at("https://provider.example")) == NotSent("gaierror")


def test_a_certificate_that_nobody_vouches_for_was_not_sent(tmp_path: Path) -> None:
    with scripted_server(says_nothing, Authority(tmp_path).server_context("127.0.0.1")) as (provider, seen):
        outcome = post(provider)
    assert isinstance(outcome, NotSent)
    assert "SSLCertVerificationError" in outcome.reason
    assert seen == []


def refuses(connection: socket.socket, *_: Any) -> None:
    respond(connection, b'{"code":1201,"message":"no"}', status=400)


def test_a_certificate_of_another_name_was_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor after calls that went well: all connections share one context."""
    authority = trusted(tmp_path, monkeypatch)
    with scripted_server(refuses, authority.server_context("127.0.0.1")) as (provider, _):
        assert [type(post(provider)) for _ in range(2)] == [Refused, Refused]
    with scripted_server(refuses, authority.server_context("evil.example.com")) as (provider, seen):
        outcome = post(provider)
    assert isinstance(outcome, NotSent) and "SSLCertVerificationError" in outcome.reason
    assert seen == []


def test_a_handshake_that_drips_was_not_sent(deadlines: Deadlines) -> None:
    slow = SlowServer(lambda: deadlines.let_pass(-1))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as connection:
                slow.send(connection, byte_by_byte(b"\x16\x03\x03\x3f\xff", bytes(500)))

        threading.Thread(target=answer, daemon=True).start()
        assert isinstance(post(provider_at(f"https://127.0.0.1:{listener.getsockname()[1]}")), NotSent)
        assert slow.was_left()
    assert deadlines.passed == [False, True]
