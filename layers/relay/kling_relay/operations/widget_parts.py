"""What CloudWatch asks of a custom widget, and the pieces that its answers are made of. Pure.

Event and actions: "Custom widgets" in the Amazon CloudWatch User Guide. A `cwdb-action` tells the dashboard what to do
when the element before it is clicked: it calls a function with the viewer's own rights, never with ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from kling_relay.operations.safe_html import Content, Html, payload, style_sheet, tag, together

_DAY_MS = 86_400_000
_NARROW = 560  # pixels: below that only what matters most has a column
_LATEST = 253_402_300_799_000  # the last year that a calendar has
_CUT = 300  # characters of a text in a table


@dataclass(frozen=True, slots=True)
class WidgetRequest:
    """A widget's event. `since` to `until` (ms) is the dashboard's time range, as far as it is zoomed in. `here`: the
    ARN of the function that draws; `operate`: of the one that acts. `params`: what the widget was made with; over that,
    what is typed into its fields; over that, what the element that was clicked says."""

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
        """The event as CloudWatch sends it, or as it was written by hand: what cannot be used counts as not there."""
        context = _object(event, "widgetContext")
        typed = _object(_object(context, "forms"), "all")
        form = {name: given.strip() for name, given in typed.items() if isinstance(given, str) and given.strip()}
        own = {name: given for name, given in event.items() if name != "widgetContext"}
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
        """A parameter that is a text; "" without one."""
        given = self.params.get(name)
        return given.strip() if isinstance(given, str) else ""

    def number(self, name: str, *, default: int, maximum: int) -> int:
        given = self.params.get(name)
        return min(given, maximum) if type(given) is int and given > 0 else default


def page(asked: WidgetRequest, *content: Content) -> Html:
    """A widget: our own style sheet instead of CloudWatch's, so that it looks the same wherever it is drawn."""
    themes = f"kr {'dark' if asked.dark else 'light'}{' narrow' if asked.narrow else ''} cwdb-no-default-styles"
    return together(style_sheet(_css()), tag("div", *content, class_=themes))


def table(heads: Sequence[str], rows: Sequence[Sequence[Content]], *, extra: Sequence[str] = ()) -> Html:
    """`extra`: the columns that a narrow widget leaves out."""
    classes = ["extra" if head in extra else None for head in heads]
    first = tag("tr", [tag("th", head, class_=one) for head, one in zip(heads, classes, strict=True)])
    lines = [tag("tr", [tag("td", cell, class_=c) for cell, c in zip(row, classes, strict=True)]) for row in rows]
    return tag("table", tag("thead", first), tag("tbody", lines))


def bar(part: float, tone: str, title: str = "") -> Html:
    """`part` of 1, as much of it as there is room for."""
    width = max(2, min(100, round(part * 100)))
    return tag("div", tag("i", style=f"width:{width}%"), class_=f"bar {tone}", title=title or None)


def badge(text: str, tone: str) -> Html:
    return tag("span", text, class_=f"badge {tone}")


def unbroken(text: str) -> Html:
    """A text that is not broken into lines."""
    return tag("span", text, class_="whole")


def note(*content: Content, tone: str = "") -> Html:
    return tag("p", *content, class_=f"note {tone}".strip())


def look(asked: WidgetRequest, label: str, show: str, **params: str) -> Html:
    """A link that opens another of our views over the dashboard."""
    link = tag("a", label, title=f"show {show.replace('_', ' ')}", class_="whole")
    return together(link, _call(asked.here, {"show": show, **params}, display="popup"))


def search(asked: WidgetRequest, label: str, show: str) -> Html:
    """A button that draws `show` with what is typed into the fields of the widget, in its place."""
    return together(tag("a", label, class_="btn primary"), _call(asked.here, {"show": show}, display="widget"))


def act(asked: WidgetRequest, label: str, question: str, action: str, **params: str) -> Html:
    """A button that, once `question` is answered with yes, has operate_tasks do `action`; its answer is shown."""
    if not asked.operate:
        return together()
    call = _call(asked.operate, {"action": action, **params}, display="popup", confirmation=question)
    return together(tag("a", label, class_="btn"), call)


def _call(endpoint: str, values: dict[str, Any], **attributes: str) -> Html:
    return tag("cwdb-action", payload(values), action="call", endpoint=endpoint, **attributes)


def cut(text: str, maximum: int = _CUT) -> str:
    return text if len(text) <= maximum else f"{text[: maximum - 1]}…"


def lasting(ms: int) -> str:
    """A length of time, in its two largest units: "40 s", "3 min 5 s", "2 h"."""
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
    """How long ago a moment was, or how soon it will be; the moment itself where one points at it."""
    text = f"{lasting(asked.now - at)} ago" if at <= asked.now else f"in {lasting(at - asked.now)}"
    return tag("span", text, title=utc(at), class_="whole")


def utc(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def size(number: int) -> str:
    return f"{number / 1_000_000:.1f} MB" if number >= 100_000 else f"{number / 1000:.1f} kB"


@cache
def _css() -> str:
    return (Path(__file__).parent / "widget_parts.css").read_text()


def _object(holder: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = holder.get(name)
    return found if isinstance(found, dict) else {}


def _time(given: Any) -> int | None:
    return int(given) if isinstance(given, int | float) and 0 <= given <= _LATEST else None
