"""Copy videos in tests of archive.

The source is a scripted server on loopback (as the operator's trusted origin). The bucket is moto's S3 in this process,
or a sink behind real HTTP. Like S3, the sink stores nothing of a partial PUT. It can be told to misbehave.
"""

import hashlib
import socket
from typing import Any

import boto3
import pytest
from botocore.config import Config
from kling_relay.transfer.s3_copy import ArchiveError, StoredVideo, archive, client_config

from tests.support.loopback_servers import Handler, edges, mp4, respond

VIDEO = mp4(30_000)
STORED = StoredVideo("t1/0.mp4", len(VIDEO), hashlib.md5(VIDEO).hexdigest())
EDGES = edges(VIDEO)
NEAR_EDGES = sorted({at for edge in EDGES for at in range(edge - 1, edge + 9) if 0 < at < len(VIDEO)})


def client(port: int, config: Config | None = None) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=(config or client_config()).merge(
            Config(s3={"addressing_style": "path", "payload_signing_enabled": False})
        ),
    )


class Source:
    """Where the provider keeps the video: each path is one way of answering."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.extra: dict[str, Handler] = {}

    def __call__(self, connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        self.requests.append(path)
        kind, _, number = path.strip("/").partition("/")
        if kind in self.extra:
            self.extra[kind](connection, path, headers)
        elif kind == "whole":
            respond(connection, VIDEO)
        elif kind == "cut":  # a file that was cut before the source had it: its length is right
            respond(connection, VIDEO[: int(number)])
        elif kind == "lost":  # a connection that breaks
            respond(connection, VIDEO[: int(number)], length=False, Content_Length=str(len(VIDEO)))
        elif kind == "close":
            respond(connection, VIDEO[: int(number or len(VIDEO))], length=False)
        elif kind == "chunks":
            respond(connection, length=False, Transfer_Encoding="chunked")
            for at in range(0, len(VIDEO), 7000):
                piece = VIDEO[at : at + 7000]
                connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            connection.sendall(b"0\r\n\r\n")
        elif kind == "status":
            respond(connection, b"<Error>expired</Error>", status=int(number))


def copy(s3: Any, origin: str, path: str = "/whole", **more: Any) -> StoredVideo:
    limits = {"max_bytes": 1 << 20, "deadline_seconds": 10} | more
    return archive(s3, bucket="videos", key="t1/0.mp4", url=origin + path, trusted_origin=origin, **limits)


def failure(s3: Any, origin: str, path: str = "/whole", **more: Any) -> str:
    with pytest.raises(ArchiveError) as caught:
        copy(s3, origin, path, **more)
    assert str(caught.value) == caught.value.reason
    return caught.value.reason


def keys(s3: Any) -> list[str]:
    return [found["Key"] for found in s3.list_objects_v2(Bucket="videos").get("Contents", [])]
