"""Serve on 127.0.0.1, each server in its own process and fast: a source of videos, a sink that speaks S3, a table.

    python -m bench.loopback source CERTIFICATE        videos of any size at /{bytes}.mp4
    python -m bench.loopback table CERTIFICATE         answers every request with `{}`, over TLS
    python -m bench.loopback sink '{"5000000": md5}'   the sizes of whole videos; other sizes are not stored

Each server prints its port. It ends when its standard input closes, and so with the process that started it. The sink
counts bytes and stores none. It receives the MD5s in advance, because computing them here would distort the
measurement.
"""

import datetime
import hashlib
import ipaddress
import json
import os
import random
import re
import secrets
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_BLOCK = random.Random(0).randbytes(1 << 20)  # nosec B311 # noqa: S311
_MOOV = bytes(200)


def video(size: int) -> Iterator[bytes]:
    """Yield an MP4 of exactly `size` bytes in pieces: `ftyp`, `moov`, and an `mdat` that repeats one block."""
    boxes = ((b"ftyp", b"isom\0\0\2\0isomiso2"), (b"moov", _MOOV))
    head = b"".join((8 + len(payload)).to_bytes(4) + kind + payload for kind, payload in boxes)
    left = size - len(head)
    yield head + b"\0\0\0\1mdat" + left.to_bytes(8)
    left -= 16
    while left:
        yield _BLOCK[:left]
        left -= min(left, len(_BLOCK))


def md5(size: int) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in video(size):
        digest.update(piece)
    return digest.hexdigest()


@contextmanager
def serving(*arguments: str) -> Iterator[int]:
    """Start a source, a table or a sink, and yield its port."""
    command = [sys.executable, "-m", "bench.loopback", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline())  # type: ignore[union-attr]
        finally:
            process.kill()


def certify(folder: Path) -> tuple[Path, Path]:
    """Create an authority, and a certificate and key for 127.0.0.1 signed by it; all are valid for a day.

    Both have the form of RFC 5280, which `ssl.create_default_context` requires since Python 3.13.
    """
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("bench authority", "source")]
    signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # certificates and CRLs
    extensions: list[list[x509.ExtensionType]] = [
        [x509.BasicConstraints(ca=True, path_length=0), signs],
        [x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])],
    ]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key())
    now = datetime.datetime.now(datetime.UTC)
    signed = []
    for key, name, own in zip(keys, names, extensions, strict=True):
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(names[0]).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        for extension in own:
            builder = builder.add_extension(extension, critical=True)
        for extension in (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), issuer):
            builder = builder.add_extension(extension, critical=False)
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
        made = builder.not_valid_after(now + datetime.timedelta(days=1)).sign(keys[0], hashes.SHA256())
        signed.append(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    key_pem = keys[1].private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    authority, server = folder / "authority.pem", folder / "source.pem"
    authority.write_bytes(signed[0])
    server.write_bytes(key_pem + signed[1])
    return authority, server


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 50
    tls: ssl.SSLContext
    known: dict[int, str]  # bytes -> MD5 of whole videos
    uploads: dict[str, dict[str, int]]  # upload -> part -> bytes


class _Source(socketserver.BaseRequestHandler):
    """Serve one video per connection."""

    server: _Server

    def handle(self) -> None:
        with suppress(OSError), self.server.tls.wrap_socket(self.request, server_side=True) as connection:
            head = connection.recv(1 << 14)  # one record of TLS, as every client sends it
            size = int(head.split(b" ", 2)[1].strip(b"/").removesuffix(b".mp4"))
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
            for piece in video(size):
                connection.sendall(piece)


class _Table(socketserver.BaseRequestHandler):
    """Play a DynamoDB table without rows."""

    server: _Server

    def handle(self) -> None:
        with suppress(OSError), self.server.tls.wrap_socket(self.request, server_side=True) as connection:
            while request := connection.recv(1 << 16):
                if b"\r\n\r\n" in request:  # the head; the body may arrive in a later record
                    length = int(request.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                    body = request.partition(b"\r\n\r\n")[2]
                    while len(body) < length:
                        body += connection.recv(1 << 16)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


class _Sink(socketserver.BaseRequestHandler):
    """Serve PutObject and the calls of a multipart upload. An object exists only if a whole known video arrived."""

    server: _Server

    def handle(self) -> None:
        buffer = memoryview(bytearray(1 << 20))
        with suppress(OSError), self.request.makefile("rb", buffering=1 << 16) as incoming:
            while request := incoming.readline().decode():
                head = {name.lower(): value.strip() for name, value in _headers(incoming)}
                if "expect" in head:
                    self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                size = left = int(head.get("content-length", "0"))
                while left:
                    got = incoming.readinto1(buffer[:left])
                    if not got:
                        return
                    left -= got
                self._answer(request, size)

    def _answer(self, request: str, size: int) -> None:
        verb, target, _ = request.split(" ")
        query = dict(re.findall(r"[?&](\w+)=?([^&]*)", target))
        uploads = self.server.uploads
        if verb == "POST" and "uploads" in query:
            upload = secrets.token_hex(8)
            uploads[upload] = {}
            return self._say(200, body=f"<R><UploadId>{upload}</UploadId></R>")
        if verb == "PUT" and "partNumber" in query:
            uploads[query["uploadId"]][query["partNumber"]] = size
            return self._say(200, "part")
        if verb == "POST":
            size = sum(uploads.pop(query["uploadId"]).values())
        if verb in ("PUT", "POST") and size in self.server.known:
            etag = self.server.known[size]
            return self._say(200, etag, f"<R><ETag>{etag}</ETag></R>" if verb == "POST" else "")
        return self._say(400, body="<Error><Code>IncompleteBody</Code><Message>no such video</Message></Error>")

    def _say(self, status: int, etag: str = "", body: str = "") -> None:
        head = f'HTTP/1.1 {status} X\r\nETag: "{etag}"\r\nContent-Length: {len(body)}\r\n\r\n'
        self.request.sendall((head + body).encode())


def _headers(incoming: BinaryIO) -> Iterator[tuple[str, str]]:
    while line := incoming.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        yield name, value


def _end_with_the_input() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    kind, argument = sys.argv[1:]
    threading.Thread(target=_end_with_the_input, daemon=True).start()
    with _Server(("127.0.0.1", 0), {"source": _Source, "table": _Table, "sink": _Sink}[kind]) as server:
        if kind != "sink":
            server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.tls.load_cert_chain(argument)
        else:
            server.known = {int(size): known for size, known in json.loads(argument).items()}
            server.uploads = {}
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
