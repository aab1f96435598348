"""Copy one video from its URL into the private bucket, with bounded memory and proof that it is complete.

One GET is streamed into one PutObject. A reader hashes the bytes, walks the MP4's boxes and holds back the last bytes
until the walk has passed. S3 never shows an object if fewer bytes arrive than announced, so a bad file is never
visible. The ETag that S3 returns is compared with the hash of the sent bytes. Nothing is overwritten: a key belongs to
one video, and the writer of an existing object has verified it.
"""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from kling_relay.media.mp4 import BoxWalk, InvalidVideoError
from kling_relay.transfer.fetch import Download, open_url
from kling_relay.transfer.fetch_error import FetchError

CHUNK = 1 << 20
LARGEST_PUT = 5 * 1024**3  # bytes in one PutObject
CACHE_CONTROL = "max-age=300"  # a browser may show a deleted video for so long; then it must ask again
_DELETE_TRIES = 3

_EXPIRED = (403, 404, 410)
_REASONS = {name: name for name in ("truncated", "too_large", "refused_host")} | dict.fromkeys(
    ("refused_url", "refused_address"), "refused_address"
)


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """A complete video in the bucket. `size` in bytes, `md5` in hex.

    `has_video_track`: whether its index names a video track. A file without one is kept, because media/mp4.py may not
    support the form of its index.
    """

    key: str
    size: int
    md5: str
    has_video_track: bool = field(default=True, compare=False)


class ArchiveError(Exception):
    """The video is not in the bucket. `reason`, which is the whole text:

    `source_expired` (the source said 403, 404 or 410: ask the provider for a fresh URL), `source_unauthorized` (it said
    401: it wants a key that was not sent, or another one), `source_unreachable`, `truncated`, `not_a_video`,
    `too_large`, `refused_address`, `refused_host`, `storage` (S3 failed, or its answer was lost: try again),
    `checksum` (the stored bytes differ from the sent ones, or the key already holds an incomplete video).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def client_config() -> Config:
    """Build the settings of the S3 client that `archive` needs.

    The body cannot be sent twice, so there is one attempt, and the caller retries with a fresh GET. The body cannot be
    read ahead either, so nothing hashes it before it is sent.
    """
    return Config(
        connect_timeout=3,
        read_timeout=30,
        retries={"total_max_attempts": 1, "mode": "standard"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": False},
    )


def archive(
    s3: Any,
    *,
    bucket: str,
    key: str,
    url: str,
    max_bytes: int,
    deadline_seconds: float,
    trusted_origin: str | None = None,
    check_host: Callable[[str], None] | None = None,
    authorization: Callable[[], str] | None = None,
) -> StoredVideo:
    """Copy the video at `url` to `key`, or return the one that is stored there already.

    `s3` is a client made with `client_config()`. `max_bytes` is at most 5 GiB. A source that does not announce its
    length is spooled to the temporary folder first, which needs as much space. `deadline_seconds` bounds the transfer
    from the source; reading back a stored object takes additional time. `trusted_origin`, `check_host`,
    `authorization`: see `fetch.open_url`.

    It is safe to repeat and to run twice at the same time. Raises ArchiveError; ValueError for impossible limits.
    """
    if not 0 < max_bytes <= LARGEST_PUT:
        raise ValueError(f"max_bytes must be between 1 and {LARGEST_PUT}, the most that one PutObject takes")
    target = {"Bucket": bucket, "Key": key}
    try:
        with open_url(
            url,
            max_bytes=max_bytes,
            deadline_seconds=deadline_seconds,
            trusted_origin=trusted_origin,
            check_host=check_host,
            authorization=authorization,
        ) as download:
            return _copy(s3, target, download)
    except FetchError as error:
        if error.status in _EXPIRED:
            # An earlier attempt may have stored it and lost the response, and the URL has expired since.
            stored = _find_stored(s3, target)
            if stored is not None:
                return stored
            reason = "source_expired"
        elif error.status == 401:
            reason = "source_unauthorized"
        else:
            reason = _REASONS.get(error.reason, "source_unreachable")
    except InvalidVideoError as error:
        reason = error.reason
    raise ArchiveError(reason)


class _Proof:
    """A readable body that hashes and walks the bytes it returns. It returns the last bytes only after the walk."""

    def __init__(self, source: Callable[[int], bytes], length: int, *, open_end: bool = True) -> None:
        self.failure: FetchError | InvalidVideoError | None = None
        self.md5: str | None = None  # set after the last byte
        self._source = source
        self._left = length
        self._hash = hashlib.md5(usedforsecurity=False)
        self._walk = BoxWalk(length, open_end=open_end)

    def video(self, key: str, length: int) -> StoredVideo:
        """Return the `length` bytes that were read, as the object at `key`."""
        return StoredVideo(key, length, self.md5 or "", self._walk.has_video_track)

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        if self.failure is not None:
            raise self.failure
        try:
            return self._next(min(size, self._left, CHUNK))
        except (FetchError, InvalidVideoError) as error:
            self.failure = error  # kept here, since the SDK wraps the errors of a body
            raise

    def _next(self, size: int) -> bytes:
        data = self._source(size) if size else b""
        if size and not data:
            raise InvalidVideoError("truncated")
        self._left -= len(data)
        self._hash.update(data)
        self._walk.feed(data)
        if self._left == 0:
            self._walk.finish()
            self.md5 = self._hash.hexdigest()
        return data


def _copy(s3: Any, target: dict[str, str], download: Download) -> StoredVideo:
    if download.length is not None:
        return _put(s3, target, _Proof(download.read, download.length), download.length)
    with tempfile.TemporaryFile() as spool:
        try:
            while data := download.read(CHUNK):
                spool.write(data)
            length = spool.tell()
            spool.seek(0)
        except OSError:  # the disk is full
            raise ArchiveError("storage") from None
        return _put(s3, target, _Proof(spool.read, length, open_end=download.framed), length)


def _put(s3: Any, target: dict[str, str], body: _Proof, length: int) -> StoredVideo:
    if length == 0:  # nothing would be read, so nothing would be proved
        raise InvalidVideoError("not_a_video")
    try:
        answer = s3.put_object(
            **target,
            Body=body,
            ContentLength=length,
            ContentType="video/mp4",
            # plays in a browser, and gives a good file name
            ContentDisposition=f'inline; filename="{"-".join(target["Key"].split("/")[-2:])}"',
            CacheControl=CACHE_CONTROL,
            IfNoneMatch="*",
        )
    except (BotoCoreError, ClientError, FetchError, InvalidVideoError) as error:
        if body.failure is not None:
            raise body.failure from None
        # from an earlier attempt, from another copier, or from us if the response was lost
        stored = _find_stored(s3, target)
        if stored is not None:
            return stored
        raise ArchiveError("checksum" if _status(error) == 412 else "storage") from error
    video = body.video(target["Key"], length)
    if answer.get("ETag", "").strip('"') != body.md5:  # a response before the end of the body is not trusted either
        _compare(s3, target | ({"VersionId": answer["VersionId"]} if answer.get("VersionId") else {}), video)
    return video


def _compare(s3: Any, written: dict[str, str], video: StoredVideo) -> None:
    """Read back the written object, because its ETag is not the MD5 of the body: under SSE-KMS it never is."""
    try:
        same = _read_back(s3, written) == video
    except InvalidVideoError:
        same = False
    except (BotoCoreError, ClientError) as error:
        raise ArchiveError("storage") from error
    if not same:
        _delete(s3, written)
        raise ArchiveError("checksum")


def _find_stored(s3: Any, target: dict[str, str]) -> StoredVideo | None:
    """Return the complete video at the key, or None if there is none."""
    try:
        return _read_back(s3, target)
    except InvalidVideoError:
        return None
    except (BotoCoreError, ClientError) as error:
        if _status(error) in (403, 404):  # without the right to list, S3 returns 403 for a missing object
            return None
        raise ArchiveError("storage") from error


def _read_back(s3: Any, target: dict[str, str]) -> StoredVideo:
    answer = s3.get_object(**target)
    length = answer["ContentLength"]
    with answer["Body"] as stream:
        body = _Proof(stream.read, length)
        while body.read(CHUNK):
            pass
    return body.video(target["Key"], length)


def _delete(s3: Any, target: dict[str, str]) -> None:
    """Delete exactly the written version, or the only object if the bucket keeps no versions."""
    for _ in range(_DELETE_TRIES):
        try:
            s3.delete_object(**target)
            return
        except (BotoCoreError, ClientError):
            continue


def _status(error: Exception) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"]) if isinstance(error, ClientError) else 0
