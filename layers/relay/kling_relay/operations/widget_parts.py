"""Parse the events of a custom widget, and build the parts of its HTML. Pure.

Event and actions: "Custom widgets" in the Amazon CloudWatch User Guide. A `cwdb-action` defines the dashboard's action
on a click on the element before it: it calls a function with the viewer's own rights, never with ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from kling_relay.operations.safe_html import Content, Html, payload, style_sheet, tag, together

_DAY_MS = 86_400_000
_NARROW = 560  # pixels: a narrower widget has only the most important columns
_LATEST = 253_402_300_799_000  # the last year that a calendar has
_CUT = 300  # characters of a text in a table


@dataclass(frozen=True, slots=True)
class WidgetRequest:
    """A widget's event. `since` to `until` (ms) is the dashboard's time range, or its zoomed part.

    `here`: the ARN of the function that draws; `operate`: of the one that acts. `params`: the widget's parameters,
    overridden by the text in its fields, overridden by the parameters of the clicked element.
    """

    show: str
    now: int
    since: int
    until: int
    here: str
    operate: str
    params: dict[str, Any] = field(default_factory=dict)
    dark: bool = False
    narrow: bool = False

    @classmethod
    def read(cls, event: Mapping[str, Any], *, now: int, here: str, operate: str) -> "WidgetRequest":
        """Parse an event of CloudWatch, or one written by hand: an unusable value counts as absent."""
        context = _object(event, "widgetContext")
        typed = _object(_object(context, "forms"), "all")
        form = {name: text.strip() for name, text in typed.items() if isinstance(text, str) and text.strip()}
        own = {name: text for name, text in event.items() if name != "widgetContext"}
        params = {**_object(context, "params"), **form, **own}
        window = _object(_object(context, "timeRange"), "zoom") or _object(context, "timeRange")
        since, until = _time(window.get("start")), _time(window.get("end"))
        if since is None or until is None or since >= until:
            since, until = now - _DAY_MS, now
        width = context.get("width")
        return cls(
            show=str(params.get("show", "")),
            now=now,
            since=since,
            until=until,
            here=here,
            operate=operate,
            params=params,
            dark=context.get("theme") == "dark",
            narrow=isinstance(width, int) and width < _NARROW,
        )

    def text(self, name: str) -> str:
        """Return a text parameter; "" without one."""
        value = self.params.get(name)
        return value.strip() if isinstance(value, str) else ""

    def number(self, name: str, *, default: int, maximum: int) -> int:
        """Return a positive whole number parameter, at most `maximum`; `default` without one."""
        given = self.params.get(name)
        return min(given, maximum) if type(given) is int and given > 0 else default


def page(asked: WidgetRequest, *content: Content) -> Html:
    """Build a widget with our own style sheet instead of CloudWatch's, so that it looks the same everywhere."""
    themes = f"kr {'dark' if asked.dark else 'light'}{' narrow' if asked.narrow else ''} cwdb-no-default-styles"
    return together(style_sheet(_css()), tag("div", *content, class_=themes))


def table(heads: Sequence[str], rows: Sequence[Sequence[Content]], *, extra: Sequence[str] = ()) -> Html:
    """Build a table. `extra`: the columns that a narrow widget leaves out."""
    classes = ["extra" if head in extra else None for head in heads]
    first = tag("tr", [tag("th", head, class_=one) for head, one in zip(heads, classes, strict=True)])
    lines = [tag("tr", [tag("td", cell, class_=c) for cell, c in zip(row, classes, strict=True)]) for row in rows]
    return tag("table", tag("thead", first), tag("tbody", lines))


def bar(part: float, tone: str, title: str = "") -> Html:
    """Draw `part` of 1 as a bar, limited to its full width."""
    width = max(2, min(100, round(part * 100)))
    return tag("div", tag("i", style=f"width:{width}%"), class_=f"bar {tone}", title=title or None)


def badge(text: str, tone: str) -> Html:
    """Build a coloured label. `tone`: a class of the style sheet."""
    return tag("span", text, class_=f"badge {tone}")


def unbroken(text: str) -> Html:
    """Return a text without line breaks."""
    return tag("span", text, class_="whole")


def note(*content: Content, tone: str = "") -> Html:
    """Build a paragraph. `tone`: a class of the style sheet."""
    return tag("p", *content, class_=f"note {tone}".strip())


def look(asked: WidgetRequest, label: str, show: str, **params: str) -> Html:
    """Build a link that opens another of our views over the dashboard."""
    link = tag("a", label, title=f"show {show.replace('_', ' ')}", class_="whole")
    return together(link, _call(asked.here, {"show": show, **params}, display="popup"))


def search(asked: WidgetRequest, label: str, show: str) -> Html:
    """Build a button that redraws the widget as `show` with the text in its fields."""
    return together(tag("a", label, class_="btn primary"), _call(asked.here, {"show": show}, display="widget"))


def act(asked: WidgetRequest, label: str, question: str, action: str, **params: str) -> Html:
    """Build a button that asks `question` and, if confirmed, calls operate_tasks with `action` and shows its answer."""
    if not asked.operate:
        return together()
    call = _call(asked.operate, {"action": action, **params}, display="popup", confirmation=question)
    return together(tag("a", label, class_="btn"), call)


def _call(endpoint: str, values: dict[str, Any], **attributes: str) -> Html:
    return tag("cwdb-action", payload(values), action="call", endpoint=endpoint, **attributes)


def cut(text: str, maximum: int = _CUT) -> str:
    """Cut a text to `maximum` characters, with an ellipsis."""
    return text if len(text) <= maximum else f"{text[: maximum - 1]}…"


def lasting(ms: int) -> str:
    """Format a duration in its two largest units: "40 s", "3 min 5 s", "2 h"."""
    seconds = max(0, ms) // 1000
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    large, small = f"{minutes} min", f"{seconds % 60} s"
    if days:
        large, small = f"{days} d", f"{hours % 24} h"
    elif hours:
        large, small = f"{hours} h", f"{minutes % 60} min"
    return large if small[0] == "0" else f"{large} {small}"


def ago(asked: WidgetRequest, at: int) -> Html:
    """Format the time since or until a moment, with the moment itself as a tooltip."""
    text = f"{lasting(asked.now - at)} ago" if at <= asked.now else f"in {lasting(at - asked.now)}"
    return tag("span", text, title=utc(at), class_="whole")


def utc(ms: int) -> str:
    """Format a time (ms) in UTC."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def size(number: int) -> str:
    """Format a number of bytes in kB or MB."""
    return f"{number / 1_000_000:.1f} MB" if number >= 100_000 else f"{number / 1000:.1f} kB"


@cache
def _css() -> str:
    return (Path(__file__).parent / "widget_parts.css").read_text()


def _object(holder: Mapping[str, Any], name: str) -> dict[str, Any]:
    content = holder.get(name)
    return content if isinstance(content, dict) else {}


def _time(given: Any) -> int | None:
    return int(given) if isinstance(given, int | float) and 0 <= given <= _LATEST else None
