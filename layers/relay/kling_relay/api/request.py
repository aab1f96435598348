"""Check and normalise a request body. Pure.

Common deviations of clients are accepted: "", null, [] and {} count as absent, unknown fields are left out, `duration`
may be a number, a `data:` prefix is stripped, `model` counts if `model_name` is missing, type_coercion.py converts
types. kinds/fields.py has fields and limits, kinds/rules.py the rules between fields, and provider/models.py the
capabilities of each model.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Struct

from kling_relay.api import json_body
from kling_relay.errors import KlingError, bad_parameter
from kling_relay.kinds import rules
from kling_relay.kinds.fields import FIELDS, KINDS
from kling_relay.kinds.image_places import image_places
from kling_relay.media import images
from kling_relay.tasks.s3_source import IMAGE_SUFFIXES, MAX_KEY_BYTES

MAX_BODY_BYTES = 5_500_000  # Lambda itself takes 6 MB with everything around the body

_MODES = {"std (high performance)": "std", "pro (high quality)": "pro"}  # YutoAI's page spells them so
_MULTI_SHOT = {"true": True, "false": False}  # Kling's own sample writes it as a text


@dataclass(slots=True)
class Request:
    """A body that passed every rule.

    `body`: the body to send upstream, without the two fields that only this API uses (`callback_url`,
    `external_task_id`). An inline image is {"inline": name} with its bytes in `images[name]`, an uploaded one {"ref":
    its s3:// reference}, one from the input bucket {"ref": its key}. `notes`: accepted fields without effect, for the
    log.
    """

    kind: str
    body: dict[str, Any]
    images: dict[str, bytes] = field(default_factory=dict)
    callback_url: str | None = None
    external_task_id: str | None = None
    notes: list[str] = field(default_factory=list)


def idempotency_key(given: str | None) -> str | None:
    """Return the header `Idempotency-Key`, None if empty. Raises KlingError if it is too long."""
    if given is not None and len(given) > 255:
        raise bad_parameter("Idempotency-Key", "must have at most 255 characters", len(given))
    return given or None


def parse(kind: str, raw: bytes) -> Request:
    """Check and normalise a request body. Raises KlingError that names the field, the limit and the received value."""
    if kind not in KINDS:
        raise KlingError(1202, f"kind: must be one of {', '.join(KINDS)} (got {kind[:64]!r})")
    if len(raw) > MAX_BODY_BYTES:
        raise KlingError(
            1201,
            f"body: must have at most {MAX_BODY_BYTES} bytes (got {len(raw)}); send the image as a URL, "
            "or upload it first (POST /kling/v1/uploads)",
            http=413,
        )
    return check(kind, read(raw))


def check(kind: str, given: dict[str, Any], folder: str | None = None) -> Request:
    """Check and normalise an object from `read`. Raises KlingError as `parse` does.

    `folder`: the folder of a request in the input bucket (its key with the slash at the end). Its images may also be
    keys relative to that folder.
    """
    try:
        return _check(kind, given, folder)
    except KlingError as error:
        from kling_relay.api import error_messages  # only for refusals: other requests do not pay for these imports

        if not (hint := error_messages.misspelt(error.message, given)):
            raise
        raise KlingError(error.code, f"{error.message}; {hint}", http=error.http) from error


def _check(kind: str, given: dict[str, Any], folder: str | None) -> Request:
    sent = _without_blanks(_known(given))
    body = _convert(_forgiven(sent, KINDS[kind]), KINDS[kind])
    rules.check(body)
    elsewhere = sorted(sent.keys() - {"model", *KINDS[kind].__struct_fields__})
    request = Request(kind, msgspec.to_builtins(body))
    request.notes = [f"{name} is not a field of {kind}; ignored" for name in elsewhere if sent[name] is not False]
    request.callback_url = request.body.pop("callback_url", None)
    request.external_task_id = request.body.pop("external_task_id", None)
    for name, holder, key in image_places(request.body):
        beside = None if folder is None else _key(name, holder[key], folder)
        holder[key] = _image(name, holder[key], request.images) if beside is None else {"ref": beside}
    return request


def read(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in `raw`. Raises KlingError."""
    if not raw.strip():
        raise KlingError(1201, "body: must be a JSON object (got an empty body)")
    try:
        sent = json_body.decode(raw)
    except (ValueError, RecursionError) as exc:
        raise KlingError(1201, f"body: must be a JSON object (got {len(raw)} bytes that are not valid JSON)") from exc
    if not isinstance(sent, dict):
        from kling_relay.api import error_messages

        raise KlingError(1201, f"body: must be a JSON object (got {error_messages.describe(sent)})")
    return sent


def _known(sent: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sent.items() if name in FIELDS or name == "model"}


def _forgiven(sent: dict[str, Any], schema: type[Struct]) -> dict[str, Any]:
    """Return `sent` in the schema's form: without unknown fields, and with clients' other spellings replaced."""
    body = {name: sent[name] for name in schema.__struct_fields__ if name in sent}
    if "model" in sent:
        body.setdefault("model_name", sent["model"])
    if isinstance(body.get("dynamic_masks"), dict):  # two pages of the same provider use an object, two an array
        body["dynamic_masks"] = [body["dynamic_masks"]]
    shots = body.get("multi_prompt")
    for holder in (body, *(shots if isinstance(shots, list) else ())):
        if isinstance(holder, dict) and "duration" in holder:
            holder["duration"] = _digits(holder["duration"])
    for name, spellings in (("mode", _MODES), ("multi_shot", _MULTI_SHOT)):
        if isinstance(body.get(name), str):
            body[name] = spellings.get(body[name], body[name])
    return body


def _without_blanks(value: Any, depth: int = 5) -> Any:
    """Return objects without their empty fields, down to the schema's depth; list entries keep their positions.

    A float without a fraction becomes an integer: 1.0 is 1.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list) and depth:
        return [_without_blanks(item, depth - 1) for item in value]
    if not isinstance(value, dict) or not depth:
        return value
    shorter = {name: _without_blanks(item, depth - 1) for name, item in value.items()}
    return {name: item for name, item in shorter.items() if not _is_blank(item)}


def _is_blank(value: Any) -> bool:
    return value in (None, "", [], {}) or (isinstance(value, str) and value.isspace())


def _digits(value: Any) -> Any:
    """Convert 5 and 5.0 to "5"; other values are unchanged."""
    is_short = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 100
    return str(int(value)) if is_short and value == int(value) else value


def _convert(sent: dict[str, Any], schema: type[Struct]) -> Struct:
    try:
        return msgspec.convert(sent, schema)
    except msgspec.ValidationError:
        from kling_relay.api import type_coercion  # other requests do not pay for msgspec's inspection

        sent = type_coercion.mended(sent, schema)
    try:
        return msgspec.convert(sent, schema)
    except msgspec.ValidationError as exc:
        problem = str(exc)  # text for programmers, which may repeat the received value: only its path is used
    location = re.search(r" - at `\$\.?([\w.\[\]]*)`\Z", problem)
    path = location[1] if location else ""
    missing = re.match(r"Object missing required field `(\w+)`", problem)
    if missing:
        raise bad_parameter(f"{path}.{missing[1]}".lstrip("."), "is required", "no value, or an empty one")

    from kling_relay.api import error_messages

    raise error_messages.refusal(path, sent, schema)


def _key(name: str, value: str, folder: str) -> str | None:
    """Return the key of an image below `folder`; None for other texts: base64 has no dot, URLs have a scheme."""
    start, is_named = value[:8].lower(), value[-6:].lower().endswith(IMAGE_SUFFIXES)
    if start.startswith(("http://", "https://", "data:")) or not (is_named or start.startswith("s3://")):
        return None
    key = folder + value
    if start.startswith("s3://") or {"", ".", ".."} & set(value.split("/")) or len(key.encode()) > MAX_KEY_BYTES:
        rule = f"must be a key below this folder, without .. and with at most {MAX_KEY_BYTES} bytes, a URL or base64"
        raise bad_parameter(name, rule, f"a string of {len(value)} characters")
    return key


def _image(name: str, value: str, found: dict[str, bytes]) -> Any:
    """Keep a URL, mark an s3:// reference, or decode and check base64 and store it in `found`."""
    start = value.lstrip()[:8].lower()
    if start.startswith(("http://", "https://", "s3://")):
        value = value.strip()  # text copied from a table ends with a line break
    if start.startswith(("http://", "https://")):
        if len(value) > 8192 or not re.fullmatch(r"https?://[^\s/]\S*", value, re.IGNORECASE):
            rule = "must be a URL with a host, without spaces, and with at most 8192 characters"
            raise bad_parameter(name, rule, f"a string of {len(value)} characters")
        return value
    if start.startswith("s3://"):  # an upload, which create.py checks
        return {"ref": value}
    text = value.partition(",")[2] if start.startswith("data:") else value
    try:
        data = json_body.image_bytes(text)
        images.check(data)
    except ValueError as exc:
        raise bad_parameter(name, f"{exc}; source: a string of {len(value)} characters") from exc
    found[name] = data
    return {"inline": name}
