"""Check a submit like Kling, and compute its cost. The task itself checks the pictures later."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from local.simulator.dialects import Refusal

PROMPT_LIMIT = 2500  # characters, prompt and negative_prompt alike
SHOT_LIMIT = 512  # characters of one prompt in multi_prompt
RETIRED = {"kling-v1", "kling-v1-5", "kling-v1-6", "kling-v2-master", "kling-v2-1", "kling-v2-1-master"}
LIVING = {"kling-v2-5-turbo", "kling-v2-6", "kling-v3"}
OMNI = {"kling-video-o1", "kling-v3-omni"}
MODELS = {
    "image2video": RETIRED | LIVING,
    "multi-image2video": RETIRED | LIVING | OMNI,  # Kling publishes kling-v1-6 only; relays take current ones
    "text2video": (RETIRED | LIVING) - {"kling-v1-5", "kling-v2-1"},
    "omni-video": OMNI,
}
DEFAULT_MODEL = {
    "image2video": "kling-v1",
    "multi-image2video": "kling-v1-6",
    "text2video": "kling-v1",
    "omni-video": "kling-video-o1",
}
NO_TAIL = {"kling-v2-master", "kling-v2-1-master"}
TAIL_IN_PRO_ONLY = {"kling-v1-5", "kling-v1-6", "kling-v2-1", "kling-v2-5-turbo", "kling-v2-6"}
SECONDS = {"kling-v3": range(3, 16), "kling-v3-omni": range(3, 16), "kling-video-o1": range(3, 11)}  # others: 5 or 10
MASK_FORMS: dict[str, type | tuple[type, ...]] = {"array": list, "object": dict, "either": (list, dict)}
# Units per second for std, pro and 4k, by model and by requested feature, from Kling's pricing page (captured in
# September 2026). One unit lists at $0.14. A combination without a row costs the same as 2.5-turbo: a guess.
UNITS = {
    ("kling-v3", "silent"): ("0.6", "0.8", "3.0"),
    ("kling-v3", "sound"): ("0.9", "1.2", "3.0"),
    ("kling-v3", "voice"): ("0.9", "1.2", "3.0"),  # a guess: the page has a voice price for 2.6 only
    ("kling-v3-omni", "silent"): ("0.6", "0.8", "3.0"),
    ("kling-v3-omni", "sound"): ("0.8", "1.0", "3.0"),
    ("kling-v3-omni", "video"): ("0.9", "1.2", "3.0"),
    ("kling-video-o1", "silent"): ("0.6", "0.8", "0.8"),
    ("kling-video-o1", "video"): ("0.9", "1.2", "1.2"),
    ("kling-v2-6", "sound"): ("1.0", "1.0", "1.0"),
    ("kling-v2-6", "voice"): ("1.2", "1.2", "1.2"),
}
DOLLARS_A_UNIT = Decimal("0.14")


class Invalid(ValueError):
    """A body that breaks a rule; the text is the message of 400, 1201."""


def model_of(kind: str, body: dict[str, Any]) -> str:
    """Return model_name, or the kind's default. The old field ``model`` is accepted and ignored, as at Kling."""
    return str(body.get("model_name") or DEFAULT_MODEL[kind])


def mode_of(kind: str, body: dict[str, Any]) -> str:
    return str(body.get("mode") or ("pro" if kind == "omni-video" else "std"))


def seconds_of(body: dict[str, Any]) -> int:
    return int(body.get("duration") or 5)


def prompts_of(body: Any) -> str:
    """Return every prompt of a body of any type as one text."""
    if not isinstance(body, dict):
        return ""
    shots = body.get("multi_prompt")
    holders = [body, *(one for one in shots if isinstance(one, dict))] if isinstance(shots, list) else [body]
    return "\n".join(str(one.get(name) or "") for one in holders for name in ("prompt", "negative_prompt"))


def charged(units: str, pays_in: str) -> dict[str, Any]:
    """Return the cost fields of a finished task of the official host.

    The names are documented. The balance that an account paid in units reports, and the units that an account paid in
    cash reports, are a guess.
    """
    dollars = f"{(Decimal(units) * DOLLARS_A_UNIT).normalize():f}"
    if pays_in == "cash":
        balance = {"quota": dollars, "list_price": dollars}
        return {"final_unit_deduction": "0", "final_balance_deduction": balance}
    return {"final_unit_deduction": units, "final_balance_deduction": {"quota": "0", "list_price": "0"}}


def picture_fields(body: dict[str, Any]) -> list[str]:
    """Return every picture of the video, first to last: base64 or an address."""
    items = [one for one in body.get("image_list") or [] if isinstance(one, dict)]
    listed = [one.get("image") or one.get("image_url") for one in items]
    return [str(one) for one in (body.get("image"), *listed, body.get("image_tail")) if one]


def units_of(kind: str, body: dict[str, Any]) -> str:
    """Return the task's cost in the format of final_unit_deduction."""
    asked = "video" if body.get("video_list") else "silent"
    if body.get("sound") == "on":
        asked = "voice" if body.get("voice_list") else "sound"
    row = UNITS.get((model_of(kind, body), asked), ("0.3", "0.5", "0.5"))
    price = Decimal(row[("std", "pro", "4k").index(mode_of(kind, body))])
    return f"{(price * seconds_of(body)).normalize():f}"


def check(
    kind: str, body: Any, known_models: set[str], refused_models: set[str], masks: str = "either"
) -> Refusal | None:
    """Return Kling's refusal of a submit's body, or None. `masks`: the accepted form of dynamic_masks."""
    if not isinstance(body, dict):
        return Refusal(400, 1201, "Failed to resolve the request body")
    try:
        for rule in RULES:
            rule(kind, body)
    except Invalid as broken:
        return Refusal(400, 1201, str(broken))
    if body.get("dynamic_masks") and not isinstance(body["dynamic_masks"], MASK_FORMS[masks]):
        return Refusal(400, 1201, f"dynamic_masks must be an {masks}")
    model = model_of(kind, body)
    if model in refused_models:  # Kling's text, as captured; the capture has no HTTP status and no code: a guess
        return Refusal(404, 1203, f"The model '{model}' has been discontinued and is no longer available.")
    if model not in MODELS[kind] | known_models:
        return Refusal(404, 1203, f"model {model} not found")
    try:
        _durations(kind, body)
    except Invalid as broken:
        return Refusal(400, 1201, str(broken))
    return None


def _types(kind: str, body: dict[str, Any]) -> None:
    """Check types: strings are strings (a number as duration is refused), lists are lists of objects."""
    strings = ("model_name", "prompt", "negative_prompt", "image", "image_tail", "mode", "duration", "sound",
               "aspect_ratio", "callback_url", "external_task_id", "static_mask")  # fmt: skip
    for name in strings:
        if not isinstance(body.get(name, ""), (str, type(None))):
            raise Invalid(f"{name} must be a string")
    for name in ("image_list", "element_list", "voice_list", "multi_prompt"):
        value = body.get(name) or []
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise Invalid(f"{name} must be a list of objects")
    for name, allowed in (("mode", ("std", "pro", "4k")), ("sound", ("on", "off"))):
        if body.get(name) and body[name] not in allowed:
            raise Invalid(f"{name} value '{body[name]}' is invalid")


def _texts(kind: str, body: dict[str, Any]) -> None:
    for name in ("prompt", "negative_prompt"):
        if len(body.get(name) or "") > PROMPT_LIMIT:
            raise Invalid(f"{name} must not be longer than {PROMPT_LIMIT} characters")
    needed = kind != "image2video" and not _is_on(body.get("multi_shot"))
    if needed and not (body.get("prompt") or "").strip():
        raise Invalid("prompt can not be empty")


def _pictures(kind: str, body: dict[str, Any]) -> None:
    if kind == "image2video" and not (body.get("image") or body.get("image_tail")):
        raise Invalid("image can not be null")
    items = body.get("image_list") or []
    if kind == "multi-image2video" and not 1 <= len(items) <= 4:
        raise Invalid("image_list must hold 1 to 4 images")
    if kind == "omni-video" and len(items) > 7:
        raise Invalid("image_list must hold at most 7 images")
    key = "image_url" if kind == "omni-video" else "image"
    if any(not isinstance(one.get(key), str) or not one[key] for one in items):
        raise Invalid(f"image_list.{key} can not be null")
    for one in (*picture_fields(body), *_masks(body)):
        if not one.startswith(("http://", "https://")):
            unbase64(one)


def unbase64(text: str) -> bytes:
    """Return the bytes of an inline picture: base64 without a data: prefix. Line breaks are accepted."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("File is not in a valid base64 format") from None


def _masks(body: dict[str, Any]) -> Iterator[str]:
    groups = body.get("dynamic_masks") or []
    groups = [groups] if isinstance(groups, dict) else groups
    for one in (body.get("static_mask"), *(group.get("mask") for group in groups if isinstance(group, dict))):
        if one:
            yield str(one)


def _combinations(kind: str, body: dict[str, Any]) -> None:
    groups = ("image_tail", "camera_control", "dynamic_masks", "static_mask")
    used = {"masks" if "mask" in name else name for name in groups if body.get(name)}
    if len(used) > 1:
        raise Invalid("image_tail, dynamic_masks/static_mask and camera_control are mutually exclusive")
    if body.get("element_list") and body.get("voice_list"):
        raise Invalid("element_list and voice_list can not be used together")
    if body.get("voice_list") and body.get("sound") != "on":
        raise Invalid("voice_list needs sound on")
    scale = body.get("cfg_scale")
    if scale is not None and (isinstance(scale, (str, bool)) or not 0 <= scale <= 1):
        raise Invalid("cfg_scale must be between 0 and 1")
    ratios = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3")
    if kind != "image2video" and body.get("aspect_ratio") and body["aspect_ratio"] not in ratios:
        raise Invalid(f"aspect_ratio value '{body['aspect_ratio']}' is invalid")


def _shots(kind: str, body: dict[str, Any]) -> None:
    if not _is_on(body.get("multi_shot")):
        return
    if body.get("shot_type") not in ("customize", "intelligence"):
        raise Invalid("shot_type is required when multi_shot is true")
    shots = body.get("multi_prompt") or []
    if body["shot_type"] == "intelligence":
        return
    if not 1 <= len(shots) <= 6 or any(len(str(one.get("prompt") or "")) > SHOT_LIMIT for one in shots):
        raise Invalid(f"multi_prompt must hold 1 to 6 shots of at most {SHOT_LIMIT} characters")
    lengths = [str(one.get("duration")) for one in shots]
    if not all(one.isdecimal() for one in lengths) or sum(map(int, lengths)) != int(body.get("duration") or 5):
        raise Invalid("the durations of multi_prompt must add up to duration")


def _is_on(value: Any) -> bool:
    """Return multi_shot as a boolean; Kling's own sample writes it as a string."""
    return value is True or value == "true"


def _durations(kind: str, body: dict[str, Any]) -> None:
    """Check the table of model, mode and duration, and which of them take an end frame."""
    model, mode, seconds = model_of(kind, body), mode_of(kind, body), seconds_of(body)
    named = f"model/mode/duration({model}/{mode}/{seconds})"
    allowed = SECONDS.get(model, (5, 10)) if model in RETIRED | LIVING | OMNI else range(1, 61)
    if seconds not in allowed or (mode == "4k" and model not in ("kling-v3", "kling-v3-omni")):
        raise Invalid(f"{named} is not supported")
    if body.get("sound") == "on" and model == "kling-v2-6" and mode != "pro":
        raise Invalid(f"{named} is not supported with sound")  # the capability map's rule; the text is a guess
    if body.get("image_tail"):
        if model in NO_TAIL:
            raise Invalid("Image tail is not supported by the current model")
        if model in TAIL_IN_PRO_ONLY and mode == "std":
            raise Invalid(f"{named} is not supported with image_tail")


def _duration_word(kind: str, body: dict[str, Any]) -> None:
    word = body.get("duration") or "5"
    if not word.isdecimal() or not 1 <= int(word) <= 60:
        raise Invalid(f"duration value '{word[:20]}' is invalid")


RULES: tuple[Callable[[str, dict[str, Any]], None], ...] = (
    _types, _duration_word, _texts, _pictures, _combinations, _shots,
)  # fmt: skip
