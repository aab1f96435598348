"""Test that every call of every client gives S3 the expected bucket owner."""

from typing import Any

import pytest
from kling_relay.clock import Clock
from kling_relay.services import Services
from kling_relay.settings import Settings

from tests.support.stack_in_memory import Cloud

OWNER = "x-amz-expected-bucket-owner"


@pytest.mark.parametrize("which", ["s3", "archive_s3"])
@pytest.mark.parametrize(("account_id", "named"), [("123456789012", b"123456789012"), ("", None)])
def test_every_call_names_the_account(cloud: Cloud, which: str, account_id: str, named: bytes | None) -> None:
    client = getattr(Services(Settings(account_id=account_id), Clock(), cloud.session), which)
    seen: list[Any] = []
    client.meta.events.register("before-send.s3", lambda request, **_: seen.append(request.headers.get(OWNER)))
    client.put_object(Bucket="inputs", Key="a", Body=b"x")
    client.get_object(Bucket="inputs", Key="a")
    client.delete_object(Bucket="inputs", Key="a")
    assert seen == [named] * 3
    where = {"Bucket": "inputs", "Key": "a"}
    assert OWNER not in client.generate_presigned_url("get_object", Params=where).lower()
