"""Find the images of a request body, whatever its kind. Pure."""

from collections.abc import Iterator
from typing import Any


def image_places(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every place of `body` that holds an image: its name for people, the dict that holds it, and the key in there."""
    for name in ("image", "image_tail", "static_mask"):
        if name in body:
            yield name, body, name
    for index, item in enumerate(body.get("dynamic_masks", [])):
        yield f"dynamic_masks[{index}].mask", item, "mask"
    for index, item in enumerate(body.get("image_list", [])):
        key = "image_url" if "image_url" in item else "image"
        yield f"image_list[{index}].{key}", item, key
