"""Fetching from strangers: hostile addresses connect nowhere, hostile servers end on time and say nothing in errors.

The servers are real sockets on loopback; only the resolver, the last step of dialling and the CA are replaced, so that
public names and port 443 lead here while every rule of the real code runs.
"""

import http.client
import logging
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kling_relay import address, fetch
from kling_relay.fetch import FetchError, open_url

from tests.unit.loopback import Authority, Handler, drip, respond, serve

pytestmark = pytest.mark.enable_socket

PUBLIC = "93.184.216.34"
SECRET = "X-Signature=s3cr3t"
NAMES = {
    "cdn.example.com": [PUBLIC],
    "other.example.com": ["93.184.216.35"],
    "xn--bcher-kva.example": [PUBLIC],
    "two-faced.example.com": [PUBLIC, "10.0.0.1"],
    "inside.example.com": ["10.1.2.3"],
    "localhost": ["127.0.0.1"],
    "localtest.me": ["127.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
}


class World:
    """The internet of a test: which server stands behind port 443, and what was dialled."""

    def __init__(self, authority: Authority, stack: ExitStack) -> None:
        self.authority = authority
        self.dialled: list[tuple[str, int]] = []
        self.lookups: list[str] = []
        self._stack = stack
        self._ports: dict[str, int] = {}

    def stand(self, handler: Handler, *, name: str = "cdn.example.com", certificate: str | None = None) -> None:
        context = self.authority.server_context(certificate or name)
        self._ports[NAMES.get(name, [name])[0]] = self._stack.enter_context(serve(handler, context))

    def plain(self, handler: Handler) -> str:
        return f"http://127.0.0.1:{self._stack.enter_context(serve(handler))}"

    def raw(self, ip_address: str, port: int) -> None:
        self._ports[ip_address] = port

    def resolve(self, host: str) -> list[str]:
        self.lookups.append(host)
        if host.replace(".", "").isdigit():
            return [host]
        if host not in NAMES:
            raise socket.gaierror(socket.EAI_NONAME, f"{host} is unknown")
        return NAMES[host]

    def dial(self, ip_address: str, port: int, timeout: float) -> socket.socket:
        self.dialled.append((ip_address, port))
        if port == 443 and ip_address in self._ports:
            return socket.create_connection(("127.0.0.1", self._ports[ip_address]), timeout)
        return socket.create_connection((ip_address, port), timeout)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def world(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    context = ssl.create_default_context(cafile=str(authority.pem))
    with ExitStack() as stack:
        made = World(authority, stack)
        monkeypatch.setattr(address, "resolve", made.resolve)
        monkeypatch.setattr(fetch, "dial", made.dial)
        monkeypatch.setattr(fetch, "tls_context", lambda: context)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        yield made


def get(url: str, *, limit: int = 1 << 20, seconds: float = 5, trusted: str | None = None, piece: int = 1000) -> bytes:
    with open_url(url, max_bytes=limit, deadline_seconds=seconds, trusted_origin=trusted) as download:
        return b"".join(iter(lambda: download.read(piece), b""))


def refusal(url: str, **more: object) -> FetchError:
    with pytest.raises(FetchError) as caught:
        get(url, **more)  # type: ignore[arg-type]
    return caught.value


def words(text: str) -> list[str]:
    return text.split()


# What may be connected to

LITERALS = words("""
    127.0.0.1 127.0.0.2 127.255.255.255 0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200
    100.127.255.255 169.254.169.254 169.254.170.2 169.254.0.1 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.8
    192.0.0.9 192.0.0.170 192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.1
    192.168.255.255 192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255
    240.0.0.1 255.255.255.255 168.63.129.16
""")
NEIGHBOURS = words("""
    1.1.1.1 8.8.8.8 11.0.0.1 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.1.1 172.15.0.1 172.32.0.0
    192.0.1.1 192.167.1.1 192.169.0.1 198.17.0.1 198.20.0.1 223.255.255.255 168.63.129.15
""")
HOSTILE = [
    *(f"https://{literal}/v.mp4" for literal in LITERALS),
    # other spellings of an IPv4 address
    *(f"https://{host}/v.mp4" for host in words("""
        2130706433 0x7f000001 017700000001 127.1 127.0.1 0177.0.0.1 0x7f.0.0.1 0x7f.1 127.0.0.01 010.0.0.1
        1.1 0 0x0 00000000 127.0.0.1. 127.0.0.0x1 3232235521 4294967295 4294967296 1.2.3 1.2.3.4.5
        256.256.256.256 999.1.1.1 08.8.8.8 0xa9fea9fe 2852039166 169.16689662 1.0x a.0x1 cdn.example.123
    """)),
    # IPv6, and IPv4 inside of it
    *(f"https://[{host}]/v.mp4" for host in words("""
        ::1 :: ::ffff:127.0.0.1 ::ffff:7f00:1 ::127.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::
        fec0::1 fe80::1 fe80::1%25eth0 fd00:ec2::254 fc00::1 2606:4700:4700::1111 v1.x
    """)),
    "https://::1/v.mp4",
    # names that lead inside, in whole or in part
    *(f"https://{host}/v.mp4" for host in words("""
        localhost LOCALHOST localtest.me metadata.google.internal inside.example.com two-faced.example.com
    """)),
    # scheme and port
    *(f"{scheme}://cdn.example.com/v.mp4" for scheme in words("""
        http ftp file gopher ws wss data javascript s3 httpss dict ldap jar unix
    """)),
    *(f"https://cdn.example.com:{port}/v.mp4" for port in words("""
        80 22 0 444 8443 6379 9001 65535 65536 -1 x 4430 443x ４４３
    """)),
    "file:///etc/passwd", "//cdn.example.com/v.mp4", "cdn.example.com/v.mp4", "/v.mp4", "", "https", "https:",
    "https:/", "https://", "https:///v.mp4", "https:cdn.example.com", "https:/cdn.example.com/", "https://:443/",
    "https://?x", "https://#",
    "data:text/html,x", "http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:9001/2018-06-01/",
    # userinfo and what hides a host
    "https://user@cdn.example.com/", "https://user:pass@cdn.example.com/", "https://@cdn.example.com/",
    "https://:@cdn.example.com/", "https://cdn.example.com@127.0.0.1/", "https://127.0.0.1@cdn.example.com/",
    "https://cdn.example.com:443@127.0.0.1/", "https://a@b@cdn.example.com/", "https://cdn.example.com\\@127.0.0.1/",
    "https://127.0.0.1\\.example.com/", "https:\\\\cdn.example.com/", "https://cdn.example.com\\v.mp4",
    "https://127.0.0.1#@cdn.example.com/", "https://127.0.0.1?@cdn.example.com/", "https://localhost/@cdn.example.com",
    "https://127.0.0.1%23@cdn.example.com/", "https://%31%32%37.0.0.1/", "https://localhost%00.example.com/",
    "https://cdn.example.com%2f@127.0.0.1/", "https://cdn%2eexample%2ecom/",
    # control characters, blanks, lookalikes
    "https://cdn.example.com/\r\nHost: 127.0.0.1", "https://cdn.example.com/\nx", "https://cdn.example.com/\tx",
    "https://cdn.example.com/a b", " https://cdn.example.com/", "https://cdn.example.com/ ", "https://cdn.example.com/\x00",
    "https://cdn.example.com/\x7f", "https://cdn.example.com/\x85", "https://cdn.example.com/\u2028x",
    "ht\ntps://cdn.example.com/",
    "https://cdn.exa\u00admple.com/", "https://１２７.0.0.1/", "https://127。0。0。1/", "https://①②⑦.0.0.1/", "https://ⓛocalhost/",
    "https://cdn.example.com\u3000/", "https://\u202elocalhost/",
    # names that are none
    "https://cdn..example.com/", "https://.example.com/", "https://cdn.example.com./", "https://-cdn.example.com/",
    "https://cdn-.example.com/", f"https://{'a' * 64}.example.com/", f"https://{'a.' * 130}com/",
    "https://cdn_example!.com/",
    "https://cdn.example.com,127.0.0.1/", "https://cdn.example.com;127.0.0.1/", "https://*/", "https://{cdn}.example.com/",
    "https://cdn.example.com/" + "a" * 9000, "https://not-there.example.com/v.mp4",
]  # fmt: skip


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

    host = (address.parse(url).host or "") if "bücher" not in url else "xn--bcher-kva.example"
    world.stand(handler, name=host)
    assert get(url) == b"video"
    assert seen == [(path, "identity")]
    assert world.dialled == [(PUBLIC, 443)]
    assert len(world.lookups) == 1


@pytest.mark.parametrize("literal", LITERALS)
def test_no_special_address_is_public(literal: str) -> None:
    assert not address.is_public(literal)


@pytest.mark.parametrize("literal", NEIGHBOURS)
def test_the_neighbours_of_special_ranges_are_public(literal: str) -> None:
    assert address.is_public(literal)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"https://[a-z0-9.:@%\[\]\\/#?-]{1,40}", fullmatch=True))
def test_the_parser_answers_or_refuses_and_nothing_else(url: str) -> None:
    try:
        parsed = address.parse(url)
    except address.AddressError as error:
        assert error.reason == "refused_url"
    else:
        assert parsed.auth is None
        assert address.origin(parsed)[1]


def test_the_real_resolver_gives_ipv4_alone() -> None:
    assert address.resolve("127.0.0.1") == ["127.0.0.1"]


def test_a_name_that_changes_its_address_is_asked_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    monkeypatch.setattr(address, "resolve", lambda host: next(answers))
    world.stand(lambda connection, path, headers: respond(connection, b"x"))
    assert get("https://cdn.example.com/") == b"x"
    assert world.dialled == [(PUBLIC, 443)]


def test_a_slow_name_server_ends_on_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(address, "resolve", lambda host: release.wait(5) and [PUBLIC])
    started = time.monotonic()
    assert refusal("https://cdn.example.com/", seconds=0.2).reason == "timeout"
    assert time.monotonic() - started < 1
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
    context = fetch.tls_context.__wrapped__()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.cert_store_stats()["x509_ca"] > 50


# Hostile bodies


def test_length_type_and_pieces(world: World) -> None:
    world.stand(lambda c, p, h: respond(c, b"0123456789", Content_Type="video/mp4"))
    with open_url("https://cdn.example.com/", max_bytes=10, deadline_seconds=5) as download:
        assert (download.length, download.content_type, download.framed) == (10, "video/mp4", True)
        assert [download.read(4) for _ in range(4)] == [b"0123", b"4567", b"89", b""]


def test_chunks_are_joined_and_framed(world: World) -> None:
    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n")
        connection.sendall(b"" if path == "/cut" else b"0\r\n\r\n")

    world.stand(handler)
    assert get("https://cdn.example.com/whole") == b"abcdefg"
    assert refusal("https://cdn.example.com/cut").reason == "truncated"
    with open_url("https://cdn.example.com/", max_bytes=10, deadline_seconds=5) as download:
        assert (download.length, download.framed) == (None, True)


def test_an_end_of_connection_is_a_body_without_frame(world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection, b"abc", length=False))
    with open_url("https://cdn.example.com/", max_bytes=10, deadline_seconds=5) as download:
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


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "GZIP", "identity, gzip"])
def test_encoded_bodies_are_refused(encoding: str, world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection, b"\x1f\x8b", Content_Encoding=encoding))
    assert refusal("https://cdn.example.com/").reason == "bad_response"


def test_the_identity_encoding_is_none(world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection, b"x", Content_Encoding="Identity"))
    assert get("https://cdn.example.com/") == b"x"


@pytest.mark.parametrize("length", ["-1", "abc", "1_0", "+5", "5, 6", "9" * 30, "5\r\nContent-Length: 6"])
def test_a_length_that_is_none_is_refused(length: str, world: World) -> None:
    world.stand(lambda connection, path, headers: respond(connection, b"12345", length=False, Content_Length=length))
    assert refusal("https://cdn.example.com/").reason == "bad_response"


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


# Time

DEADLINE = 0.4


def _drip_headers(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
    drip(connection, b"HTTP/1.1 200 OK\r\n" + b"X-Slow: 1\r\n" * 200)


def _drip_body(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
    respond(connection, length=False, **({"Content_Length": "5000"} if path == "/length" else {}))
    drip(connection, b"x" * 5000)


def _drip_chunks(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
    respond(connection, length=False, Transfer_Encoding="chunked")
    drip(connection, b"1\r\nx\r\n" * 2000)


def _silence(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
    threading.Event().wait(3)


SLOW = [_drip_headers, _drip_body, _drip_chunks, _silence]


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


def test_slow_redirects_share_one_deadline(world: World) -> None:
    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        threading.Event().wait(DEADLINE * 0.7)
        respond(connection, status=302, Location="/again")

    world.stand(handler)
    _ends_on_time("https://cdn.example.com/")


def test_no_thread_and_no_socket_stays(world: World) -> None:
    before = threading.active_count()
    world.stand(lambda connection, path, headers: respond(connection, b"x"))
    running = threading.active_count()
    opened: list[socket.socket] = []
    dial = fetch.dial
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "dial", lambda *args: opened.append(dial(*args)) or opened[-1])
        with open_url("https://cdn.example.com/", max_bytes=10, deadline_seconds=60):
            pass
    assert [sock.fileno() for sock in opened] == [-1]
    for _ in range(100):
        if threading.active_count() <= running:
            break
        time.sleep(0.01)
    assert threading.active_count() <= running >= before


# Redirects


def _to(location: str, status: int = 302) -> Handler:
    return lambda connection, path, headers: respond(connection, status=status, Location=location)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_two_redirects_are_followed_and_a_third_is_not(status: int, world: World) -> None:
    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        left = int(path.rsplit("/", 1)[1])
        respond(connection, b"end") if left == 0 else respond(connection, status=status, Location=f"{left - 1}")

    world.stand(handler)
    assert get("https://cdn.example.com/a/2") == b"end"
    assert refusal("https://cdn.example.com/a/3").reason == "bad_response"


def test_a_redirect_loop_ends(world: World) -> None:
    world.stand(_to("https://cdn.example.com/"))
    assert refusal("https://cdn.example.com/").reason == "bad_response"
    assert len(world.dialled) == fetch.MAX_REDIRECTS + 1


def test_a_redirect_to_another_public_host_is_checked_against_that_host(world: World) -> None:
    world.stand(_to("https://other.example.com/v.mp4"))
    world.stand(lambda connection, path, headers: respond(connection, path.encode()), name="other.example.com")
    assert get("https://cdn.example.com/") == b"/v.mp4"
    assert world.lookups == ["cdn.example.com", "other.example.com"]


@pytest.mark.parametrize("url", [url for url in HOSTILE if url.isascii() and url.isprintable() and ":" in url[:7]])
def test_a_redirect_to_a_hostile_url_goes_nowhere(url: str, world: World) -> None:
    world.stand(_to(url))
    refusal("https://cdn.example.com/")
    assert {host for host, _ in world.dialled} == {PUBLIC}
    assert {port for _, port in world.dialled} == {443}


@pytest.mark.parametrize("location", ["https://other.example.com/\tx", "https://other.exam\tple.com/", "/a b", "\\\\x"])
def test_a_redirect_with_a_blank_is_not_repaired(location: str, world: World) -> None:
    world.stand(_to(location))
    world.stand(lambda connection, path, headers: respond(connection, b"x"), name="other.example.com")
    assert refusal("https://cdn.example.com/").reason == "bad_response"
    assert world.dialled == [(PUBLIC, 443)]


@pytest.mark.parametrize("location", ["", "https://cdn.example.com/\tx", "https://[", "//["])
def test_a_redirect_without_a_url(location: str, world: World) -> None:
    world.stand(_to(location))
    assert refusal("https://cdn.example.com/").reason in ("bad_response", "refused_url")


# The operator's own origin


def test_the_trusted_origin_is_taken_as_it_is(world: World) -> None:
    origin = world.plain(lambda connection, path, headers: respond(connection, headers["host"].encode()))
    assert get(origin + "/v.mp4", trusted=origin) == origin.removeprefix("http://").encode()
    assert get(origin + "/v.mp4", trusted=origin + "/v1/") == origin.removeprefix("http://").encode()


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
    origin = world.plain(_to(inner + "/"))
    assert refusal(origin + "/", trusted=origin).reason == "refused_url"
    assert len(world.dialled) == 1


def test_a_stranger_may_not_redirect_into_the_trusted_origin(world: World) -> None:
    origin = world.plain(lambda connection, path, headers: respond(connection, b"inner"))
    world.stand(_to(origin + "/"))
    assert refusal("https://cdn.example.com/", trusted=origin).reason == "refused_url"
    assert world.dialled == [(PUBLIC, 443)]


@pytest.mark.parametrize("limits", [{"max_bytes": 0, "deadline_seconds": 1}, {"max_bytes": 1, "deadline_seconds": 0}])
def test_limits_that_cannot_be(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="positive"), open_url("https://cdn.example.com/", **limits):
        pass


# Silence


@pytest.mark.parametrize(
    "handler",
    [
        lambda c, p, h: respond(c, b"leak-banner", status=500, Server="leak-banner"),
        lambda c, p, h: c.sendall(b"leak-banner"),
        lambda c, p, h: c.sendall(b"HTTP/1.1 200 leak-banner\r\nleak-banner\r\nContent-Length: 9\r\n\r\nx"),
        lambda c, p, h: respond(c, b"x", length=False, Content_Length="9"),
        lambda c, p, h: respond(c, b"x", length=False, Transfer_Encoding="chunked"),
        _to("https://127.0.0.1/leak-banner"),
        _to("https://missing.example.com/leak-banner"),
        _to("https://[leak-banner/"),
        None,
    ],
)
def test_errors_and_logs_say_nothing(handler: Handler | None, world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    if handler:
        world.stand(handler)
    else:
        world.stand(_silence, certificate="evil.example.com")
    url = f"https://cdn.example.com/path-part?{SECRET}"
    with pytest.raises(FetchError) as caught:
        get(url, limit=1 << 20)
        raise FetchError("network")  # one of the cases is a body that ends without frame: nothing to tell
    text = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(caught.value)
    for secret in (SECRET, "path-part", PUBLIC, "leak-banner", "missing.example", "evil.example"):
        assert secret not in text


def test_http_client_stays_as_it_was_found() -> None:
    assert http.client.HTTPConnection.debuglevel == 0
