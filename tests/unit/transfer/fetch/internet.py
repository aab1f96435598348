"""Play an internet for tests of fetch: real sockets on loopback behind public names.

Only the resolver, the last step of dialling and the CA are replaced, so that public names and port 443 lead here while
every rule of the real code runs.
"""

import socket
from contextlib import ExitStack

import pytest
from kling_relay.transfer.fetch import open_url
from kling_relay.transfer.fetch_error import FetchError

from tests.support.loopback_servers import Authority, Handler, respond, serve

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


def get(url: str, *, limit: int = 1 << 20, seconds: float = 60, trusted: str | None = None, piece: int = 1000) -> bytes:
    with open_url(url, max_bytes=limit, deadline_seconds=seconds, trusted_origin=trusted) as download:
        return b"".join(iter(lambda: download.read(piece), b""))


def refusal(url: str, **more: object) -> FetchError:
    with pytest.raises(FetchError) as caught:
        get(url, **more)  # type: ignore[arg-type]
    return caught.value


def to(location: str, status: int = 302) -> Handler:
    return lambda connection, path, headers: respond(connection, status=status, Location=location)


def silence(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
    while connection.recv(1000):  # until it is left
        pass
