"""Test the answers of S3, and the conclusions from them."""

import hashlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from kling_relay.transfer.s3_copy import StoredVideo

from tests.support.loopback_servers import S3Sink, mp4, respond
from tests.unit.transfer.s3_copy.copies import STORED, VIDEO, Source, client, copy, failure

pytestmark = pytest.mark.enable_socket


def test_nothing_is_overwritten(moto_s3: Any, source: Source, origin: str) -> None:
    other = mp4(20_000)
    moto_s3.put_object(Bucket="videos", Key="t1/0.mp4", Body=other)
    kept = copy(moto_s3, origin)
    assert kept == StoredVideo("t1/0.mp4", len(other), hashlib.md5(other).hexdigest())
    assert moto_s3.get_object(Bucket="videos", Key="t1/0.mp4")["Body"].read() == other


def test_what_players_and_caches_are_told(moto_s3: Any, origin: str) -> None:
    copy(moto_s3, origin)
    told = moto_s3.head_object(Bucket="videos", Key="t1/0.mp4")
    assert (told["ContentType"], told["CacheControl"]) == ("video/mp4", "max-age=300")
    assert told["ContentDisposition"] == 'inline; filename="t1-0.mp4"'


def test_what_lies_at_the_key_has_to_be_whole(s3: Any, sink: S3Sink, origin: str) -> None:
    sink.objects["t1/0.mp4"] = VIDEO[:-1]
    assert failure(s3, origin) == "checksum"
    assert sink.visible() == {"t1/0.mp4": VIDEO[:-1]}
    assert sink.deleted == []


def test_two_copiers_at_once_store_one_video(s3: Any, sink: S3Sink, source: Source, origin: str) -> None:
    both_read = threading.Barrier(2, timeout=10)

    def handler(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        respond(connection, VIDEO[:20_000], length=False, Content_Length=str(len(VIDEO)))
        both_read.wait()
        connection.sendall(VIDEO[20_000:])

    source.extra["both"] = handler
    with ThreadPoolExecutor(2) as pool:
        copies = list(pool.map(lambda _: copy(s3, origin, "/both"), range(2)))
    assert copies == [STORED, STORED]
    assert sink.visible() == {"t1/0.mp4": VIDEO}
    assert sink.received == [len(VIDEO)] * 2


def test_a_put_whose_answer_is_lost_is_found(s3: Any, sink: S3Sink, origin: str) -> None:
    sink.lose_answer = True
    assert copy(s3, origin) == STORED
    assert len(sink.puts) == 1


def test_a_stored_video_outlives_its_source(s3: Any, sink: S3Sink, origin: str) -> None:
    sink.objects["t1/0.mp4"] = VIDEO
    assert copy(s3, origin, "/status/403") == STORED


@pytest.mark.parametrize("status", [403, 500, 503])
def test_storage_that_refuses(status: int, s3: Any, sink: S3Sink, source: Source, origin: str) -> None:
    sink.refuse = status
    assert failure(s3, origin) == "storage"
    assert len(sink.puts) == 1
    sink.refuse = None
    assert copy(s3, origin) == STORED


def test_storage_that_is_away(origin: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert failure(client(unused.getsockname()[1]), origin) == "storage"


def test_an_etag_that_is_no_md5_is_settled_by_reading_back(s3: Any, sink: S3Sink, origin: str) -> None:
    sink.etag = "kms-etag"
    assert copy(s3, origin) == STORED
    assert sink.deleted == []


def test_a_different_object_is_deleted_by_its_version(s3: Any, sink: S3Sink, origin: str) -> None:
    sink.etag, sink.corrupt = "kms-etag", True
    assert failure(s3, origin) == "checksum"
    assert len(sink.deleted) == 1
    assert sink.deleted[0].startswith("t1/0.mp4?")
    assert "versionId=v1" in sink.deleted[0]
    assert sink.visible() == {}


def test_a_delete_is_tried_again(s3: Any, sink: S3Sink, origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sink.etag, sink.corrupt = "kms-etag", True
    genuine, tries = s3.delete_object, []

    def flaky(**target: str) -> Any:
        tries.append(target)
        if len(tries) < 3:
            raise ClientError(
                {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "DeleteObject"
            )
        return genuine(**target)

    monkeypatch.setattr(s3, "delete_object", flaky)
    assert failure(s3, origin) == "checksum"
    assert sink.visible() == {}


def test_nothing_is_deleted_that_could_not_be_read(
    s3: Any, sink: S3Sink, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.etag = "kms-etag"

    def denied(**target: str) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "GetObject")

    monkeypatch.setattr(s3, "get_object", denied)
    assert failure(s3, origin) == "storage"
    assert sink.visible() == {"t1/0.mp4": VIDEO}
    assert sink.deleted == []


def test_a_version_that_we_wrote_is_deleted_and_no_other(moto_s3: Any, origin: str) -> None:
    moto_s3.put_bucket_versioning(Bucket="videos", VersioningConfiguration={"Status": "Enabled"})
    other, ours = boto3.client("s3", region_name="us-east-1"), []

    def spoil(parsed: dict[str, Any], **_: Any) -> None:
        ours.append(parsed["VersionId"])
        parsed["ETag"] = '"other"'
        other.put_object(Bucket="videos", Key="t1/0.mp4", Body=mp4(5000))  # somebody else's, and newer

    moto_s3.meta.events.register("after-call.s3.PutObject", spoil)
    moto_s3.meta.events.register("after-call.s3.GetObject", lambda parsed, **_: parsed.update(ContentLength=100))
    assert failure(moto_s3, origin) == "checksum"
    left = other.list_object_versions(Bucket="videos")
    assert len(left["Versions"]) == 1
    assert left["Versions"][0]["VersionId"] != ours[0]
    assert "DeleteMarkers" not in left


def test_a_put_answered_before_its_end_is_not_believed(
    s3: Any, sink: S3Sink, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "put_object", lambda **call: {"VersionId": "v7"})
    monkeypatch.setattr(
        s3,
        "get_object",
        lambda **call: (_ for _ in ()).throw(
            ClientError({"Error": {"Code": "NoSuchKey"}, "ResponseMetadata": {"HTTPStatusCode": 404}}, "GetObject")
        ),
    )
    assert failure(s3, origin) == "storage"
