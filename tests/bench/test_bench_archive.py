"""Test bench/loopback.py: the copied file is a whole MP4, and the sink speaks S3."""

import hashlib
import json
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from kling_relay.media.mp4 import BoxWalk
from kling_relay.transfer import s3_copy

from bench import loopback

SIZE = 5_000_000
BODY = b"".join(loopback.video(SIZE))
TARGET = {"Bucket": "videos", "Key": "videos/tenant/task/0.mp4"}


@pytest.mark.parametrize("size", [300, (1 << 20) + 1, SIZE])
def test_a_video_is_whole_and_of_the_size_that_was_asked_for(size: int) -> None:
    walk, fed = BoxWalk(size, open_end=False), 0
    for piece in loopback.video(size):
        walk.feed(piece)
        fed += len(piece)
    walk.finish()
    assert fed == size


def test_the_source_sends_that_video_under_a_certificate_of_its_authority(tmp_path: Path) -> None:
    authority, certificate = loopback.certify(tmp_path)
    trust = ssl.create_default_context(cafile=str(authority))
    with (
        loopback.serving("source", str(certificate)) as port,
        urllib.request.urlopen(f"https://127.0.0.1:{port}/{SIZE}.mp4", context=trust) as answer,
    ):
        assert answer.headers["Content-Length"] == str(SIZE)
        assert hashlib.md5(answer.read()).hexdigest() == loopback.md5(SIZE) == hashlib.md5(BODY).hexdigest()


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with loopback.serving("sink", json.dumps({SIZE: loopback.md5(SIZE)})) as port:
        yield botocore.session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=s3_copy.client_config(),
        )


def test_the_sink_says_the_md5_of_an_object(s3: Any) -> None:
    assert s3.put_object(**TARGET, Body=BODY, IfNoneMatch="*")["ETag"].strip('"') == hashlib.md5(BODY).hexdigest()


def upload(s3: Any, *parts: bytes) -> dict[str, Any]:
    one = {**TARGET, "UploadId": s3.create_multipart_upload(**TARGET)["UploadId"]}
    etags = [s3.upload_part(**one, PartNumber=n, Body=part)["ETag"] for n, part in enumerate(parts, 1)]
    done = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]
    return s3.complete_multipart_upload(**one, MultipartUpload={"Parts": done})  # type: ignore[no-any-return]


def test_the_sink_takes_an_object_in_parts(s3: Any) -> None:
    assert upload(s3, BODY[:3_000_000], BODY[3_000_000:])["ETag"].strip('"') == hashlib.md5(BODY).hexdigest()


def test_the_sink_takes_no_part_of_a_video_for_one(s3: Any) -> None:
    for incomplete in (lambda: s3.put_object(**TARGET, Body=BODY[:-1]), lambda: upload(s3, BODY[:3_000_000])):
        with pytest.raises(ClientError, match="IncompleteBody"):
            incomplete()
