"""Accept images in the input bucket: uploaded with a presigned form, or put below inbox/.

A request names the former by `s3://` reference, the latter by key. A task gets a copy of the very bytes that were
checked, because an upload can be overwritten, used by several tasks, or expire.
"""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from kling_relay.api import json_body
from kling_relay.errors import KlingError, bad_parameter
from kling_relay.media import images
from kling_relay.services import Services
from kling_relay.tasks.s3_source import spellings

_EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png"}
_OTHER_NAMES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}
_URL_SECONDS = 3600
_ABSENT = {403, 404, 412, 416}  # denied (without the right to list), missing, overwritten, empty


class MissingImage(KlingError):
    """A request names an image of the inbox that does not exist. Its upload may still follow."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A checked image in the input bucket. `version`: the object's version, if its task is bound to it.

    `dropped`: the image is below inbox/ and stays its owner's, for any outcome of the task.
    """

    key: str
    etag: str
    header: images.ImageHeader
    version: str | None = None
    dropped: bool = False


def offer(services: Services, tenant: str, body: bytes) -> dict[str, Any]:
    """Return a presigned form for one image, and the reference to write into a request afterwards.

    Raises KlingError for an invalid type or size. `expires_at` is in ms.
    """
    content_type, size = _wanted(body)
    bucket = services.settings.need("input_bucket")
    key = f"uploads/{tenant}/{secrets.token_hex(16)}.{_EXTENSIONS[content_type]}"
    form = services.s3.generate_presigned_post(
        bucket,
        key,
        Fields={"Content-Type": content_type},
        Conditions=[
            {"Content-Type": content_type},
            ["content-length-range", size or 1, size or images.MAX_BYTES],
        ],
        ExpiresIn=_URL_SECONDS,
    )
    expires_at = services.clock.now_ms() + _URL_SECONDS * 1000
    upload = {"url": form["url"], "fields": form["fields"]}
    return {"upload": upload, "image": f"s3://{bucket}/{key}", "expires_at": expires_at}


def check(services: Services, tenant: str, field: str, image: Mapping[str, str]) -> Upload:
    """Check the image behind a request's {"ref": ...} like an inline one. Raises KlingError that names `field`.

    The error for an upload is the same if it is missing, another tenant's, or not an upload.
    """
    bucket, dropped, version = services.settings.need("input_bucket"), False, image.get("version")
    if not image["ref"][:5].lower().startswith("s3://"):  # only request.check makes these, for files of the inbox
        keys, dropped = [image["ref"]] if version else spellings(image["ref"]), True
    else:
        form = rf"s3://{re.escape(bucket)}/(uploads/{re.escape(tenant)}/[0-9a-f]{{32}}\.(?:jpg|png))"
        if (match := re.fullmatch(form, image["ref"])) is None:
            raise _unknown(field, dropped)
        keys = [match[1]]
    key, answer = _open(services, field, keys, version, dropped)
    size = int(answer.get("ContentRange", f"/{answer['ContentLength']}").rpartition("/")[2])
    try:
        with answer["Body"] as stream:
            if size > images.MAX_BYTES:
                raise images.ImageError(f"must have at most 10 MB, {images.MAX_BYTES} bytes (got {size})")
            header = images.check(stream.read())
    except images.ImageError as exc:
        raise bad_parameter(field, f"{exc}; source: an uploaded image") from exc
    return Upload(key, answer["ETag"], header, version, dropped)


def _open(services: Services, field: str, keys: list[str], version: str | None, dropped: bool) -> tuple[str, Any]:
    """Return the first existing key of `keys`, and its object, of at most an image's size. Raises KlingError."""
    refusal = _unknown(field, dropped)
    for key in keys:
        target = {"Bucket": services.settings.need("input_bucket"), "Key": key}
        target |= {"VersionId": version} if version else {}
        try:
            return key, services.s3.get_object(**target, Range=f"bytes=0-{images.MAX_BYTES - 1}")
        except ClientError as exc:
            if (absent := _absent(exc, field, dropped)) is None:
                raise
            refusal = absent
    raise refusal


def keep(services: Services, field: str, upload: Upload, prefix: str) -> dict[str, str]:
    """Copy a checked image to its task's inline images. Return the value for the task's row."""
    bucket, key = services.settings.need("input_bucket"), f"{prefix}.{upload.header.extension}"
    source = {"Bucket": bucket, "Key": upload.key} | ({"VersionId": upload.version} if upload.version else {})
    try:
        services.s3.copy_object(
            Bucket=bucket,
            Key=key,
            CopySource=source,
            CopySourceIfMatch=upload.etag,
            ContentType=f"image/{upload.header.format}",
            MetadataDirective="REPLACE",
            TaggingDirective="REPLACE",  # the owner's tags do not concern us, and we have no right to them
        )
    except ClientError as exc:
        if (refusal := _absent(exc, field, upload.dropped)) is None:
            raise
        raise refusal from exc
    return {"s3": key} if upload.dropped else {"s3": key, "upload": upload.key}


def _absent(exc: ClientError, field: str, dropped: bool) -> KlingError | None:
    """Return the error for a missing image; None if S3 failed in another way."""
    status = exc.response["ResponseMetadata"]["HTTPStatusCode"]
    if status not in _ABSENT:
        return None
    if dropped and status == 416:
        return bad_parameter(field, "the object must not be empty", "0 bytes")
    return _unknown(field, dropped)


def _unknown(field: str, dropped: bool) -> KlingError:
    if dropped:
        remedy = "check its name and folder, and upload the image before the file that refers to it"
        return MissingImage(1201, f"{field}: object not found; {remedy}")
    rule = 'must be the "image" in the answer of POST /kling/v1/uploads, after its upload'
    return bad_parameter(field, rule, "an s3:// reference that is not one of your uploads")


def _wanted(body: bytes) -> tuple[str, int | None]:
    try:
        sent = json_body.decode(body)
    except (ValueError, RecursionError):
        sent = None
    if not isinstance(sent, dict):
        raise KlingError(1201, f"body: must be a JSON object (got {len(body)} bytes of other data)")
    content_type, size = _plain_type(sent.get("content_type")), sent.get("size")
    if not isinstance(content_type, str) or content_type not in _EXTENSIONS:
        shown = repr(content_type[:32]) if isinstance(content_type, str) else json.dumps(content_type)[:32]
        raise bad_parameter("content_type", f"must be one of {', '.join(_EXTENSIONS)}", shown)
    if isinstance(size, float) and size.is_integer():
        size = int(size)  # JSON has one kind of number
    if isinstance(size, str) and re.fullmatch(r"[0-9]{1,9}", size):
        size = int(size)  # form builders send every value as text
    if size is not None and (type(size) is not int or not 1 <= size <= images.MAX_BYTES):
        rule = f"must be a whole number of bytes from 1 to {images.MAX_BYTES}, 10 MB"
        raise bad_parameter("size", rule, json.dumps(size)[:32])
    return content_type, size


def _plain_type(sent: Any) -> Any:
    """Return a media type in the one spelling that the form names.

    RFC 9110 section 8.3 allows any case and parameters, and many programs write image/jpg.
    """
    if not isinstance(sent, str):
        return sent
    plain = sent.partition(";")[0].strip().lower()
    return _OTHER_NAMES.get(plain, plain)
