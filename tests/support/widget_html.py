"""Parse a widget's HTML like a browser, and check it against the rules for a widget.

This is written without the code under test: a wider list there does not widen this one.
"""

import json
import re
from html.parser import HTMLParser
from typing import Any

_PLAIN = {
    *("div", "span", "p", "h3", "h4", "b", "small", "pre", "code", "ul", "li", "table", "thead", "tbody", "tr"),
    *("form", "label", "dl", "dt", "dd", "style", "i"),
}
_ATTRIBUTES: dict[str, dict[str, str]] = {
    **{name: {} for name in _PLAIN},
    "th": {"colspan": r"\d+"},
    "td": {"colspan": r"\d+"},
    "i": {"style": r"width:\d{1,3}%"},
    "a": {"href": r"https?://[^\s\"'<>]+", "target": "_blank", "rel": "noopener noreferrer"},
    "img": {"src": r"https?://[^\s\"'<>]+", "alt": r"[\w \[\]._]*", "loading": "lazy", "width": r"\d+"},
    "input": {"name": r"\w+", "value": r"(?s).*", "placeholder": r"[\w ,-]+", "size": r"\d+"},
    "cwdb-action": {
        **{"action": "call", "display": "popup|widget", "confirmation": r"(?s).+"},
        "endpoint": r"arn:aws:lambda:[\w:-]+",
    },
}
_EVERYWHERE = {"class": r"[\w -]*", "title": r"(?s).*"}
_EMPTY = {"img", "input"}


class Widget(HTMLParser):
    """Parse a widget.

    `problems`: the parts that a widget may not have. `text`: the text that a viewer can read. `elements`: names and
    attributes. `calls`: endpoint and payload of every action.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []
        self.calls: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.links: list[str] = []
        self.fields: dict[str, str] = {}
        self._open: list[str] = []
        self._read: list[str] = []
        self._action: dict[str, str] = {}
        self.feed(html)
        self.close()
        if self._open:
            self.problems.append(f"never closed: {self._open}")

    @property
    def text(self) -> str:
        return "".join(self._read)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        allowed = _ATTRIBUTES.get(tag)
        if allowed is None:
            self.problems.append(f"<{tag}>")
            return
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.problems.append(f"<{tag}> has an attribute twice")
        for name, value in attrs:
            rule = {**_EVERYWHERE, **allowed}.get(name)
            if rule is None or value is None or not re.fullmatch(rule, value):
                self.problems.append(f"<{tag} {name}={value!r}>")
        given = {name: value or "" for name, value in attrs}
        self.elements.append((tag, given))
        self.links += [given[name] for name in ("href", "src") if name in given]
        if tag == "input":
            self.fields[given["name"]] = given["value"]
        if tag == "cwdb-action":
            self._action = given
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.problems.append(f"<{tag}/>")

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "cwdb-action":
            self.calls.append((self._action, json.loads(data)))
        elif inside != "style":
            self._read.append(data)

    def handle_comment(self, data: str) -> None:
        self.problems.append(f"<!--{data}-->")

    def handle_decl(self, decl: str) -> None:
        self.problems.append(f"<!{decl}>")

    def unknown_decl(self, data: str) -> None:
        self.problems.append(f"<![{data}]>")

    def handle_pi(self, data: str) -> None:
        self.problems.append(f"<?{data}>")
