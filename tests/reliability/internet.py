"""Play an internet for campaigns: scripted DNS, servers behind port 443, and a record of all connection attempts.

Only the resolver, the network below `socket` and the CA are replaced.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kling_relay.transfer import pinned_connection

from tests.reliability.hostile_urls import words
from tests.support.loopback_servers import Authority, Handler, respond, serve

PUBLIC = ("93.184.216.34", "93.184.216.35", "1.1.1.1", "8.8.8.8")
NEIGHBOURS = words("""
    11.0.0.0 9.255.255.255 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0
    172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.3.0 192.31.195.255 192.52.194.0 192.88.98.255
    192.167.255.255 192.169.0.0 192.175.49.0 198.17.255.255 198.20.0.0 198.51.99.255 203.0.112.255 203.0.114.0
    223.255.255.255 168.63.129.15 168.63.129.17 1.0.0.0
""")
"""Addresses beside the special ranges, where anybody may have a server."""

NAMES = ["cdn.example.com", "img.example.com", "xn--bcher-kva.example", "a_b.example.com", "v16-kling-fdl.klingai.com"]
Answers = list[str] | Callable[[], list[str]]


class Internet:
    """`names`: what the resolver answers. `connected`: what was connected to, or tried. `looked_up`: names asked
    for. `patience`: the timeouts (s) of the connections to public addresses."""

    def __init__(self, authority: Authority) -> None:
        self.names: dict[str, Answers] = {name: [PUBLIC[0]] for name in NAMES}
        self.names |= {"localhost": ["127.0.0.1"], "other.example.com": [PUBLIC[1]]}
        self.connected: list[tuple[str, int]] = []
        self.looked_up: list[str] = []
        self.patience: list[float] = []
        self.handler: Handler = lambda connection, path, headers: respond(connection, b"benign")
        self.ports: dict[str, int] = {}
        self.ours: set[int] = set()  # ports of a test's own servers on loopback: reached, and not recorded
        self.context = pinned_connection.trusting(str(authority.pem))
        self._connect, self._getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def stand(self, stack: ExitStack, authority: Authority) -> None:
        """One server, told apart by nothing, behind every public address."""
        tls = authority.server_context(*self.names, "rebind.example.com", *PUBLIC, *NEIGHBOURS)
        port = stack.enter_context(serve(lambda *request: self.handler(*request), tls))
        self.ports |= dict.fromkeys((*PUBLIC, *NEIGHBOURS), port)

    def connect(self, sock: socket.socket, address: Any) -> None:
        if address[0] == "127.0.0.1" and address[1] in self.ours:
            return self._connect(sock, address)
        self.connected.append(address[:2])
        self.patience.append(sock.gettimeout() or 0)
        if address[1] == 443 and address[0] in self.ports:
            return self._connect(sock, ("127.0.0.1", self.ports[address[0]]))
        raise ConnectionRefusedError(111, "nobody there")

    def getaddrinfo(self, host: Any, port: Any, family: int = 0, kind: int = 0, proto: int = 0, flags: int = 0) -> Any:
        with contextlib.suppress(OSError, UnicodeError):  # the C library's own idea of a number
            return self._getaddrinfo(host, port, family, kind, proto, flags | socket.AI_NUMERICHOST)
        self.looked_up.append(host)
        answers = self.names.get(str(host).lower(), [])
        answers = answers() if callable(answers) else answers
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, port or 0)) for answer in answers]

    def forget(self) -> None:
        self.connected.clear()
        self.looked_up.clear()
        self.patience.clear()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(Path(tmp_path_factory.mktemp("ca")))


@pytest.fixture
def internet(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    made = Internet(authority)
    with ExitStack() as stack:
        made.stand(stack, authority)
        monkeypatch.setattr(socket.socket, "connect", lambda sock, address: made.connect(sock, address))
        monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
        monkeypatch.setattr(pinned_connection, "tls_context", lambda: made.context)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        yield made
