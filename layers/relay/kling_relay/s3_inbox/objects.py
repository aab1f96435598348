"""Process an object below inbox/ of the input bucket: create its task or its lines' tasks, or read its settings.

Every permanent error of an upload is written to its result (notifications/result_file.py). An error that a retry may
solve is raised, AWS's own above all, and SQS delivers the message again.
"""

from collections.abc import Callable
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Any

from botocore.exceptions import ClientError

from kling_relay.api import create, request
from kling_relay.api.request import MAX_BODY_BYTES, Request
from kling_relay.api.uploads import MissingImage
from kling_relay.errors import KlingError, ProviderRejectedError, bad_parameter
from kling_relay.notifications import result_file
from kling_relay.observability import logger
from kling_relay.s3_inbox import batch, object_versions
from kling_relay.services import Services
from kling_relay.tasks.s3_source import IMAGE_SUFFIXES, INBOX, SETTINGS, Role, Source, spellings
from kling_relay.tasks.task import Task

# The fields that are read from an image's metadata, as x-amz-meta-negative-prompt; all others belong to other programs.
_IN_METADATA = (
    *("prompt", "negative_prompt", "model_name", "mode", "duration", "cfg_scale", "sound"),
    *("callback_url", "external_task_id"),
)
_ACCEPTED = "an image (.jpg, .jpeg, .png, .jfif), *.task.json, *.tasks.jsonl, settings.json, or an image's name.json"
_ABSENT = {403, 404}  # denied (without the right to list), or missing
_WAIT_SECONDS = 300  # for an image that a request names: `aws s3 sync` sends the small request first
_FIRST_LOOK_SECONDS = 5
_MAX_SECONDS_BETWEEN = 60


def receive(services: Services, message: dict[str, Any], left_ms: Callable[[], int]) -> None:
    """Handle one message of the queue: an event of S3, or one of batch.py. Repeatable.

    `left_ms()` returns the remaining time of the Lambda call.
    """
    source = _source_of(services, message)
    logger.append_keys(object=source.tag)
    if source.line:
        take(
            services,
            source,
            left_ms,
            lambda: batch.one(services, source, message),
            lambda: _wait(services, source, message),
        )
        return
    role = source.role
    if role is Role.LITTER:
        logger.info("file_ignored")
        return
    # the reason in S3's event, which is the call that made the object
    copied = message.get("detail", {}).get("reason") == "CopyObject"
    original = object_versions.original(services, source) if copied else source
    if role is Role.IMAGE:
        _take_image(services, source, original, left_ms)
    elif role is Role.MANIFEST:
        take(
            services, original, left_ms, lambda: _manifest(services, source), lambda: _wait(services, original, message)
        )
    elif role is Role.LINES:
        batch.hand_out(services, original, message.get("from_line", 1), left_ms)
    elif role is Role.UNKNOWN:
        got = "a folder" if source.key.endswith("/") else "another name"
        result_file.reject(services, source, bad_parameter("object", f"must be {_ACCEPTED}", got))
    else:
        _take_settings(services, source, left_ms)


def give_up(services: Services, message: dict[str, Any], error: str) -> None:
    """Report the failure of the last attempt in the upload's result. A later redrive may still create the task."""
    source = _source_of(services, message)
    if services.table.get(source.task_id(services.keyring)) is None:
        result_file.reject(services, source, KlingError(5000, f"processing failed ({error}); ask the operator"))


def _source_of(services: Services, message: dict[str, Any]) -> Source:
    source = Source.of_event(message["detail"]) if "detail" in message else Source(**message["source"])
    if source.bucket != services.settings.need("input_bucket") or not source.key.startswith(INBOX):
        raise ValueError("object is outside inbox/")  # the event rule filters them out
    return source


def take(
    services: Services,
    source: Source,
    left_ms: Callable[[], int],
    asked: Callable[[], Request | None],
    waits: Callable[[], bool] = lambda: False,
) -> None:
    """Create the one task of `source`, or find it, and write its result.

    `asked` reads the request, and is not called if the task exists; it returns None if no task is to be created yet.
    `waits` postpones the request if an image that it names is missing, and returns False after the last time.
    """
    task_id = source.task_id(services.keyring)
    task = services.table.get(task_id)
    if task is None:
        try:
            if (checked := asked()) is None:
                return
            task = create.create(services, services.settings.need("intake_tenant"), checked, None, left_ms(), source)
        except KlingError as exc:
            if isinstance(exc, MissingImage) and waits():
                return
            passes = exc.retry_after is not None or (exc.http >= 500 and not isinstance(exc, ProviderRejectedError))
            if passes:  # a retry of the same message finds the task, or creates it
                raise
            task = services.table.get(task_id)  # refused by the provider; or a concurrent call was faster
            if task is None:
                result_file.reject(services, source, exc)
                return
    _write_result(services, source, task)


def _wait(services: Services, source: Source, message: dict[str, Any]) -> bool:
    """Queue the message again, with a growing delay. Return False if the maximum wait is over.

    A message that is queued twice creates no second task.
    """
    now = services.clock.now_ms()
    waited_ms = now - message.setdefault("waits_since", now)
    if waited_ms >= services.settings.scaled_ms(_WAIT_SECONDS):
        return False
    first, maximum = services.settings.scaled_ms(_FIRST_LOOK_SECONDS), services.settings.scaled_ms(_MAX_SECONDS_BETWEEN)
    batch.send(services, [message], max(1, min(first + waited_ms // 2, maximum) // 1000))
    result_file.note(services, source, "waiting up to five minutes for an image that it names; upload the image")
    return True


def _write_result(services: Services, source: Source, task: Task) -> None:
    """Write the result of `source`, also if another upload created the task: one `external_task_id`, one task."""
    if task.source == source.as_dict():
        result_file.write(services, task)
    else:
        message = f"external_task_id: must be unique (got the value of task {task.id}, with the same request)"
        result_file.reject(services, source, KlingError(1201, message))


def _take_image(services: Services, source: Source, original: Source, left_ms: Callable[[], int]) -> None:
    """Create the task of `original` with the bytes and metadata of `source`, which is the same or a repetition."""
    take(services, original, left_ms, lambda: _image_request(services, source))


def _image_request(services: Services, source: Source) -> Request | None:
    """Return the request of an uploaded image; None, and a note, if it must wait for its sidecar."""
    try:
        answer = services.s3.head_object(Bucket=source.bucket, Key=source.key, VersionId=source.version)
    except ClientError as exc:
        if exc.response["ResponseMetadata"]["HTTPStatusCode"] not in _ABSENT:
            raise
        raise bad_parameter("image", "the object was deleted before it was read; upload it again") from exc
    folder = _settings(services, source.bucket, source.folder + SETTINGS)
    sidecar = _settings(services, source.bucket, source.sidecar) if source.sidecar else None
    if sidecar is None and _requires_sidecar(folder):
        result_file.note(
            services,
            source,
            f"waiting for its settings in {source.stem}.json, because settings.json has require_sidecar",
        )
        return None
    sent = {**_defaults(services), **(folder or {}), **(sidecar or {}), **_metadata(answer["Metadata"])}
    checked = request.check("image2video", {**sent, "image": "dropped.jpg"}, source.folder)
    checked.body["image"] = {"ref": source.key, "version": source.version}
    return checked


def _take_settings(services: Services, source: Source, left_ms: Callable[[], int]) -> None:
    """Check settings. They create no task, but a sidecar may complete a waiting image."""
    try:
        _settings(services, source.bucket, source.key, source.version)
        folder = _settings(services, source.bucket, source.folder + SETTINGS)
        waited_for = source.role is Role.SIDECAR and _requires_sidecar(folder)
    except KlingError as exc:
        result_file.reject(services, source, exc)
        return
    for image in _images_of(services, source) if waited_for else ():
        _take_image(services, image, object_versions.original(services, image), left_ms)
    if source.role is Role.SETTINGS:
        message = "settings of images that are uploaded to this folder later"
    else:
        message = (
            f"settings of {source.stem}.jpg, .jpeg or .png in this folder; to send a request, name the file *.task.json"
        )
    result_file.note(services, source, message)


def _images_of(services: Services, sidecar: Source) -> list[Source]:
    """List the current images that a sidecar belongs to."""
    images: list[Source] = []
    list_objects = services.s3.get_paginator("list_objects_v2").paginate
    for stem in spellings(sidecar.folder + sidecar.stem):
        pages = list_objects(Bucket=sidecar.bucket, Prefix=f"{stem}.")
        for key in (one["Key"] for page in pages for one in page.get("Contents", [])):
            if key[len(stem) :].lower() not in IMAGE_SUFFIXES:
                continue
            try:
                version = services.s3.head_object(Bucket=sidecar.bucket, Key=key)["VersionId"]
            except ClientError as exc:
                if exc.response["ResponseMetadata"]["HTTPStatusCode"] not in _ABSENT:
                    raise
                continue  # deleted since it was listed
            images.append(Source(sidecar.bucket, key, version))
    return images


def _manifest(services: Services, source: Source) -> Request:
    sent = _read(services, source.bucket, source.key, source.version)
    if sent is None:
        raise KlingError(1201, "the object was deleted before it was read; upload it again")
    return batch.request_of(sent, source.folder)


def _settings(services: Services, bucket: str, key: str, version: str = "") -> dict[str, Any] | None:
    """Read a settings file; None if there is none. Raises KlingError that names it."""
    name = key.rpartition("/")[2]
    try:
        raw = _read(services, bucket, key, version)
        sent = None if raw is None else request.read(batch.utf8(raw))
    except KlingError as exc:
        raise KlingError(exc.code, f"{name}: {exc.message.removeprefix('body: ')}") from exc
    if sent is not None and not isinstance(sent.get("require_sidecar", False), bool):
        raise KlingError(1201, f"{name}: require_sidecar: must be true or false")
    return sent if sent is None else _named(sent)


def _named(sent: dict[str, Any]) -> dict[str, Any]:
    """Rename `model` to `model_name`, so that the settings nearest to the image win under either name."""
    model = sent.pop("model", None)
    return sent if model is None else {"model_name": model, **sent}


def _requires_sidecar(settings: dict[str, Any] | None) -> bool:
    return bool(settings and settings.get("require_sidecar"))


def _defaults(services: Services) -> dict[str, Any]:
    settings = services.settings
    return {"prompt": settings.intake_prompt, "mode": settings.intake_mode, "duration": settings.intake_duration}


def _metadata(given: dict[str, str]) -> dict[str, Any]:
    """Return the request fields in an object's metadata. S3 encodes non-ASCII text like mail headers (RFC 2047)."""
    metadata: dict[str, Any] = {}
    for name, text in given.items():
        field = name.replace("-", "_")
        if field not in _IN_METADATA or not text.strip():
            continue
        try:
            metadata[field] = str(make_header(decode_header(text)))
            if field == "cfg_scale":
                metadata[field] = float(metadata[field])
        except (HeaderParseError, LookupError, ValueError) as exc:
            rule = "must be a number" if field == "cfg_scale" else "must be text that can be decoded (RFC 2047)"
            raise bad_parameter(field, rule, f"metadata of {len(text)} characters") from exc
    return metadata


def _read(services: Services, bucket: str, key: str, version: str) -> bytes | None:
    """Read an object of at most a request's size, by its key or another spelling of it; None if there is none.

    Raises KlingError if it is larger.
    """
    read = (_read_one(services, bucket, one, version) for one in ([key] if version else spellings(key)))
    return next((raw for raw in read if raw is not None), None)


def _read_one(services: Services, bucket: str, key: str, version: str) -> bytes | None:
    target = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
    try:
        answer = services.s3.get_object(**target)
    except ClientError as exc:
        if exc.response["ResponseMetadata"]["HTTPStatusCode"] not in _ABSENT:
            raise
        return None
    with answer["Body"] as stream:
        if answer["ContentLength"] > MAX_BODY_BYTES:
            size = answer["ContentLength"]
            raise KlingError(1201, f"body: must have at most {MAX_BODY_BYTES} bytes (got a file of {size})")
        raw: bytes = stream.read()
    return raw
