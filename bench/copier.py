"""Copy videos from the source to the sink of `loopback`, in an interpreter that has the function's packages.

    python -S copier.py AUTHORITY SOURCE-PORT SINK-PORT [WAY BYTES]    without the last two: reads both from each line

Prints the wall-clock and the CPU seconds of each copy. The implementations: `relay` is our code. `pump` is the minimum:
two sockets and no HTTP library. `checked` is `pump` with an MD5 of the data, as our code has it.
"""

import hashlib
import socket
import ssl
import sys
import time
from typing import Any

import certifi

HOST = "127.0.0.1"
BLOCK = 1 << 17  # bytes, as botocore sends them


class Copier:
    def __init__(self, authority: str, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        self._tls = ssl.create_default_context(cafile=authority)
        certifi.where = lambda: authority

    def relay(self, size: int) -> None:
        from kling_relay.lifecycle import archive
        from kling_relay.services import get_services
        from kling_relay.transfer import s3_copy

        origin = f"https://{HOST}:{self._source}"
        s3_copy.archive(
            get_services().archive_s3,
            bucket="videos",
            key=f"videos/tenant/task/{size}.mp4",
            url=f"{origin}/{size}.mp4",
            max_bytes=archive.MAX_VIDEO_BYTES,
            deadline_seconds=300,
            trusted_origin=origin,
        )

    def pump(self, size: int, digest: Any = None) -> None:
        with (
            socket.create_connection((HOST, self._source)) as plain,
            self._tls.wrap_socket(plain, server_hostname=HOST) as incoming,
            socket.create_connection((HOST, self._sink)) as outgoing,
        ):
            incoming.sendall(f"GET /{size}.mp4 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            if not incoming.recv(BLOCK).endswith(b"\r\n\r\n"):  # one record of TLS, which holds the head alone
                raise RuntimeError("the source sent no complete header")
            outgoing.sendall(f"PUT /videos/{size}.mp4 HTTP/1.1\r\nContent-Length: {size}\r\n\r\n".encode())
            buffer, left, filled = memoryview(bytearray(BLOCK)), size, 0
            while left:
                while filled < min(BLOCK, left):  # a call returns at most 16 KiB; sending a whole block is faster
                    got = incoming.recv_into(buffer[filled:])
                    if not got:
                        raise RuntimeError("the source ended early")
                    filled += got
                outgoing.sendall(buffer[:filled])
                if digest is not None:
                    digest.update(buffer[:filled])
                left, filled = left - filled, 0
            if not outgoing.recv(BLOCK).startswith(b"HTTP/1.1 200 "):
                raise RuntimeError("the sink refused the video")

    def checked(self, size: int) -> None:
        self.pump(size, hashlib.md5(usedforsecurity=False))


if __name__ == "__main__":
    copier = Copier(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    for line in [" ".join(sys.argv[4:])] if sys.argv[4:] else sys.stdin:
        way, length = line.split()
        wall, cpu = time.perf_counter(), time.process_time()
        getattr(copier, way)(int(length))
        print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)
