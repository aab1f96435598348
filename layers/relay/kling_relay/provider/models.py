"""What each model can do, how long it takes and what it costs: `models.json`, with the operator's overlay.

An unlisted model name passes, and so does a listed model with an unlisted kind: Kling adds models over time, and relays
map names. A model that is known not to support a request is refused before anything is paid.
"""

import json
import math
from collections.abc import Callable
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from kling_relay.errors import KlingError, bad_parameter
from kling_relay.kinds.fields import Mode, default_mode
from kling_relay.observability import logger

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Seconds = Annotated[int, Meta(ge=1, le=60)]
RenderSeconds = Annotated[int, Meta(ge=1, le=3600)]
Price = Annotated[float, Meta(gt=0, le=100)]
Kind = Literal["image2video", "multi-image2video", "text2video", "omni-video"]
Priced = Literal[
    "std", "pro", "4k", "std/sound", "pro/sound", "4k/sound",
    "std/voice", "pro/voice", "4k/voice", "std/video", "pro/video", "4k/video",
]  # fmt: skip
Feature = Literal[
    "image_tail",
    "image_tail_only",
    "motion_brush",
    "camera_control",
    "camera_preset",
    "sound",
    "multi_shot",
    "voice_list",
    "element_list",
    "text_only",
    "first_frame",
    "frames_among_many",
]
_LONGEST_SECONDS = 15
_FEATURE_LABELS = {
    "image_tail_only": "image_tail without image",
    "motion_brush": "dynamic_masks/static_mask",
    "camera_preset": 'a camera_control.type other than "simple"',
    "multi_shot": "multi_shot true",
    "sound": 'sound "on"',
    "text_only": "text alone",
    "first_frame": "a first_frame",
    "frames_among_many": "a first_frame or end_frame among more than 2 images",
}


class Model(Struct, forbid_unknown_fields=True):
    """One model of the catalogue.

    `modes`: durations (s) by mode. `features`: for each feature, patterns of kind/mode/duration that support it; a
    missing feature is not supported. `exclusive`: features that cannot be combined. `drops`: fields that are left out
    of its requests. `retired`: the day on which Kling switched it off; relays may still have it. `units_per_second`:
    maximum cost of a second of video, in Kling's units. `units_source`: the entry of `price_sources` that the prices
    are copied from, except those in `units_estimated`, which are on no price list of Kling's.
    """

    kinds: list[Kind] = []
    modes: dict[Mode, list[Seconds]] = {}
    features: dict[Feature, list[Name]] = {}
    exclusive: list[list[Feature]] = []
    drops: list[Literal["cfg_scale"]] = []
    retired: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d\Z")] | None = None
    render_p5_seconds: dict[Name, RenderSeconds] = {}
    units_per_second: dict[Priced, Price] = {}
    units_estimated: list[Priced] = []
    units_source: Name = "estimate"


class Catalogue(Struct, forbid_unknown_fields=True):
    """All models and their defaults.

    `price_sources`: sources of prices, by the name that `units_source` uses. `use_instead`: for each kind, the
    replacement of a retired model, as text for people.
    """

    default_render_p5_seconds: RenderSeconds
    default_units_per_second: Price
    models: dict[Name, Model]
    price_sources: dict[Name, str] = {}
    use_instead: dict[Kind, str] = {}
    about: str = ""


class OverlayError(ValueError):
    """An overlay that cannot be used; the text gives position and cause."""


@cache
def shipped() -> Catalogue:
    """Return the catalogue in `models.json`."""
    return msgspec.convert(_shipped_data(), Catalogue)


@cache
def _shipped_data() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((Path(__file__).parent / "models.json").read_text())
    return loaded


def current(parameter: str, read: Callable[[], str | None]) -> Catalogue:
    """Return the catalogue with the operator's overlay, or the shipped one if `read` returns None.

    `read` returns the text of `parameter`, and raises OverlayError if it cannot. An overlay that cannot be read or used
    is logged, and the shipped catalogue is returned.
    """
    try:
        text = read()
        return shipped() if text is None else overlaid(text)
    except OverlayError as exc:
        logger.error("models_overlay_ignored", extra={"parameter": parameter, "reason": str(exc)[:300]})
        return shipped()


def overlaid(text: str) -> Catalogue:
    """Merge a JSON merge patch (RFC 7396: null removes) into the shipped catalogue. Raises OverlayError."""
    try:
        patch = msgspec.json.decode(text)
        if not isinstance(patch, dict):
            raise OverlayError("must be a JSON object")
        return msgspec.convert(_merged(_shipped_data(), patch), Catalogue)
    except (msgspec.DecodeError, RecursionError) as exc:  # a ValidationError is one too
        raise OverlayError(str(exc)) from exc


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        merged[name] = _merged(merged.get(name), value)
    return {name: value for name, value in merged.items() if value is not None}


def render_p5_seconds(catalogue: Catalogue, model_name: str, mode: str, duration: str) -> int:
    """Return the seconds after which the first renders of this kind usually finish: earlier polls are wasted.

    An unknown model, or a combination without data, gets the catalogue's default.
    """
    model = catalogue.models.get(model_name) or Model()
    return model.render_p5_seconds.get(f"{mode}/{duration}", catalogue.default_render_p5_seconds)


def estimate(catalogue: Catalogue, model_name: str, kind: str, body: dict[str, Any]) -> int:
    """Estimate the maximum cost of a task with a checked `body`, in thousandths of a unit, rounded up.

    A combination without a price gets the catalogue's default. An edited video sets its own length, which is unknown in
    advance: it counts as the longest that Kling accepts.
    """
    model = catalogue.models.get(model_name) or Model()
    mode: Mode = body.get("mode", default_mode(kind))
    price = model.units_per_second.get(_priced(mode, body), catalogue.default_units_per_second)
    edits = any(video.get("refer_type") != "feature" for video in body.get("video_list", []))
    seconds = _LONGEST_SECONDS if edits else int(body.get("duration", "5"))
    return math.ceil(Decimal(str(price)) * 1000 * seconds)  # as the decimal that was written, not as its nearest float


def _priced(mode: Mode, body: dict[str, Any]) -> Priced:
    """Return the price that applies to `body`.

    Kling refuses a reference video with sound, and a voice without sound.
    """
    if body.get("video_list"):
        return f"{mode}/video"  # type: ignore[return-value]
    if body.get("sound") != "on":
        return mode
    return f"{mode}/voice" if body.get("voice_list") else f"{mode}/sound"  # type: ignore[return-value]


def check_retired(catalogue: Catalogue, model_name: str, kind: str, *, named: bool) -> None:
    """Raise KlingError 1201 for a model that Kling has retired. `named`: the client named it; else it is a default."""
    model = catalogue.models.get(model_name)
    if model is None or model.retired is None:
        return
    subject = f"{model_name} was" if named else f"is required, because {model_name}, the default of {kind}, was"
    instead = catalogue.use_instead.get(kind)  # type: ignore[call-overload]
    advice = f"; use {instead}" if instead else ""
    raise bad_parameter("model_name", f"{subject} discontinued by Kling on {model.retired}{advice}")


def check(catalogue: Catalogue, model_name: str, kind: str, body: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Check that the model supports a checked `body`. Return the fields to leave out, and notes for the log.

    Raises KlingError, worded like Kling's own, if the model certainly does not support it.
    """
    model = catalogue.models.get(model_name)
    if model is None:
        return [], [f"model {model_name[:64]!r} is not in the catalogue; not checked"]
    notes = [f"{model_name} was retired on {model.retired}"] if model.retired else []
    if kind not in model.kinds:
        return [], [*notes, f"{model_name} is not listed for {kind}; not checked"]
    mode, duration = body.get("mode", default_mode(kind)), body.get("duration", "5")
    named = f"model/mode/duration({model_name}/{mode}/{duration})"
    if int(duration) not in model.modes.get(mode, []):
        raise KlingError(1201, f"{named} is not supported; {model_name} supports {_offer(model)}")
    used = _features(kind, body)
    for feature in used:
        where = model.features.get(feature, [])
        if not any(fnmatchcase(f"{kind}/{mode}/{duration}", pattern) for pattern in where):
            raise KlingError(1201, f"{named} is not supported with {_word(feature)}; {_where(model_name, where)}")
    for group in model.exclusive:
        if set(group) <= set(used):
            raise KlingError(1201, f"{named} is not supported with {' and '.join(map(_word, group))} together")
    dropped: list[str] = [name for name in model.drops if name in body]
    return dropped, [*notes, *(f"{name} is not supported by {model_name}; ignored" for name in dropped)]


def _features(kind: str, body: dict[str, Any]) -> list[Feature]:
    """Return the features that `body` uses, in the order of their checks. False and "off" use nothing."""
    camera = body.get("camera_control")
    frames = [picture["type"] for picture in body.get("image_list", []) if "type" in picture]
    references = any(body.get(name) for name in ("image_list", "element_list", "video_list"))
    uses: dict[Feature, bool] = {
        "image_tail": "image_tail" in body,
        "image_tail_only": "image_tail" in body and "image" not in body,
        "motion_brush": "static_mask" in body or "dynamic_masks" in body,
        "camera_control": camera is not None,
        "camera_preset": camera is not None and camera.get("type", "simple") != "simple",
        "sound": body.get("sound") == "on",
        "multi_shot": body.get("multi_shot", False),
        "voice_list": bool(body.get("voice_list")),
        "element_list": bool(body.get("element_list")),
        "text_only": kind == "omni-video" and not references,
        "first_frame": "first_frame" in frames,
        "frames_among_many": bool(frames) and len(body["image_list"]) > 2,
    }
    return [feature for feature, is_used in uses.items() if is_used]


def _word(feature: str) -> str:
    return _FEATURE_LABELS.get(feature, feature)


def _where(model_name: str, patterns: list[str]) -> str:
    if not patterns:
        return f"{model_name} does not support it"
    return f"{model_name} supports it with {', '.join(pattern.removeprefix('*/') for pattern in patterns)}"


def _offer(model: Model) -> str:
    return ", ".join(
        f"{mode} ({', '.join(map(str, seconds))} s)"
        if len(seconds) < 4
        else f"{mode} ({seconds[0]} to {seconds[-1]} s)"
        for mode, seconds in model.modes.items()
    )
