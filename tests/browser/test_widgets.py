"""Test the widgets in a real browser: hostile rows, and legibility in wide, narrow, light and dark layouts.

`make browser`, skipped without a Chromium. Screenshots are in pytest's temporary folder.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kling_relay.dynamodb import new_token
from kling_relay.tasks import idempotency, queries
from kling_relay.tasks.task import Failure, Phase

from tests.browser.chromium import CHROMIUM, FLAGS, MARKS, Pages, pages
from tests.support.stack_fixtures import cloud, world  # noqa: F401  (fixtures)
from tests.support.stack_in_memory import BODY, Cloud, World
from tests.support.table_fixtures import new_task
from tests.support.widget_html import Widget
from tests.unit.api.test_create import b64, png
from tests.unit.operations.test_safe_html import ATTACKS
from tests.workflow.driver import SAMPLE

pytestmark = MARKS
VIEWS = ("account", "open_tasks", "failures", "videos", "dead_letters", "task", "task")
HACKS = (
    *("<script>window.hacked = true</script>", "<img src=x onerror='window.hacked=true'>"),
    *("\"><svg onload='window.hacked=true'>", "</style><script>window.hacked=true</script>"),
    *("</td></tr></table></div><script>window.hacked=true</script>", "<a href='javascript:window.hacked=true'>x</a>"),
)
GROUND = {"light": "#ffffff", "dark": "#0f1b2a"}  # of CloudWatch's dashboards


@pytest.fixture
def server() -> Iterator[Pages]:
    with pages() as made:
        made.files["/widgets.js"] = ("text/javascript", Path(__file__).with_name("widgets.js").read_bytes())
        made.files["*"] = ("image/jpeg", SAMPLE)
        yield made


def looked_at(server: Pages, widgets: list[str], theme: str, width: int, shot: Path) -> dict[str, Any]:
    """The report of a browser that shows `widgets` below each other; `shot` is what it saw."""
    places = "".join(f"<div class=place style='width:{width}px'>{html}</div>" for html in widgets)
    places = re.sub(r'src="https://inputs[^"]*"', f'src="{server.origin}/picture"', places)
    style = f"body{{margin:0;background:{GROUND[theme]}}} .place{{padding:12px;margin:12px;outline:1px solid gray}}"
    html = f"<!doctype html><style>{style}</style>{places}<script src=/widgets.js></script>"
    server.files["/"] = ("text/html; charset=utf-8", html.encode())
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={shot.with_suffix('.profile')}", "--hide-scrollbars"]
    command += [
        f"--screenshot={shot}",
        f"--window-size={width + 60},2600",
        "--virtual-time-budget=4000",
        f"{server.origin}/",
    ]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=150, check=True)
    report: dict[str, Any] = server.reports.get(timeout=5)
    assert shot.stat().st_size > 10_000
    for html, seen in zip(widgets, report["places"], strict=True):
        ours = Widget(html)
        assert ours.problems == []
        assert [(name, pictured(given)) for name, given in seen["elements"]] == [
            (name, pictured(given)) for name, given in ours.elements
        ], "a browser takes it for what the other tests take it for"
    return report


def pictured(attributes: dict[str, str]) -> dict[str, str]:
    return {**attributes, "src": "picture"} if "src" in attributes else attributes


@pytest.fixture
def busy(cloud: Cloud) -> World:  # noqa: F811
    """A relay with something to show in every widget."""
    queues = cloud.session.client("sqs")
    made = {f"{name}_url": queues.create_queue(QueueName=new_token())["QueueUrl"] for name in ("intake_queue", "dead")}
    world = World(cloud, intake_queue_url=made["intake_queue_url"], intake_dead_letters_url=made["dead_url"])  # noqa: F811
    world.run_notifier = lambda: None  # type: ignore[method-assign]  # webhooks stay due
    world.call("operate_tasks", {"action": "set_cap", "tenant": "acme", "units": 12})
    for number in range(3):
        body = {**BODY, "image": b64(png(512 + number)), "external_task_id": f"order-{4711 + number}"}
        body |= {"callback_url": "https://client.example/hook"}
        world.until_closed(world.create(body).id)
    world.provider.end = "failed"
    world.until_closed(world.create({**BODY, "prompt": "a crowd of people", "external_task_id": "order-4720"}).id)
    world.provider.end = "succeed"
    now = world.clock.now
    refused = "image: at least 300 pixels are expected on each side; sent: 120 x 90"
    rows = [
        new_task(
            phase=Phase.FAILED,
            failure=Failure.REFUSED,
            refusal_code=1201,
            reason=refused,
            tenant="umbrella-corporation-europe",
        ),
        new_task(
            phase=Phase.FAILED,
            upstream_id="u-1",
            failure=Failure.CONTENT,
            reason="Failure to pass the risk control system",
        ),
        new_task(
            phase=Phase.FAILED,
            failure=Failure.EXPIRED,
            reason="not sent within 86400 s: room at the provider (HTTP 429, code 1303)",
        ),
    ]
    for row in rows:
        idempotency.record(world.table, row, body_hash=row.id)
        key = {"pk": {"S": f"task#{row.id}"}}
        values = {":end": {"S": "failed"}, ":ended": {"S": f"{now - 5000:013}#{row.id}"}}
        world.dynamodb.update_item(
            **{"TableName": world.table.rows.name, "Key": key, "ExpressionAttributeNames": {"#end": "end"}},
            **{
                "UpdateExpression": "SET #end = :end, ended = :ended REMOVE due_at, standing",
                "ExpressionAttributeValues": values,
            },
        )
    world.clock.tick(13 * 3600)
    world.create({**BODY, "prompt": "older"})
    world.clock.tick(3 * 3600)
    world.provider.submit_faults = ["no_room"]
    world.create({**BODY, "prompt": "waits"})
    for key in ("inbox/holiday/IMG_2041.png", "inbox/a list of requests.tasks.jsonl"):
        detail = {"bucket": {"name": "inputs"}, "object": {"key": key, "version-id": "v"}}
        body = json.dumps({"detail": detail})
        world.services.queues.send_message(QueueUrl=world.services.settings.intake_dead_letters_url, MessageBody=body)
    return world


def drawn(world: World, theme: str, width: int) -> list[str]:  # noqa: F811
    window = {"start": world.clock.now - 86_400_000, "end": world.clock.now}
    context = {"theme": theme, "width": width, "timeRange": window, "forms": {"all": {}}}
    found = [world.services.ended.newest(end, 0, world.clock.now, 1)[0] for end in queries.ENDS]
    tasks = {len(VIEWS) - 2: found[0], len(VIEWS) - 1: found[1]}
    events = [{"show": show, "task": tasks.get(place), "widgetContext": context} for place, show in enumerate(VIEWS)]
    answers = [world.call("ops_widget", event) for event in events]
    return [str(answer) for answer in answers]


@pytest.mark.parametrize("width", [1140, 340])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everything_can_be_read(busy: World, server: Pages, tmp_path: Path, theme: str, width: int) -> None:
    widgets = drawn(busy, theme, width)
    report = looked_at(server, widgets, theme, width, tmp_path / f"{theme}-{width}.png")
    for show, seen in zip(VIEWS, report["places"], strict=True):
        assert seen["dim"] == [], show
        assert seen["wide"] == [], show
        assert all(seen["pictures"]), show
    assert [len(seen["pictures"]) for seen in report["places"]] == [0, 0, 0, 3, 0, 1, 0]


def test_a_browser_makes_nothing_of_hostile_rows(world: World, server: Pages, tmp_path: Path) -> None:  # noqa: F811
    for attack in (*HACKS, *ATTACKS):
        text = attack.encode(errors="replace").decode()
        row = new_task(
            **{"phase": Phase.EXPIRED, "reason": text, "waits_for": text, "external_task_id": text[:60]},
            **{"upstream_id": text, "rendered_at": 5, "expired_at": 9, "request": {"prompt": text, "model_name": text}},
        )
        idempotency.record(world.table, row, body_hash=row.id)
    hostile = sorted(task.id for task in world.tasks())
    widgets = [str(world.call("ops_widget", {"show": "task", "task": task_id})) for task_id in hostile]
    widgets.append(str(world.call("ops_widget", {"show": "open_tasks", "limit": 100})))
    report = looked_at(server, widgets, "light", 900, tmp_path / "hostile.png")
    assert (report["hacked"], report["scripts"]) == (False, 1)
