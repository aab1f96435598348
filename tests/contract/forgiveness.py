"""Convert a request body to its plain form, by the description's leniencies, without the code under test.

A body must be refused if the schema refuses its plain form. No other leniency may exist. Accepted are exactly: fields
that are null, blank, [] or {}; unknown fields; `model` for `model_name`; whole numbers for a `duration`; one object for
the list of `dynamic_masks`; YutoAI's two spellings of `mode`; "true" and "false" for `multi_shot`; in fields of one
JSON type, numbers in digits, whole numbers for a text with a limit, "true" and "false"; blanks around an address. In an
upload: a null `size`, digits for it, other spellings of the media types, unknown fields.
"""

import json
import re
from typing import Any

from jsonschema import Draft202012Validator

Document = dict[str, Any]

_MODES = {"std (high performance)": "std", "pro (high quality)": "pro"}
_SHOTS = {"true": True, "false": False}


class Forgiveness:
    """The forgiven forms of the bodies that one OpenAPI document describes."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def is_valid(self, name: str, raw: bytes) -> bool:
        """Whether a body has a plain form that the schema `name` takes."""
        try:
            sent = json.loads(raw, parse_constant=_no_number)
        except (ValueError, RecursionError):
            return False
        if not isinstance(sent, dict):
            return False
        schema = {"$ref": f"#/components/schemas/{name}", "components": self.document["components"]}
        if name == "UploadRequest":
            plain = {field: value for field, value in sent.items() if (field, value) != ("size", None)}
            plain = {field: _upload(field, value) for field, value in plain.items()}
        else:
            plain = self._plain({"$ref": schema["$ref"]}, _respelled(_without_blanks(sent)))
        return Draft202012Validator(schema).is_valid(plain)

    def _plain(self, schema: Any, value: Any) -> Any:
        """`value` without fields that the schema does not know, and durations as texts."""
        while "$ref" in schema:
            schema = self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if isinstance(value, dict) and "properties" in schema:
            known = schema["properties"]
            kept = {name: self._plain(known[name], inner) for name, inner in value.items() if name in known}
            return {name: _seconds(inner) if name == "duration" else inner for name, inner in kept.items()}
        if isinstance(value, list) and "items" in schema:
            return [self._plain(schema["items"], inner) for inner in value]
        return _retyped(schema, value)


def _no_number(word: str) -> Any:
    raise ValueError(word)


def _upload(field: str, value: Any) -> Any:
    if field == "size" and isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        return int(value)
    if field == "content_type" and isinstance(value, str):
        name = value.split(";")[0].strip().lower()
        return {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}.get(name, name)
    return value


def _retyped(schema: Any, value: Any) -> Any:
    """A leaf in its schema's JSON type, if that is clear."""
    kind = schema.get("type")
    if kind == "string" and "maxLength" in schema and "pattern" not in schema and isinstance(value, (int, float)):
        exact = not isinstance(value, bool) and float(value).is_integer() and abs(value) < 2**63
        return str(int(value)) if exact else value
    if not isinstance(value, str):
        return value
    text = value.strip()
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower(), value)
    if kind in ("integer", "number") and re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", text):
        return float(text)
    return text if "pattern" in schema else value


def _respelled(body: Document) -> Document:
    body = dict(body)
    if "model" in body:
        body.setdefault("model_name", body["model"])
    if isinstance(body.get("dynamic_masks"), dict):
        body["dynamic_masks"] = [body["dynamic_masks"]]
    for name, spellings in (("mode", _MODES), ("multi_shot", _SHOTS)):
        if isinstance(body.get(name), str):
            body[name] = spellings.get(body[name], body[name])
    return body


def _without_blanks(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_blanks(inner) for inner in value]
    if isinstance(value, dict):
        shorter = {name: _without_blanks(inner) for name, inner in value.items()}
        return {name: inner for name, inner in shorter.items() if not _is_blank(inner)}
    return value


def _is_blank(value: Any) -> bool:
    return value is None or value == [] or value == {} or (isinstance(value, str) and not value.strip())


def _seconds(value: Any) -> Any:
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer()
    return str(int(value)) if whole else value
