"""Find the first version of an object with the same bytes.

A change of an object's metadata, storage class or encryption copies the object onto itself: a new version of the same
bytes. It is paid for once, so all of these versions share the identity of the first.
"""

import hashlib
import itertools
from typing import Any

from kling_relay.notifications import result_file
from kling_relay.services import Services
from kling_relay.tasks.s3_source import Source

_MAX_COMPARED_BYTES = 64 * 1024 * 1024  # a list of requests; images are smaller


def original(services: Services, source: Source) -> Source:
    """Return the oldest version of the key since which all versions have the bytes of `source`; else `source`.

    Overwritten versions are removed after seven days. The result of the key names the original for longer.
    """
    answer = services.s3.list_object_versions(Bucket=source.bucket, Prefix=source.key)  # newest first, this key first
    listed = [one for one in answer.get("Versions", []) if one["Key"] == source.key]
    older = itertools.dropwhile(lambda one: one["VersionId"] != source.version, listed)
    first = newest = next(older, None)
    if first is None:
        return source
    for one in older:
        if not _same_bytes(services, source.bucket, first, one):
            return Source(source.bucket, source.key, first["VersionId"])
        first = one
    version: str = first["VersionId"]
    recorded = result_file.version_told(services, source)
    if first is not newest and recorded and recorded not in {one["VersionId"] for one in listed}:
        version = recorded
    return Source(source.bucket, source.key, version)


def _same_bytes(services: Services, bucket: str, one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two versions have the same bytes.

    An ETag may change with the encryption, or if parts are merged.
    """
    if one["ETag"] == other["ETag"] or one["Size"] != other["Size"]:
        return bool(one["Size"] == other["Size"])
    return one["Size"] <= _MAX_COMPARED_BYTES and _digest(services, bucket, one) == _digest(services, bucket, other)


def _digest(services: Services, bucket: str, one: dict[str, Any]) -> bytes:
    answer = services.s3.get_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])
    digest = hashlib.sha256()
    with answer["Body"] as stream:
        while data := stream.read(1 << 20):
            digest.update(data)
    return digest.digest()
