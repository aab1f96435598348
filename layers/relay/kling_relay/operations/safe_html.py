"""Build HTML that can contain only the listed elements and attributes, for any input. Pure.

CloudWatch removes scripts, frames and `use` from a widget's HTML; this HTML has none. Only this module makes `Html`, so
a text from outside can only become a text. Rules: "Custom widgets" in the Amazon CloudWatch User Guide.
"""

import html
import json
import re
from collections.abc import Iterable
from typing import Any

# Element -> its attributes, beside `class` and `title`.
ELEMENTS: dict[str, set[str]] = {
    **{name: set() for name in ("div", "span", "p", "h3", "h4", "b", "small", "pre", "code", "ul", "li")},
    **{name: set() for name in ("table", "thead", "tbody", "tr", "form", "label", "dl", "dt", "dd")},
    "th": {"colspan"},
    "td": {"colspan"},
    "i": {"style"},
    "a": {"href", "target", "rel"},
    "img": {"src", "alt", "loading", "width", "height", "referrerpolicy"},
    "input": {"name", "value", "placeholder", "size"},
    "cwdb-action": {"action", "display", "endpoint", "confirmation"},
}
EMPTY = {"img", "input"}  # these have no end tag
_STYLE = re.compile(r"width:(100|\d\d?)%")  # of bars; the style sheet has all else
_ADDRESS = re.compile(r"https?://[^\s\"'<>\\]+")
# Characters that would end a text early, turn its direction, or cannot be sent: replaced by a mark.
_INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """HTML made by this module. Every other text is escaped when it becomes part of it."""

    __slots__ = ()


Content = str | int | None | Iterable["Content"]


def tag(name: str, /, *content: Content, **attributes: str | int | None) -> Html:
    """Build the element `name`. Attributes that are None are left out; `class_` is the class.

    Raises ValueError for an unlisted name, and for an invalid URL: a fault of the caller, never of the data.
    """
    written = [_attribute(name, key.rstrip("_"), value) for key, value in attributes.items() if value is not None]
    if name not in ELEMENTS or (name in EMPTY and content):
        raise ValueError(f"<{name}>: must be an allowed element (with content only if it may have some)")
    begin = f"<{' '.join([name, *written])}>"
    return Html(begin if name in EMPTY else f"{begin}{together(*content)}</{name}>")


def together(*content: Content) -> Html:
    """Concatenate the pieces; any text that is not `Html` is escaped."""
    return Html("".join(_pieces(content)))


def payload(values: dict[str, Any]) -> Html:
    """Build JSON for a `cwdb-action`, the same if it is read as text or as HTML."""
    text = json.dumps(values)  # ASCII only
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Html(text)


def style_sheet(text: str) -> Html:
    """Embed one of our style sheets. Raises ValueError if it would end early or fetch something."""
    if "<" in text or "url(" in text or "@import" in text:
        raise ValueError("style: must not contain '<', url() or @import")
    return Html(f"<style>{text}</style>")


def visible(text: str) -> str:
    """Return `text` without characters that could hide or turn its content."""
    return _INVISIBLE.sub("\ufffd", text)


def _pieces(content: Iterable[Content]) -> Iterable[str]:
    for one in content:
        if isinstance(one, Html):
            yield one
        elif isinstance(one, str | int):
            yield html.escape(visible(str(one)))
        elif one is not None:
            yield from _pieces(one)


def _attribute(element: str, name: str, value: str | int) -> str:
    if name not in ELEMENTS.get(element, set()) | {"class", "title"}:
        raise ValueError(f"<{element}>: must not have the attribute {name}")
    if name in ("href", "src") and not _ADDRESS.fullmatch(str(value)):
        raise ValueError(f"{name}: must be an http(s) URL")
    if name == "style" and not _STYLE.fullmatch(str(value)):
        raise ValueError("style: must be a width in percent")
    return f'{name}="{html.escape(visible(str(value)))}"'
