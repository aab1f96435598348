"""Test that a widget contains only what CloudWatch allows, for any row, and shows all texts unchanged."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kling_relay.operations import safe_html, widget_parts
from kling_relay.operations.failure_advice import ADVICE, Kind, kind_of
from kling_relay.operations.safe_html import Html, payload, style_sheet, tag, together
from kling_relay.operations.widget_parts import WidgetRequest
from kling_relay.operations.widget_task import moments, story
from kling_relay.tasks import notification
from kling_relay.tasks.task import Failure, Phase, Task

from tests.support.widget_html import Widget

NOW = 1_790_000_000_000
HERE, OPERATE = (f"arn:aws:lambda:us-east-1:123456789012:function:{name}" for name in ("here", "operate"))
MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:kling-relay-task-lifecycle"
ATTACKS = (
    *("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'onmouseover='alert(1)", "</style><iframe>"),
    *("</cwdb-action><script>", '<cwdb-action action="call" endpoint="arn:evil">{}</cwdb-action>', "<!--", "]]>"),
    *("&lt;b&gt;&#x3c;script&#x3e;", "javascript:alert(1)", "<svg><use href=#x>", "</td></tr></table>", "<?php"),
    *("\u202egnp.exe", "\x00\x08", "\ud800", "{{7*7}}", "`${x}`", "\u2028", "<plaintext>", "</pre", "\r\n"),
)
hostile = st.lists(st.one_of(st.sampled_from(ATTACKS), st.text(max_size=12)), max_size=6).map("".join)

KEYS = (
    "widgetContext",
    "params",
    "forms",
    "all",
    "timeRange",
    "zoom",
    "start",
    "end",
    "theme",
    "width",
    "show",
    "task",
)
odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | hostile,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
)


def asked(**given: Any) -> WidgetRequest:
    known = {"show": "task", "now": NOW, "since": 0, "until": NOW, "here": HERE, "operate": OPERATE}
    return WidgetRequest(**{**known, **given})


def task(**fields: Any) -> Task:
    known: dict[str, Any] = {"id": "0" * 32, "tenant": "acme", "kind": "image2video", "phase": Phase.FAILED}
    known |= {"request": {}, "created_at": NOW - 90_000, "updated_at": NOW, "execution": "0" * 32}
    return Task(**{**known, **fields})


def looked_at(html: str) -> Widget:
    widget = Widget(html)
    assert widget.problems == []
    html.encode()  # as Lambda sends it
    return widget


@given(hostile)
def test_a_text_stays_a_text(text: str) -> None:
    html = tag("p", text, title=text)
    widget = looked_at(html)
    assert widget.text.replace("\n", "") == safe_html.visible(text).replace("\n", "")
    assert looked_at(together(text, [text, (text,)])).problems == []
    assert json.loads(payload({"task": text, text: text})) == {"task": text, text: text}
    assert not set("<>&") & set(payload({text: text}))


@given(hostile, st.sampled_from(["submitted", "accepted", "expired", "failed", "succeeded", "rendered"]))
def test_nothing_of_a_row_gets_out_of_its_place(text: str, phase: str) -> None:
    told = replace(notification.new((), "failed", NOW, webhook=True), answer=text)
    video = {"id": text, "key": f"videos/{text}", "duration": text, "size": 5}
    row = task(
        **{"phase": Phase(phase), "reason": text, "waits_for": text, "external_task_id": text, "upstream_id": text},
        request={"prompt": text, "model_name": text, "mode": text, "duration": text, "image": {"s3": "k"}},
        **{"notices": (told,), "videos": [video], "units": text, "source": {"key": text, "line": 3}},
        **{"tenant": text, "kind": text, "due_at": NOW, "rendered_at": NOW, "copies": 2, "execution": text},
    )
    view = asked(dark=True, params={"task": text})
    urls, posters = {video["key"]: "https://videos.example/0.mp4?a=1&b=2"}, {"image": "https://inputs.example/k"}
    html = widget_parts.page(
        view, story(view, row, urls=urls, posters=posters, machine=MACHINE if text.isalnum() else "")
    )
    widget = looked_at(html)
    assert {call["endpoint"] for call, _ in widget.calls} <= {HERE, OPERATE}
    assert all(values == {"action": values["action"], "task_id": row.id} for _, values in widget.calls)
    assert all(
        link.startswith(("https://videos.", "https://inputs.", "https://us-east-1.console.")) for link in widget.links
    )
    if text:
        assert safe_html.visible(text) in widget.text


@given(odd)
def test_no_event_is_too_odd(event: Any) -> None:
    view = WidgetRequest.read(
        {"widgetContext": event, **(event if isinstance(event, dict) else {})}, now=NOW, here=HERE, operate=""
    )
    assert 0 <= view.since < view.until
    assert 1 <= view.number("limit", default=20, maximum=50) <= 50
    looked_at(widget_parts.page(view, view.text("task"), view.show))


def test_what_was_clicked_goes_before_what_was_typed_and_that_before_the_widgets_own() -> None:
    context = {"params": {"task": "own", "tenant": "own"}, "forms": {"all": {"task": " typed ", "tenant": " "}}}
    view = WidgetRequest.read({"widgetContext": context}, now=NOW, here=HERE, operate=OPERATE)
    assert (view.text("task"), view.text("tenant")) == ("typed", "own")
    view = WidgetRequest.read({"widgetContext": context, "task": "clicked"}, now=NOW, here=HERE, operate=OPERATE)
    assert view.text("task") == "clicked"


def test_the_zoomed_part_of_the_range_is_meant() -> None:
    window = {"start": 100, "end": 900, "zoom": {"start": 200, "end": 300}}
    view = WidgetRequest.read(
        {"widgetContext": {"timeRange": window, "theme": "dark", "width": 300}}, now=NOW, here="", operate=""
    )
    assert (view.since, view.until, view.dark, view.narrow) == (200, 300, True, True)
    del window["zoom"]
    view = WidgetRequest.read({"widgetContext": {"timeRange": window}}, now=NOW, here="", operate="")
    assert (view.since, view.until, view.dark, view.narrow) == (100, 900, False, False)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: tag("script"),
        lambda: tag("iframe"),
        lambda: tag("svg"),
        lambda: tag("p", onclick="x"),
        lambda: tag("p", style="width:5%"),
        lambda: tag("i", style="width:5%;background:url(x)"),
        lambda: tag("i", style="width:101%"),
        lambda: tag("a", href="javascript:alert(1)"),
        lambda: tag("a", href=" https://x"),
        lambda: tag("img", src="data:text/html,x"),
        lambda: tag("img", "content"),
        lambda: style_sheet("</style>"),
        lambda: style_sheet("a { background: url(https://x) }"),
        lambda: style_sheet("@import 'x'"),
    ],
)
def test_what_is_not_listed_cannot_be_made(wrong: Any) -> None:
    with pytest.raises(ValueError):
        wrong()


def test_pieces_are_joined_as_they_are_and_none_is_nothing() -> None:
    assert together(tag("b", 1), None, ["<", tag("i")]) == "<b>1</b>&lt;<i></i>"
    assert isinstance(together(), Html) and together() == ""
    assert tag("a", "x", class_="btn", href=None) == '<a class="btn">x</a>'


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        *[
            (0, "0 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (65_000, "1 min 5 s"),
            (3_600_000, "1 h"),
            (7_500_000, "2 h 5 min"),
            (-5, "0 s"),
        ],
        *[(86_400_000, "1 d"), (97_200_000, "1 d 3 h")],
    ],
)
def test_lengths_of_time(ms: int, text: str) -> None:
    assert widget_parts.lasting(ms) == text


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"failure": Failure.CONTENT, "upstream_id": "u"}, Kind.CONTENT),
        ({"failure": Failure.REFUSED, "refusal_code": 1201}, Kind.REFUSED),
        ({"failure": Failure.PROVIDER, "upstream_id": "u"}, Kind.PROVIDER),
        ({"failure": Failure.EXPIRED}, Kind.UNSENT),
        ({"failure": Failure.EXPIRED, "unsure_since": 5}, Kind.UNCONFIRMED),
        ({"failure": Failure.EXPIRED, "phase": Phase.EXPIRED, "unsure_since": 5, "expired_at": 9}, Kind.UNCONFIRMED),
        ({"failure": Failure.EXPIRED, "phase": Phase.EXPIRED, "upstream_id": "u", "expired_at": 9}, Kind.SLOW),
        ({"failure": Failure.EXPIRED, "upstream_id": "u", "rendered_at": 8, "deleted_at": 10}, Kind.NOT_COPIED),
        ({"reason": "cancelled"}, Kind.CANCELLED),
        ({"phase": Phase.SUCCEEDED}, None),
        ({"phase": Phase.PROCESSING}, None),
    ],
)
def test_kinds_of_failure(fields: dict[str, Any], kind: Kind | None) -> None:
    assert kind_of(task(**fields)) is kind


def test_every_kind_has_a_remedy() -> None:
    assert set(ADVICE) == set(Kind)


def test_a_story_is_told_in_its_order() -> None:
    told = notification.new((), "submitted", NOW - 90_000, webhook=False)
    told = (told, notification.new((told,), "processing", NOW - 60_000, webhook=False))
    told = (*told, notification.new(told, "failed", NOW - 5_000, webhook=False))
    row = task(claimed_at=NOW - 89_000, upstream_id="up-1", notices=told, reason="it broke", attempt=2)
    assert [(one.at - NOW, one.what, one.detail) for one in moments(row)] == [
        (-90_000, "accepted", "by the API"),
        (-89_000, "sent to the provider", "at try 2"),
        (-60_000, "under way at the provider", "up-1"),
        (-5_000, "failed", "it broke"),
    ]
