"""Test redirects, and the operator's own origin."""

import socket
from typing import Any

import pytest
from kling_relay.transfer import fetch, pinned_connection
from kling_relay.transfer.fetch import open_url
from kling_relay.transfer.fetch_error import FetchError
from kling_relay.transfer.ssrf_rules import AddressError

from tests.support.loopback_servers import Handler, respond
from tests.unit.transfer.fetch.corpus import HOSTILE
from tests.unit.transfer.fetch.internet import PUBLIC, World, get, refusal, to

pytestmark = pytest.mark.enable_socket


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_five_redirects_are_followed_and_a_sixth_is_not(status: int, world: World) -> None:
    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        left = int(path.rsplit("/", 1)[1])
        respond(connection, b"end") if left == 0 else respond(connection, status=status, Location=f"{left - 1}")

    world.stand(handler)
    assert get("https://cdn.example.com/a/5") == b"end"
    assert refusal("https://cdn.example.com/a/6").reason == "bad_response"


def test_a_redirect_loop_ends(world: World) -> None:
    world.stand(to("https://cdn.example.com/"))
    assert refusal("https://cdn.example.com/").reason == "bad_response"
    assert len(world.dialled) == fetch.MAX_REDIRECTS + 1


def test_a_redirect_to_another_public_host_is_checked_against_that_host(world: World) -> None:
    world.stand(to("https://other.example.com/v.mp4"))
    world.stand(lambda connection, path, headers: respond(connection, path.encode()), name="other.example.com")
    assert get("https://cdn.example.com/") == b"/v.mp4"
    assert world.lookups == ["cdn.example.com", "other.example.com"]


@pytest.mark.parametrize("url", [url for url in HOSTILE if url.isascii() and url.isprintable() and ":" in url[:7]])
def test_a_redirect_to_a_hostile_url_goes_nowhere(url: str, world: World) -> None:
    world.stand(to(url))
    refusal("https://cdn.example.com/")
    assert {host for host, _ in world.dialled} == {PUBLIC}
    assert {port for _, port in world.dialled} == {443}


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/a b", "/a%20b"),
        (" https://cdn.example.com/b?x y ", "/b?x%20y"),
        ("HTTPS://CDN.EXAMPLE.COM/b", "/b"),
        ("/影".encode().decode("latin-1"), "/%E5%BD%B1"),
        ("/\xe9", "/%C3%A9"),
    ],
)
def test_an_unescaped_redirect_is_escaped_as_browsers_do(location: str, path: str, world: World) -> None:
    def handler(connection: socket.socket, asked: str, headers: dict[str, str]) -> None:
        if asked != "/":
            return respond(connection, asked.encode())
        return connection.sendall(f"HTTP/1.1 302 X\r\nLocation: {location}\r\n\r\n".encode("latin-1"))

    world.stand(handler)
    assert get("https://cdn.example.com/") == path.encode()


@pytest.mark.parametrize(
    "location",
    ["https://other.example.com/\tx", "https://other.exam\tple.com/", "https://other exam.com/", "\\\\x"],
)
def test_a_redirect_with_a_control_character_or_a_broken_host_is_not_repaired(location: str, world: World) -> None:
    world.stand(to(location))
    world.stand(lambda connection, path, headers: respond(connection, b"x"), name="other.example.com")
    assert refusal("https://cdn.example.com/").reason in ("bad_response", "refused_url")
    assert world.dialled == [(PUBLIC, 443)]


@pytest.mark.parametrize("location", ["", "https://cdn.example.com/\tx", "https://[", "//["])
def test_a_redirect_without_a_url(location: str, world: World) -> None:
    world.stand(to(location))
    assert refusal("https://cdn.example.com/").reason in ("bad_response", "refused_url")


# The operator's own origin


def test_the_trusted_origin_is_taken_as_it_is(world: World) -> None:
    origin = world.plain(lambda connection, path, headers: respond(connection, headers["host"].encode()))
    assert get(origin + "/v.mp4", trusted=origin) == origin.removeprefix("http://").encode()
    assert get(origin + "/v.mp4", trusted=origin + "/v1/") == origin.removeprefix("http://").encode()


def test_the_schemes_own_port_is_not_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = world.plain(lambda connection, path, headers: respond(connection, headers["host"].encode()))
    port = int(origin.rsplit(":", 1)[1])
    monkeypatch.setattr(pinned_connection, "dial", lambda ip_address, _, timeout: world.dial(ip_address, port, timeout))
    assert get("http://127.0.0.1/v.mp4", trusted="http://127.0.0.1") == b"127.0.0.1"


def test_every_other_host_is_told_and_may_be_refused(world: World) -> None:
    def check(host: str) -> None:
        told.append(host)
        if host == "other.example.com":
            raise AddressError("refused_host")

    world.stand(
        lambda connection, path, headers: respond(connection, status=302, Location="https://other.example.com/")
    )
    start = world.plain(to("https://cdn.example.com/"))
    told: list[str] = []
    limits: Any = {"max_bytes": 9, "deadline_seconds": 5, "trusted_origin": start}
    with pytest.raises(FetchError, match="refused_host"), open_url(start, **limits, check_host=check):
        pass
    assert told == ["cdn.example.com", "other.example.com"] and world.lookups == ["127.0.0.1", "cdn.example.com"]


@pytest.mark.parametrize(
    "change",
    [
        "http://localhost:{port}",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1:1",
        "http://127.0.0.2:{port}",
        "http://u@127.0.0.1:{port}",
    ],
)
def test_trust_holds_for_exactly_one_origin(change: str, world: World) -> None:
    origin = world.plain(lambda connection, path, headers: respond(connection, b"x"))
    port = origin.rsplit(":", 1)[1]
    assert refusal(change.format(port=port) + "/v", trusted=origin).reason == "refused_url"
    assert world.dialled == []


def test_a_redirect_within_the_trusted_origin_is_followed(world: World) -> None:
    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        respond(connection, b"end") if path == "/b" else respond(connection, status=302, Location="/b")

    origin = world.plain(handler)
    assert get(origin + "/a", trusted=origin) == b"end"


def test_a_redirect_away_from_the_trusted_origin_passes_all_rules(world: World) -> None:
    inner = world.plain(lambda connection, path, headers: respond(connection, b"inner"))
    origin = world.plain(to(inner + "/"))
    assert refusal(origin + "/", trusted=origin).reason == "refused_url"
    assert len(world.dialled) == 1


def test_a_stranger_may_not_redirect_into_the_trusted_origin(world: World) -> None:
    origin = world.plain(lambda connection, path, headers: respond(connection, b"inner"))
    world.stand(to(origin + "/"))
    assert refusal("https://cdn.example.com/", trusted=origin).reason == "refused_url"
    assert world.dialled == [(PUBLIC, 443)]


# The provider's key


def locked(seen: list[tuple[str, str | None]], then: str = "") -> Handler:
    """A server that gives a file, or a redirect, for the key alone. That relays answer 401 without it is a report about
    gateways of the OpenAI shape; the rest is a guess."""

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        seen.append((path, headers.get("authorization")))
        if headers.get("authorization") != "bearer the-key":
            return respond(connection, b"no", status=401)
        return respond(connection, status=302, Location=then) if then else respond(connection, b"file")

    return handler


def keyed(url: str, origin: str) -> bytes:
    limits: Any = {"max_bytes": 99, "deadline_seconds": 5, "trusted_origin": origin}
    with open_url(url, **limits, authorization=lambda: "Bearer the-key") as download:
        return download.read()


def test_the_trusted_origin_gets_the_key_after_a_401(world: World) -> None:
    seen: list[tuple[str, str | None]] = []
    origin = world.plain(locked(seen))
    assert keyed(origin + "/v", origin + "/kling/v1") == b"file"
    assert seen == [("/v", None), ("/v", "bearer the-key")]


def test_a_file_that_needs_no_key_gets_none(world: World) -> None:
    seen: list[str | None] = []

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        seen.append(headers.get("authorization"))
        respond(connection, b"file")

    origin = world.plain(handler)
    assert keyed(origin, origin) == b"file" and seen == [None]


def test_no_key_leaves_its_origin(world: World) -> None:
    """Neither to another origin nor along a redirect, be it back to the provider."""
    seen: list[tuple[str, str | None]] = []
    world.stand(locked(seen))
    origin = world.plain(locked(seen, then="https://cdn.example.com/signed"))
    with pytest.raises(FetchError, match="status"):
        keyed(origin + "/v", origin)
    assert seen == [("/v", None), ("/v", "bearer the-key"), ("/signed", None)]
    for stranger in ("https://cdn.example.com/v", origin.replace("127.0.0.1", "localhost") + "/v"):
        seen.clear()
        with pytest.raises(FetchError):
            keyed(stranger, origin)
        assert {key for _, key in seen} <= {None}


def test_no_key_is_sent_after_a_redirect_within_the_origin(world: World) -> None:
    seen: list[tuple[str, str | None]] = []

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        seen.append((path, headers.get("authorization")))
        respond(connection, status=302, Location="/b") if path == "/a" else respond(connection, status=401)

    origin = world.plain(handler)
    with pytest.raises(FetchError, match="status"):
        keyed(origin + "/a", origin)
    assert seen == [("/a", None), ("/b", None)]


@pytest.mark.parametrize("limits", [{"max_bytes": 0, "deadline_seconds": 1}, {"max_bytes": 1, "deadline_seconds": 0}])
def test_limits_that_cannot_be(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="positive"), open_url("https://cdn.example.com/", **limits):
        pass
