"""Connect to the IP address that was checked, with verified TLS and a limit on received bytes."""

import http.client
import io
import socket
import ssl
from functools import cache
from typing import Any

import certifi

from kling_relay.transfer.deadline import Deadline
from kling_relay.transfer.fetch_error import FetchError
from kling_relay.transfer.ssrf_rules import Origin

CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0  # the longest silence; below S3's own limit for an idle upload, since a download feeds one
FRAME_BYTES = 1 << 16  # for everything in a response except its body: its head, and the framing of chunks


def dial(ip_address: str, port: int, timeout: float) -> socket.socket:
    """Open a TCP connection to a checked IP address. `timeout` in seconds."""
    return socket.create_connection((ip_address, port), timeout)


@cache
def tls_context() -> ssl.SSLContext:
    """Return one TLS context for all connections, since loading the roots costs more than a request."""
    return trusting(certifi.where())


def trusting(roots: str) -> ssl.SSLContext:
    """Build a context that verifies chain, dates, purpose and name against `roots` (a PEM file), alike on every Python.

    Calls to the provider (provider/http.py), result files, images and webhooks use it. The flags are set here because a
    default may change: Python 3.13's `create_default_context` adds VERIFY_X509_STRICT, botocore's calls to AWS do not
    have it. A strict client rejects a chain only for its form. Without that flag the proof is as strong, because only
    authorities in `roots` can have signed the chain. With it, a paid video on such a server would be lost. test_tls.py
    compares all clients.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and name
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST
    context.hostname_checks_common_name = False
    context.load_verify_locations(roots)
    return context


class Metered(io.RawIOBase):
    """Limit the bytes of a connection.

    http.client accepts megabytes of header lines, and counts neither interim responses nor the framing of chunks.
    """

    def __init__(self, source: io.RawIOBase, maximum: int) -> None:
        self._source, self._left = source, maximum

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        got = self._source.readinto(memoryview(buffer)[: self._left + 1])
        self._left -= got or 0
        if self._left < 0:
            raise FetchError("too_large")
        return got

    def close(self) -> None:
        self._source.close()
        super().close()


class PinnedConnection(http.client.HTTPConnection):
    """Connect to the checked address. Host header, SNI and certificate check use the name."""

    def __init__(self, origin: Origin, ip_address: str, deadline: Deadline, max_bytes: int) -> None:
        scheme, host, port = origin
        self.default_port = 443 if scheme == "https" else 80
        super().__init__(host, port)
        self._tls, self._address, self._deadline = scheme == "https", ip_address, deadline
        self._most = max_bytes + FRAME_BYTES

    def response_class(  # type: ignore[override]
        self, sock: socket.socket, *args: Any, **kwargs: Any
    ) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *args, **kwargs)
        response.fp = io.BufferedReader(Metered(response.fp.detach(), self._most))
        return response

    def connect(self) -> None:
        self.sock = dial(self._address, self.port, min(CONNECT_SECONDS, self._deadline.seconds_left()))
        self._deadline.guard(self.sock)
        self.sock.settimeout(READ_SECONDS)
        if self._tls:
            self.sock = tls_context().wrap_socket(self.sock, server_hostname=self.host)
