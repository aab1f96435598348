"""A look at a request's images before money is spent: those at URLs by their first bytes, masks beside their image.

Kling takes a bad image and fails the task minutes later. What the look shows to be wrong is refused; what it cannot see
passes: a host that does not answer us in time, refuses or redirects may still answer the provider.
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
_AT_ONCE = 8


def check(request: Request, uploaded: Mapping[str, ImageHeader] | None = None) -> None:
    """Raises KlingError naming the field of the first image that is seen to be wrong. `uploaded`: headers by name."""
    places = [(name, holder[key]) for name, holder, key in image_places(request.body)]
    seen = _looked_at({value for _, value in places if isinstance(value, str)})
    headers: dict[str, ImageHeader] = dict(uploaded or {})
    for name, value in places:
        if name in headers:
            continue
        found = seen.get(value) if isinstance(value, str) else images.read_header(request.images[name])
        if isinstance(found, ImageError):
            raise bad_parameter(name, f"{found}; source: a URL of {len(value)} characters")
        if found is not None:
            headers[name] = found
    _check_masks(headers)


def _looked_at(urls: set[str]) -> dict[str, ImageHeader | ImageError | None]:
    if not urls:
        return {}
    ends = time.monotonic() + SECONDS
    with ThreadPoolExecutor(min(len(urls), _AT_ONCE)) as pool:
        return dict(zip(urls, pool.map(lambda url: _look(url, ends), urls), strict=True))


def _look(url: str, ends: float) -> ImageHeader | ImageError | None:
    """The image's header, or what is wrong with it; None where nothing could be seen."""
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
    """A mask lies on its image pixel by pixel; where the image is not known, on the other masks."""
    masks = [name for name in headers if name == "static_mask" or name.startswith("dynamic_masks")]
    known = ["image"] if "image" in headers else masks[:1]
    for other in known:
        for name in masks:
            if (headers[name].width, headers[name].height) != (headers[other].width, headers[other].height):
                rule = f"must have the size of {other}, {_size(headers[other])}"
                raise bad_parameter(name, rule, _size(headers[name]))


def _size(header: ImageHeader) -> str:
    return f"{header.width}x{header.height} px"
