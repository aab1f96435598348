"""Serve on 127.0.0.1 for tests of fetch and archive: scripted HTTP, TLS with a test CA, a sink that speaks S3."""

import datetime
import hashlib
import ipaddress
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Handler = Callable[[socket.socket, str, dict[str, str]], None]
_SIGNS = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # certificates and CRLs


def box(kind: bytes, payload: bytes = b"", *, long: bool = False, to_end: bool = False) -> bytes:
    if to_end:
        return bytes(4) + kind + payload
    if long:
        return b"\0\0\0\1" + kind + (16 + len(payload)).to_bytes(8) + payload
    return (8 + len(payload)).to_bytes(4) + kind + payload


def mp4(size: int = 3000) -> bytes:
    """Return a file with the box structure of a video, `size` bytes long."""
    head = box(b"ftyp", b"isom\0\0\2\0isomiso2") + box(b"free")
    tail = box(b"moov", b"m" * 200)
    return head + box(b"mdat", b"\x5a" * (size - len(head) - len(tail) - 16), long=True) + tail


def edges(video: bytes) -> list[int]:
    """Return the offsets of the top-level boxes of `mp4()`, and the end."""
    at, found = 0, [0]
    while at < len(video):
        size = int.from_bytes(video[at : at + 4])
        at += int.from_bytes(video[at + 8 : at + 16]) if size == 1 else size
        found.append(at)
    return found


def respond(
    connection: socket.socket, body: bytes = b"", *, status: int = 200, length: bool = True, **headers: str
) -> None:
    lines = [f"HTTP/1.1 {status} X", "Connection: close", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 50


@contextmanager
def serve(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Run `handler(connection, path, headers)` for every request; yield the port."""

    class One(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError, ValueError):
                connection = tls.wrap_socket(self.request, server_side=True) if tls else self.request
                with connection:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        piece = connection.recv(1)
                        if not piece:
                            return
                        head += piece
                    first, *lines = head.decode("latin-1").strip().split("\r\n")
                    headers = dict(line.lower().split(": ", 1) for line in lines)
                    handler(connection, first.split(" ")[1], headers | {":method": first.split(" ")[0]})

    with _Server(("127.0.0.1", 0), One) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class Authority:
    """Hold a CA for this test run and sign server certificates.

    They have the form of RFC 5280 that strict verification requires. A `sloppy` one lacks the authority key identifier.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        critical = (x509.BasicConstraints(ca=True, path_length=0), _SIGNS)
        self._certificate = self._sign(self._name, self._key, dict.fromkeys(critical, True))
        self.pem = folder / "ca.pem"
        self.pem.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject: x509.Name, key: Any, extensions: dict[x509.ExtensionType, bool]) -> x509.Certificate:
        """Sign a certificate. `extensions`: the extension -> whether it is critical."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        for extension, critical in extensions.items():
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256())

    def server_context(self, *names: str, sloppy: bool = False) -> ssl.SSLContext:
        """Return a context with one certificate for all `names`, which may be IPv4 addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        entries = [
            x509.IPAddress(ipaddress.ip_address(name)) if name.replace(".", "").isdigit() else x509.DNSName(name)
            for name in names
        ]
        extensions: dict[x509.ExtensionType, bool] = {
            x509.SubjectAlternativeName(entries): False,
            x509.BasicConstraints(ca=False, path_length=None): True,
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]): False,
        }
        if not sloppy:
            extensions[x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())] = False
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        certificate = self._sign(subject, key, extensions)
        path = self._folder / f"{names[0]}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


class S3Sink:
    """Play the needed part of S3 over HTTP: PUT with If-None-Match, GET, DELETE. A partial PUT stores nothing.

    `etag`: answered instead of the MD5. `lose_answer`: store, then close the connection. `refuse`: status for every
    PUT. `corrupt`: flip the first byte of the stored payload. `keep`: False stores the size only.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts: list[dict[str, str]] = []
        self.received: list[int] = []
        self.deleted: list[str] = []
        self.etag: str | None = None
        self.lose_answer = self.corrupt = False
        self.refuse: int | None = None
        self.keep = True
        self.sent = self._handled = 0  # requests: started by the client, completed here
        self._lock = threading.Condition()

    def visible(self) -> dict[str, bytes]:
        """Return the stored objects, after every sent request has completed."""
        with self._lock:
            assert self._lock.wait_for(lambda: self._handled == self.sent, timeout=60)
            return dict(self.objects)

    def __call__(self, connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        key, _, query = path.removeprefix("/videos/").partition("?")
        answer = {"PUT": self._put, "GET": self._get, "DELETE": self._delete}[headers[":method"]]
        try:
            answer(connection, key, headers, query)
        finally:
            with self._lock:
                self._handled += 1
                self._lock.notify_all()

    def _error(self, connection: socket.socket, status: int, code: str) -> None:
        respond(connection, f"<Error><Code>{code}</Code><Message>x</Message></Error>".encode(), status=status)

    def _put(self, connection: socket.socket, key: str, headers: dict[str, str], query: str) -> None:
        self.puts.append(headers)
        if self.refuse:
            return self._error(connection, self.refuse, "SlowDown")
        if headers.get("expect"):
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        left, digest, parts = int(headers["content-length"]), hashlib.md5(), []
        try:
            while left and (piece := connection.recv(min(left, 1 << 16))):
                left -= len(piece)
                digest.update(piece)
                parts += [piece] if self.keep else []
        finally:
            self.received.append(int(headers["content-length"]) - left)
        if left:
            return None  # S3 stores nothing of a partial body
        with self._lock:
            if headers.get("if-none-match") == "*" and key in self.objects:
                return self._error(connection, 412, "PreconditionFailed")
            body = b"".join(parts)
            self.objects[key] = body[:-1] + b"?" if self.corrupt else body
        if self.lose_answer:
            return None
        return respond(connection, ETag=f'"{self.etag or digest.hexdigest()}"', x_amz_version_id="v1")

    def _get(self, connection: socket.socket, key: str, headers: dict[str, str], query: str) -> None:
        if key not in self.objects:
            return self._error(connection, 404, "NoSuchKey")
        return respond(connection, self.objects[key])

    def _delete(self, connection: socket.socket, key: str, headers: dict[str, str], query: str) -> None:
        self.deleted.append(f"{key}?{query}")
        self.objects.pop(key, None)
        respond(connection, status=204)
