"""Hold the cloud of one life in memory: replaces Cloud (moto) at almost no cost."""

import hashlib
import io
from functools import cache
from types import ModuleType
from typing import Any

from tests.support.fake_dynamodb import FakeDynamoDB
from tests.support.stack_in_memory import FUNCTIONS, load


class MemoryCloud:
    def __init__(self) -> None:
        self.session = None  # no other AWS service is reachable
        self.dynamodb, self.s3, self.apps = FakeDynamoDB(), FakeS3(), _apps()


class FakeS3:
    """Play S3, as far as a life needs it."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **_: Any) -> dict[str, Any]:
        self.objects[Bucket, Key] = Body
        return {}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        return {"Body": io.BytesIO(self.objects[Bucket, Key])}

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        data = self.objects[Bucket, Key]
        return {"ContentLength": len(data), "ETag": f'"{hashlib.md5(data).hexdigest()}"'}

    def list_object_versions(self, *, Bucket: str, Prefix: str) -> dict[str, Any]:
        keys = [key for bucket, key in self.objects if bucket == Bucket and key.startswith(Prefix)]
        return {"Versions": [{"Key": key, "VersionId": "null"} for key in keys]}

    def delete_objects(self, *, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        for one in Delete["Objects"]:
            self.objects.pop((Bucket, one["Key"]), None)
        return {}

    def generate_presigned_url(self, operation: str, *, Params: dict[str, str], ExpiresIn: int) -> str:
        return f"https://{Params['Bucket']}.example/{Params['Key']}"


@cache
def _apps() -> dict[str, ModuleType]:
    return {name: load(name) for name in FUNCTIONS}
