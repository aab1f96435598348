"""Find the images of a request body of any kind. Pure."""

from collections.abc import Iterator
from typing import Any


def image_places(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield every location of an image in `body`: a readable name, the dict that holds it, and its key in that dict."""
    for name in ("image", "image_tail", "static_mask"):
        if name in body:
            yield name, body, name
    for index, item in enumerate(body.get("dynamic_masks", [])):
        yield f"dynamic_masks[{index}].mask", item, "mask"
    for index, item in enumerate(body.get("image_list", [])):
        key = "image_url" if "image_url" in item else "image"
        yield f"image_list[{index}].{key}", item, key
