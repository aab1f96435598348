"""Images that are too large for a request body: uploaded straight to the input bucket, then named by `s3://` reference.

A task takes a copy of the very bytes that were checked: an upload can be written again, named by several tasks, or end.
"""

import json
import re
import secrets
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from kling_relay import images
from kling_relay.errors import KlingError, bad_parameter
from kling_relay.relay import Relay

_EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png"}
_URL_SECONDS = 3600
_HEADER_BYTES = 1024 * 1024  # a photo's colour profile and preview may stand before its sides
_ABSENT = {403, 404, 412, 416}  # denied (without the right to list), missing, written again, empty


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded image that passed the checks."""

    key: str
    etag: str
    header: images.ImageHeader


def offer(relay: Relay, tenant: str, body: bytes) -> dict[str, Any]:
    """Where and how to upload one image, and what to write into a request afterwards."""
    content_type, size = _wanted(body)
    bucket = relay.settings.need("input_bucket")
    key = f"uploads/{tenant}/{secrets.token_hex(16)}.{_EXTENSIONS[content_type]}"
    form = relay.s3.generate_presigned_post(
        bucket,
        key,
        Fields={"Content-Type": content_type},
        Conditions=[
            {"Content-Type": content_type},
            ["content-length-range", size or 1, size or images.MAX_BYTES],
        ],
        ExpiresIn=_URL_SECONDS,
    )
    expires_at = relay.clock.now_ms() + _URL_SECONDS * 1000
    upload = {"url": form["url"], "fields": form["fields"]}
    return {"upload": upload, "image": f"s3://{bucket}/{key}", "expires_at": expires_at}


def check(relay: Relay, tenant: str, field: str, reference: str) -> Upload:
    """The tenant's own upload behind `reference`, checked as an inline image is. Raises KlingError that names `field`,
    in the same words whether the upload is missing, somebody else's, or none of ours."""
    bucket = relay.settings.need("input_bucket")
    match = re.fullmatch(
        rf"s3://{re.escape(bucket)}/(uploads/{re.escape(tenant)}/[0-9a-f]{{32}}\.(?:jpg|png))", reference
    )
    if match is None:
        raise _unknown(field)
    try:
        answer = relay.s3.get_object(Bucket=bucket, Key=match[1], Range=f"bytes=0-{_HEADER_BYTES - 1}")
    except ClientError as exc:
        if exc.response["ResponseMetadata"]["HTTPStatusCode"] not in _ABSENT:
            raise
        raise _unknown(field) from exc
    with answer["Body"] as stream:
        head = stream.read()
    size = int(answer.get("ContentRange", f"/{len(head)}").rpartition("/")[2])
    try:
        if size > images.MAX_BYTES:
            raise images.ImageError(f"at most {images.MAX_BYTES} bytes (10 MB) are allowed, the image has {size}")
        header = images.check(head)
    except images.ImageError as exc:
        raise bad_parameter(field, f"{exc}; sent: an uploaded image") from exc
    return Upload(match[1], answer["ETag"], header)


def keep(relay: Relay, field: str, upload: Upload, prefix: str) -> dict[str, str]:
    """Copy a checked upload to where the inline images of its task are. What a task's row says of it."""
    bucket, key = relay.settings.need("input_bucket"), f"{prefix}.{upload.header.extension}"
    try:
        relay.s3.copy_object(
            Bucket=bucket,
            Key=key,
            CopySource={"Bucket": bucket, "Key": upload.key},
            CopySourceIfMatch=upload.etag,
            ContentType=f"image/{upload.header.format}",
            MetadataDirective="REPLACE",
        )
    except ClientError as exc:
        if exc.response["ResponseMetadata"]["HTTPStatusCode"] not in _ABSENT:
            raise
        raise _unknown(field) from exc
    return {"s3": key, "upload": upload.key}


def _unknown(field: str) -> KlingError:
    wanted = 'the "image" that POST /kling/v1/uploads answered is expected, after its upload'
    return bad_parameter(field, f"{wanted}; sent: an s3:// reference that is no upload of yours")


def _wanted(body: bytes) -> tuple[str, int | None]:
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        sent = None
    if not isinstance(sent, dict):
        raise KlingError(1201, f"body: a JSON object is expected; {len(body)} bytes of something else were sent")
    content_type, size = sent.get("content_type"), sent.get("size")
    if not isinstance(content_type, str) or content_type not in _EXTENSIONS:
        shown = repr(content_type[:32]) if isinstance(content_type, str) else json.dumps(content_type)[:32]
        raise bad_parameter("content_type", f"one of {', '.join(_EXTENSIONS)} is expected; sent: {shown}")
    if isinstance(size, float) and size.is_integer():
        size = int(size)  # JSON has one kind of number
    if size is not None and (type(size) is not int or not 1 <= size <= images.MAX_BYTES):
        problem = f"a whole number of bytes from 1 to {images.MAX_BYTES} (10 MB) is expected"
        raise bad_parameter("size", f"{problem}; sent: {json.dumps(size)[:32]}")
    return content_type, size
