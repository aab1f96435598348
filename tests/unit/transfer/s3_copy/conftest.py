"""Provide the source of a video, and the target buckets."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from kling_relay.transfer.s3_copy import client_config
from moto import mock_aws

from tests.support.loopback_servers import S3Sink, serve
from tests.unit.transfer.s3_copy.copies import Source, client


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def origin(source: Source) -> Iterator[str]:
    with serve(source) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def sink() -> S3Sink:
    return S3Sink()


@pytest.fixture
def s3(sink: S3Sink) -> Iterator[Any]:
    with serve(sink) as port:
        made = client(port)

        def count(**_: Any) -> None:
            sink.sent += 1

        made.meta.events.register("before-send.s3", count)
        yield made


@pytest.fixture
def moto_s3() -> Iterator[Any]:
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1", config=client_config())
        s3.create_bucket(Bucket="videos")
        yield s3
