"""Convert values of another JSON type to the field's type, as form builders and automation tools send them. Pure.

Only unambiguous values are converted: a number in digits, a whole number for a text field, "true" and "false", blanks
around a URL.
"""

import re
from typing import Any

from msgspec import Struct, inspect

_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,15})?")  # a double holds it exactly, or as close as its sender can mean
_EXACT = 2**63  # JSON's decoder makes doubles of larger numbers
_SWITCH = {"true": True, "false": False}


def mended(value: Any, schema: type[Struct]) -> Any:
    """Return `value` with every value converted to the schema's type, if the conversion is unambiguous."""
    return _mended(value, inspect.type_info(schema))


def _mended(value: Any, wanted: Any) -> Any:
    if isinstance(wanted, inspect.UnionType):
        choices = [choice for choice in wanted.types if not isinstance(choice, inspect.NoneType)]
        return _mended(value, choices[0]) if len(choices) == 1 else value
    if isinstance(wanted, inspect.StructType) and isinstance(value, dict):
        types = {field.name: field.type for field in wanted.fields}
        return {name: _mended(item, types[name]) if name in types else item for name, item in value.items()}
    if isinstance(wanted, inspect.ListType) and isinstance(value, list):
        return [_mended(item, wanted.item_type) for item in value]
    return _mended_leaf(value, wanted)


def _mended_leaf(value: Any, wanted: Any) -> Any:
    if type(value) is int and isinstance(wanted, inspect.StrType) and wanted.max_length and not wanted.pattern:
        return str(value) if abs(value) < _EXACT else value  # a text without a limit is an image
    if not isinstance(value, str):
        return value
    text = value.strip()
    if isinstance(wanted, inspect.StrType) and wanted.pattern:
        return text  # a URL: text copied from a table ends with a line break
    if isinstance(wanted, inspect.BoolType):
        return _SWITCH.get(text.lower(), value)
    if isinstance(wanted, inspect.IntType | inspect.FloatType) and _NUMBER.fullmatch(text):
        number = float(text)
        return int(text.partition(".")[0]) if number.is_integer() else number
    return value
