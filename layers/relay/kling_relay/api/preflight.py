"""Check a request's images before the paid POST: those at URLs by their first bytes, masks against their image.

Kling accepts a bad image and fails the task minutes later. An image that is visibly invalid is refused. An image that
cannot be read passes: a host that does not answer us in time, refuses or redirects may still answer the provider.
"""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from kling_relay.api.request import Request
from kling_relay.errors import bad_parameter
from kling_relay.kinds.image_places import image_places
from kling_relay.media import images
from kling_relay.media.images import ImageError, ImageHeader, UnfinishedError
from kling_relay.transfer.fetch import read_start
from kling_relay.transfer.fetch_error import FetchError

SECONDS = 1.8  # for all images of a request together
_BYTES = 64 * 1024
_MAX_WORKERS = 8


def check(request: Request, uploaded: Mapping[str, ImageHeader] | None = None) -> None:
    """Raise KlingError that names the field of the first invalid image. `uploaded`: headers by field name."""
    locations = [(name, holder[key]) for name, holder, key in image_places(request.body)]
    results = _probe_all({value for _, value in locations if isinstance(value, str)})
    headers: dict[str, ImageHeader] = dict(uploaded or {})
    for name, value in locations:
        if name in headers:
            continue
        found = results.get(value) if isinstance(value, str) else images.read_header(request.images[name])
        if isinstance(found, ImageError):
            raise bad_parameter(name, f"{found}; source: a URL of {len(value)} characters")
        if found is not None:
            headers[name] = found
    _check_masks(headers)


def _probe_all(urls: set[str]) -> dict[str, ImageHeader | ImageError | None]:
    if not urls:
        return {}
    ends = time.monotonic() + SECONDS
    with ThreadPoolExecutor(min(len(urls), _MAX_WORKERS)) as pool:
        return dict(zip(urls, pool.map(lambda url: _probe(url, ends), urls), strict=True))


def _probe(url: str, ends: float) -> ImageHeader | ImageError | None:
    """Return the image's header or its error; None if nothing could be read."""
    left = ends - time.monotonic()
    if left <= 0:
        return None
    try:
        start, length = read_start(url, size=_BYTES, deadline_seconds=left)
    except FetchError:
        return None
    if not start:
        return None
    try:
        return images.check(start) if length == len(start) else images.check_start(start, length)
    except UnfinishedError as exc:
        return exc if length == len(start) else None
    except ImageError as exc:
        return exc


def _check_masks(headers: dict[str, ImageHeader]) -> None:
    """Check that a mask has the size of its image or, if that is unknown, of the other masks."""
    masks = [name for name in headers if name == "static_mask" or name.startswith("dynamic_masks")]
    known = ["image"] if "image" in headers else masks[:1]
    for other in known:
        for name in masks:
            if (headers[name].width, headers[name].height) != (headers[other].width, headers[other].height):
                rule = f"must have the size of {other}, {_size(headers[other])}"
                raise bad_parameter(name, rule, _size(headers[name]))


def _size(header: ImageHeader) -> str:
    return f"{header.width}x{header.height} px"
