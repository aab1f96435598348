"""Test the allowed connections: hostile addresses get no connection, and certificates are checked."""

import socket
import ssl
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kling_relay.transfer import pinned_connection, ssrf_rules

from tests.support.loopback_servers import Authority, respond
from tests.unit.transfer.fetch.corpus import HOSTILE, LITERALS, NEIGHBOURS
from tests.unit.transfer.fetch.internet import PUBLIC, SECRET, World, get, refusal

pytestmark = pytest.mark.enable_socket


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_url_connects_nowhere(url: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda *args: connected.append(args))
    error = refusal(url)
    assert error.reason in ("refused_url", "refused_address", "unresolved")
    assert (world.dialled, connected) == ([], [])


def test_the_corpus_is_large() -> None:
    assert len(set(HOSTILE)) >= 150


@pytest.mark.parametrize("url", [None, 7, b"https://cdn.example.com/", ["https://cdn.example.com/"]])
def test_what_is_no_text_is_refused(url: object, world: World) -> None:
    assert refusal(url).reason == "refused_url"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://cdn.example.com", "/"),
        ("https://cdn.example.com/v.mp4", "/v.mp4"),
        ("HTTPS://CDN.Example.COM:443/V.mp4", "/V.mp4"),
        ("https://cdn.example.com/a%2Fb/c+d~e.mp4?sig=a%2Fb%3D%3D&x=1,2;3", "/a%2Fb/c+d~e.mp4?sig=a%2Fb%3D%3D&x=1,2;3"),
        ("https://cdn.example.com/v.mp4?next=http://127.0.0.1/@user", "/v.mp4?next=http://127.0.0.1/@user"),
        ("https://cdn.example.com/v.mp4#t=1", "/v.mp4"),
        ("https://cdn.example.com?X=1", "/?X=1"),
        ("https://cdn.example.com/视频.mp4", "/" + quote("视频") + ".mp4"),
        ("https://bücher.example/v.mp4", "/v.mp4"),
        (f"https://{PUBLIC}/v.mp4", "/v.mp4"),
        ("https://cdn.example.com/v?" + "a" * 4000, "/v?" + "a" * 4000),
    ],
)
def test_a_benign_url_is_fetched_from_the_checked_address(url: str, path: str, world: World) -> None:
    seen: list[tuple[str, str | None]] = []

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        seen.append((path, headers.get("accept-encoding")))
        respond(connection, b"video")

    host = (ssrf_rules.parse(url).host or "") if "bücher" not in url else "xn--bcher-kva.example"
    world.stand(handler, name=host)
    assert get(url) == b"video"
    assert seen == [(path, "identity")]
    assert world.dialled == [(PUBLIC, 443)]
    assert len(world.lookups) == 1


@pytest.mark.parametrize("literal", LITERALS)
def test_no_special_address_is_public(literal: str) -> None:
    assert not ssrf_rules.is_public(literal)


@pytest.mark.parametrize("literal", NEIGHBOURS)
def test_the_neighbours_of_special_ranges_are_public(literal: str) -> None:
    assert ssrf_rules.is_public(literal)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"https://[a-z0-9.:@%\[\]\\/#?-]{1,40}", fullmatch=True))
def test_the_parser_answers_or_refuses_and_nothing_else(url: str) -> None:
    try:
        parsed = ssrf_rules.parse(url)
    except ssrf_rules.AddressError as error:
        assert error.reason == "refused_url"
    else:
        assert parsed.auth is None
        assert ssrf_rules.origin(parsed)[1]


def test_the_real_resolver_gives_ipv4_alone() -> None:
    assert ssrf_rules.resolve("127.0.0.1") == ["127.0.0.1"]


def test_a_name_that_changes_its_address_is_asked_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    monkeypatch.setattr(ssrf_rules, "resolve", lambda host: next(answers))
    world.stand(lambda connection, path, headers: respond(connection, b"x"))
    assert get("https://cdn.example.com/") == b"x"
    assert world.dialled == [(PUBLIC, 443)]


def test_a_slow_name_server_ends_on_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    release, ended = threading.Event(), threading.Event()

    def slow(host: str) -> list[str]:
        release.wait(30)
        ended.set()
        return [PUBLIC]

    monkeypatch.setattr(ssrf_rules, "resolve", slow)
    assert refusal("https://cdn.example.com/", seconds=0.2).reason == "timeout"
    assert not ended.is_set()
    release.set()


# Certificates


def test_a_certificate_of_another_name_is_refused(world: World) -> None:
    served: list[str] = []
    world.stand(lambda connection, path, headers: served.append(path), certificate="evil.example.com")
    assert refusal(f"https://cdn.example.com/?{SECRET}").reason == "tls"
    assert served == []


def test_a_certificate_for_the_address_does_not_stand_for_the_name(world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection), certificate=PUBLIC)
    assert refusal("https://cdn.example.com/").reason == "tls"


def test_an_unknown_authority_is_refused(world: World, tmp_path: Path) -> None:
    world.authority = Authority(tmp_path)
    world.stand(lambda connection, path, headers: respond(connection))
    assert refusal("https://cdn.example.com/").reason == "tls"


def test_the_real_context_verifies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    context = pinned_connection.tls_context.__wrapped__()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert not context.hostname_checks_common_name
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.cert_store_stats()["x509_ca"] > 50
