"""Describe validation errors to clients: the expected and the received value. Pure.

A message never contains a prompt, an image or a URL.
"""

import difflib
import json
import re
from typing import Any

from msgspec import Struct, inspect

from kling_relay.errors import KlingError, bad_parameter
from kling_relay.kinds.fields import FIELDS


def refusal(path: str, value: Any, schema: type[Struct]) -> KlingError:
    """Build the error for `path`: the schema's rule and the received value."""
    expected: Any = inspect.type_info(schema)
    for step in re.findall(r"\w+", path):
        if isinstance(value, list):
            value, expected = value[int(step)], expected.item_type
        else:
            value = value[step]
            expected = next(field.type for field in expected.fields if field.name == step)
        if isinstance(expected, inspect.UnionType) and expected.includes_none:
            expected = expected.types[0]
    sent = describe(value, quote=isinstance(expected, inspect.LiteralType))
    return bad_parameter(path, f"must be {_wanted(expected)}", sent)


def misspelt(message: str, sent: Any) -> str:
    """Return a hint at the misspelt field that made `message` report another one as missing; empty if there is none."""
    *steps, name = re.findall(r"\w+", message.partition(":")[0]) or [""]
    for step in steps:
        part = sent[int(step)] if isinstance(sent, list) else sent.get(step)
        sent = part if isinstance(part, (dict, list)) else {}
    if not isinstance(sent, dict) or sent.get(name) not in (None, "", [], {}):
        return ""
    others = [other for other in sent if other not in FIELDS and other != "model" and other.isidentifier()]
    found = difflib.get_close_matches(name, others, n=1, cutoff=0.5)
    return f"unknown field {found[0]}: did you mean {name}?" if found else ""


def _wanted(kind: Any) -> str:
    """Describe a type of the schema, with its limits."""
    name = type(kind).__name__
    if name == "UnionType":
        return " or ".join(map(_wanted, kind.types))
    if name == "LiteralType":
        return f"one of {', '.join(sorted(kind.values, key=lambda word: (word.isdecimal() and len(word), word)))}"
    if name == "ListType":
        return f"a list of {kind.min_length or 0} to {kind.max_length} entries"
    if name == "StrType":
        what = "an http(s) URL" if kind.pattern else "a string"
        return f"{what} of at most {kind.max_length} characters" if kind.max_length else what
    if name == "IntType":
        return f"a whole number from {kind.ge} to {kind.le}"
    if name == "FloatType":
        return f"a number from {kind.ge:g} to {kind.le:g}"
    return "true or false" if name == "BoolType" else "an object"


def describe(value: Any, *, quote: bool = False) -> str:
    """Describe a received value in a few characters.

    `quote`: include short texts; never for prompts, images or URLs.
    """
    if isinstance(value, str):
        return repr(value) if quote and len(value) <= 32 else f"a string of {len(value)} characters"
    if isinstance(value, (list, dict)):
        kind = "a list" if isinstance(value, list) else "an object"
        return f"{kind} with {len(value)} entries"
    if isinstance(value, int) and abs(value) >= 10**15:
        return "a number of more than 15 digits"
    return json.dumps(value)
