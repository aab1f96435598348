"""The request bodies: schema, normalising, rules. Pure.

Sources: the CometAPI, YutoAI and PowerTokens pages; where they disagree, Kling's official legacy pages decide
(prompts up to 2,500 characters; `image_list` up to four). What clients really send is forgiven: "", null, [] and {} are
absent, unknown fields are left out, `duration` may be a number, a `data:` prefix is stripped, `model` counts where
`model_name` is missing. Every text and list has a limit, so that a task always fits into its row.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from kling_relay import images
from kling_relay.errors import KlingError, bad_parameter

MAX_BODY_BYTES = 5_500_000  # Lambda itself takes 6 MB with everything around the body

Text = Annotated[str, Meta(max_length=2500)]
Url = Annotated[str, Meta(max_length=2048, pattern=r"^(?i:https?)://[^\s/][^\s]*\Z")]
Reference = Annotated[str, Meta(max_length=256)]
Pixel = Annotated[int, Meta(ge=-100_000, le=100_000)]
Duration = Literal["3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"]
OnOff = Literal["on", "off"]


class Point(Struct, frozen=True):
    """Pixels from the lower left corner."""

    x: Pixel
    y: Pixel


class DynamicMask(Struct, omit_defaults=True):
    mask: str
    trajectories: Annotated[list[Point], Meta(min_length=2, max_length=77)]


class CameraConfig(Struct, omit_defaults=True):
    """Exactly one value may differ from zero."""

    horizontal: Annotated[float, Meta(ge=-10, le=10)] = 0
    vertical: Annotated[float, Meta(ge=-10, le=10)] = 0
    pan: Annotated[float, Meta(ge=-10, le=10)] = 0
    tilt: Annotated[float, Meta(ge=-10, le=10)] = 0
    roll: Annotated[float, Meta(ge=-10, le=10)] = 0
    zoom: Annotated[float, Meta(ge=-10, le=10)] = 0


class CameraControl(Struct, omit_defaults=True):
    type: Literal["simple", "down_back", "forward_up", "right_turn_forward", "left_turn_forward"]
    config: CameraConfig | None = None


class Shot(Struct):
    index: Annotated[int, Meta(ge=0, le=100)]
    prompt: Annotated[str, Meta(max_length=512)]
    duration: Literal["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"]


class Element(Struct):
    element_id: Annotated[int, Meta(ge=0, le=2**63 - 1)] | Annotated[str, Meta(max_length=64)]


class Voice(Struct):
    voice_id: Annotated[str, Meta(max_length=128)]


class Watermark(Struct):
    enabled: bool


class ListedImage(Struct):
    image: str


class Image2Video(Struct, omit_defaults=True):
    model_name: Annotated[str, Meta(max_length=128)] | None = None
    image: str | None = None
    image_tail: str | None = None
    prompt: Text | None = None
    negative_prompt: Text | None = None
    cfg_scale: Annotated[float, Meta(ge=0, le=1)] | None = None
    mode: Literal["std", "pro", "4k"] | None = None
    duration: Duration | None = None
    sound: OnOff | None = None
    static_mask: str | None = None
    dynamic_masks: Annotated[list[DynamicMask], Meta(max_length=6)] | None = None
    camera_control: CameraControl | None = None
    multi_shot: bool = False
    shot_type: Literal["customize", "intelligence"] | None = None
    multi_prompt: Annotated[list[Shot], Meta(min_length=1, max_length=6)] | None = None
    element_list: Annotated[list[Element], Meta(max_length=3)] | None = None
    voice_list: Annotated[list[Voice], Meta(max_length=2)] | None = None
    watermark_info: Watermark | None = None
    callback_url: Url | None = None
    external_task_id: Reference | None = None


class MultiImage2Video(Struct, omit_defaults=True):
    image_list: Annotated[list[ListedImage], Meta(min_length=1, max_length=4)]
    prompt: Text
    model_name: Annotated[str, Meta(max_length=128)] | None = None
    negative_prompt: Text | None = None
    mode: Literal["std", "pro"] | None = None
    duration: Duration | None = None
    aspect_ratio: Literal["16:9", "9:16", "1:1"] | None = None
    cfg_scale: Annotated[float, Meta(ge=0, le=1)] | None = None
    watermark_info: Watermark | None = None
    callback_url: Url | None = None
    external_task_id: Reference | None = None


KINDS: dict[str, type[Struct]] = {"image2video": Image2Video, "multi-image2video": MultiImage2Video}


@dataclass(slots=True)
class Request:
    """A body that passed every rule.

    `body`: what goes upstream, without the two fields that are the client's own affair with us (`callback_url`,
    `external_task_id`); an inline image stands there as {"inline": name} with its bytes in `images[name]`, an uploaded
    one as {"ref": its s3:// reference}.
    """

    kind: str
    body: dict[str, Any]
    images: dict[str, bytes] = field(default_factory=dict)
    callback_url: str | None = None
    external_task_id: str | None = None


def parse(kind: str, raw: bytes) -> Request:
    """Check and normalise a request body; raises KlingError that names the field, the limit and what was sent."""
    if kind not in KINDS:
        raise KlingError(1202, f"no such kind of task: {kind[:64]!r}; there are {', '.join(KINDS)}")
    if len(raw) > MAX_BODY_BYTES:
        raise KlingError(
            1201,
            f"body: at most {MAX_BODY_BYTES} bytes fit into a request, {len(raw)} were sent: give the image as a URL, "
            "or upload it (POST /kling/v1/uploads)",
            http=413,
        )
    body = _convert(_forgiven(_object(raw), KINDS[kind]), KINDS[kind])
    if isinstance(body, Image2Video):
        _check_image2video(body)
    request = Request(kind, msgspec.to_builtins(body))
    request.callback_url = request.body.pop("callback_url", None)
    request.external_task_id = request.body.pop("external_task_id", None)
    for name, holder, key in image_places(request.body):
        holder[key] = _image(name, holder[key], request.images)
    return request


def image_places(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every place of `body` that holds an image: its name for people, the dict that holds it, and the key in there."""
    for name in ("image", "image_tail", "static_mask"):
        if name in body:
            yield name, body, name
    for index, item in enumerate(body.get("dynamic_masks", [])):
        yield f"dynamic_masks[{index}].mask", item, "mask"
    for index, item in enumerate(body.get("image_list", [])):
        yield f"image_list[{index}].image", item, "image"


def _object(raw: bytes) -> dict[str, Any]:
    if not raw.strip():
        raise KlingError(1201, "body: a JSON object is expected, an empty body was sent")
    try:
        sent = msgspec.json.decode(raw)  # strict: no NaN, no half surrogates, which nothing after this could store
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise KlingError(
            1201, f"body: a JSON object is expected, this is no JSON ({len(raw)} bytes were sent)"
        ) from exc
    if not isinstance(sent, dict):
        raise KlingError(1201, f"body: a JSON object is expected, {_describe(sent)} was sent")
    return sent


def _forgiven(sent: dict[str, Any], schema: type[Struct]) -> dict[str, Any]:
    """`sent` as the schema wants it: without what is unknown or blank, and with what clients write in other ways."""
    sent = _without_blanks({name: sent[name] for name in (*schema.__struct_fields__, "model") if name in sent})
    if "model" in sent:
        sent.setdefault("model_name", sent.pop("model"))
    if isinstance(sent.get("dynamic_masks"), dict):  # two pages of the same provider say object, two say array
        sent["dynamic_masks"] = [sent["dynamic_masks"]]
    shots = sent.get("multi_prompt")
    for holder in (sent, *(shots if isinstance(shots, list) else ())):
        if isinstance(holder, dict) and "duration" in holder:
            holder["duration"] = _digits(holder["duration"])
    if sent.get("multi_shot") in ("true", "false"):  # Kling's own sample writes it so
        sent["multi_shot"] = sent["multi_shot"] == "true"
    return sent


def _without_blanks(value: Any, depth: int = 3) -> Any:
    """Objects without their empty fields, down to where the schema ends; the entries of a list keep their places."""
    if isinstance(value, list) and depth:
        return [_without_blanks(item, depth - 1) for item in value]
    if not isinstance(value, dict) or not depth:
        return value
    shorter = {name: _without_blanks(item, depth - 1) for name, item in value.items()}
    return {name: item for name, item in shorter.items() if not _is_blank(item)}


def _is_blank(value: Any) -> bool:
    return value in (None, "", [], {}) or (isinstance(value, str) and value.isspace())


def _digits(value: Any) -> Any:
    """5 and 5.0 as "5"; everything else as it is."""
    is_short = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 100
    return str(int(value)) if is_short and value == int(value) else value


def _convert(sent: dict[str, Any], schema: type[Struct]) -> Struct:
    try:
        return msgspec.convert(sent, schema)
    except msgspec.ValidationError as exc:
        problem = str(exc)  # in words for programmers, which may repeat what was sent: only its path is used
    place = re.search(r" - at `\$\.?([\w.\[\]]*)`\Z", problem)
    path = place[1] if place else ""
    missing = re.match(r"Object missing required field `(\w+)`", problem)
    if missing:
        raise bad_parameter(f"{path}.{missing[1]}".lstrip("."), "this field is required; it was not sent, or is empty")
    raise _refusal(path, sent, schema)


def _refusal(path: str, value: Any, schema: type[Struct]) -> KlingError:
    """What the schema wants at `path`, and what was sent there."""
    from msgspec import inspect  # only for refusals: nobody else pays for the import

    expected: Any = inspect.type_info(schema)
    for step in re.findall(r"\w+", path):
        if isinstance(value, list):
            value, expected = value[int(step)], expected.item_type
        else:
            value = value[step]
            expected = next(field.type for field in expected.fields if field.name == step)
        if isinstance(expected, inspect.UnionType) and expected.includes_none:
            expected = expected.types[0]
    sent = _describe(value, quote=isinstance(expected, inspect.LiteralType))
    return bad_parameter(path, f"{_wanted(expected)} is expected; sent: {sent}")


def _wanted(kind: Any) -> str:
    """A type of the schema, with its limits, in a client's words."""
    name = type(kind).__name__
    if name == "UnionType":
        return " or ".join(map(_wanted, kind.types))
    if name == "LiteralType":
        return f"one of {', '.join(sorted(kind.values, key=lambda word: (word.isdecimal() and len(word), word)))}"
    if name == "ListType":
        return f"a list of {kind.min_length or 0} to {kind.max_length} entries"
    if name == "StrType":
        what = "an http(s) URL" if kind.pattern else "a text"
        return f"{what} of at most {kind.max_length} characters" if kind.max_length else what
    if name == "IntType":
        return f"a whole number from {kind.ge} to {kind.le}"
    if name == "FloatType":
        return f"a number from {kind.ge:g} to {kind.le:g}"
    return "true or false" if name == "BoolType" else "an object"


def _describe(value: Any, *, quote: bool = False) -> str:
    """What was sent, in a few characters: a text itself only where it is no prompt, image or address (`quote`)."""
    if isinstance(value, str):
        return repr(value) if quote and len(value) <= 32 else f"a text of {len(value)} characters"
    if isinstance(value, (list, dict)):
        kind = "a list" if isinstance(value, list) else "an object"
        return f"{kind} with {len(value)} entries"
    if isinstance(value, int) and abs(value) >= 10**15:
        return "a number of more than 15 digits"
    return json.dumps(value)


def _check_image2video(body: Image2Video) -> None:
    if body.image is None and body.image_tail is None:
        raise bad_parameter("image", "at least one of image and image_tail is required, neither was sent")
    brushes = body.static_mask is not None or body.dynamic_masks is not None
    groups = {
        "image_tail": body.image_tail is not None,
        "dynamic_masks/static_mask": brushes,
        "camera_control": body.camera_control is not None,
    }
    used = [name for name, present in groups.items() if present]
    if len(used) > 1:
        raise bad_parameter(used[0], f"cannot be used together with {used[1]}: choose one of {', '.join(groups)}")
    if body.camera_control is not None:
        _check_camera(body.camera_control)
    if body.multi_shot:
        _check_shots(body)
    if body.element_list and body.voice_list:
        raise bad_parameter("voice_list", "cannot be used together with element_list")
    if body.voice_list and body.sound != "on":
        raise bad_parameter("voice_list", f'needs sound "on"; sent: {json.dumps(body.sound)}')


def _check_camera(camera: CameraControl) -> None:
    if camera.type != "simple":
        if camera.config is not None:
            raise bad_parameter("camera_control.config", f'is only for type "simple"; sent: type {camera.type!r}')
        return
    moves = [] if camera.config is None else [value for value in msgspec.structs.astuple(camera.config) if value]
    if len(moves) != 1:
        raise bad_parameter(
            "camera_control.config", f'type "simple" needs exactly one value that is not zero; sent: {len(moves)}'
        )


def _check_shots(body: Image2Video) -> None:
    if body.shot_type is None:
        raise bad_parameter("shot_type", "is required when multi_shot is true")
    if body.shot_type != "customize":
        return
    if not body.multi_prompt:
        raise bad_parameter("multi_prompt", 'is required when shot_type is "customize" (1 to 6 shots)')
    total, asked = sum(int(shot.duration) for shot in body.multi_prompt), int(body.duration or "5")
    if total != asked:
        raise bad_parameter(
            "multi_prompt", f"the shots must last {asked} s together, as duration says; sent: {total} s"
        )


def _image(name: str, value: str, found: dict[str, bytes]) -> Any:
    """A URL stays; an s3:// reference is marked as one; base64 is decoded, checked and kept in `found`."""
    start = value[:8].lower()
    if start.startswith(("http://", "https://")):
        if len(value) > 8192 or not re.fullmatch(r"https?://[^\s/]\S*", value, re.IGNORECASE):
            problem = "a URL has a host, no blanks and at most 8192 characters"
            raise bad_parameter(name, f"{problem}; sent: a text of {len(value)} characters")
        return value
    if start.startswith("s3://"):  # an upload, which intake looks at
        return {"ref": value}
    text = value.partition(",")[2] if start.startswith("data:") else value
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
        images.check(data)
    except (binascii.Error, ValueError) as exc:
        problem = str(exc) if isinstance(exc, images.ImageError) else "neither an http(s) URL nor valid base64"
        raise bad_parameter(name, f"{problem}; sent: a text of {len(value)} characters") from exc
    found[name] = data
    return {"inline": name}
