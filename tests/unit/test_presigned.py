"""Test that presigned addresses name the host of the bucket's own region.

S3's global host leads to us-east-1. It redirects a bucket that is younger than a day, and the signature covers the
host. It refuses buckets of regions since 2019. Source (document): "Virtual hosting of buckets" in the Amazon S3 User
Guide. botocore's own handling of a configuration runs here, without a network.
"""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from boto3.session import Session
from kling_relay import client_view, services
from kling_relay.api import uploads
from kling_relay.clock import Clock
from kling_relay.services import Services
from kling_relay.settings import Settings
from kling_relay.tasks.task import Phase, Task

BUCKET = "kling-relay-dev-videobucket-1abc"
REGIONS = ["eu-central-1", "ap-northeast-1", "us-west-2", "eu-north-1", "me-central-1", "af-south-1"]
EMULATOR = "http://localhost:4566"


def relay_in(region: str) -> Services:
    return Services(Settings(input_bucket=BUCKET, video_bucket=BUCKET), Clock(), Session(region_name=region))


def addresses(client: Any) -> list[str]:
    where = {"Bucket": BUCKET, "Key": "videos/a.mp4"}
    urls = [client.generate_presigned_url(call, Params=where) for call in ("get_object", "put_object")]
    return [*urls, client.generate_presigned_post(BUCKET, "uploads/a.jpg")["url"]]


@pytest.mark.parametrize("which", ["s3", "archive_s3"])
@pytest.mark.parametrize("region", REGIONS)
def test_get_put_and_post_name_the_regional_host(region: str, which: str) -> None:
    hosts = {urlsplit(url).hostname for url in addresses(getattr(relay_in(region), which))}
    assert hosts == {f"{BUCKET}.s3.{region}.amazonaws.com"}


@pytest.mark.parametrize("which", ["s3", "archive_s3"])
def test_an_endpoint_from_the_environment_stays_as_it_is(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local stack: many resolvers know no subdomain of localhost."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", EMULATOR)
    urls = addresses(getattr(relay_in("eu-central-1"), which))
    assert [url.partition("?")[0] for url in urls] == [
        *(f"{EMULATOR}/{BUCKET}/videos/a.mp4", f"{EMULATOR}/{BUCKET}/videos/a.mp4", f"{EMULATOR}/{BUCKET}")
    ]


def test_uploads_and_videos_are_at_the_regional_host() -> None:
    here, host = relay_in("eu-central-1"), f"{BUCKET}.s3.eu-central-1.amazonaws.com"
    offered = uploads.offer(here, "acme", b'{"content_type": "image/jpeg"}')
    task = Task("t", "acme", "image2video", Phase.SUCCEEDED, {}, 0, 0, videos=[{"key": "videos/acme/t/0.mp4"}])
    (video,) = client_view.video_urls(here, task).values()
    assert {urlsplit(url).hostname for url in (offered["upload"]["url"], video)} == {host}


def test_every_address_is_presigned_by_that_client() -> None:
    package = Path(services.__file__).parent
    found = [
        name for path in package.rglob("*.py") for name in re.findall(r"(\S+)\.generate_presigned", path.read_text())
    ]
    assert found and set(found) == {"services.s3"}
