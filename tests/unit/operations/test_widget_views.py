"""Test the widgets over real rows: each view's reads and content, and that it reads no more than documented."""

from typing import Any

import pytest
from kling_relay.dynamodb import value
from kling_relay.tasks import queries as ended_module
from kling_relay.tasks.task import Phase, Task
from kling_relay.tasks.task_row import new_item

from tests.support.stack_in_memory import BODY, Cloud, World, video_keys
from tests.support.table_fixtures import new_task
from tests.support.widget_html import Widget
from tests.unit.api.test_create import b64, png
from tests.unit.operations.test_safe_html import ATTACKS

TABLE_IN_MEMORY = True
HERE = "arn:aws:lambda:us-east-1:123456789012:function:x"  # as world.call names it
OPERATE = "arn:aws:lambda:us-east-1:123456789012:function:operate"


def drawn(world: World, show: str, context: dict[str, Any] | None = None, **params: Any) -> Widget:
    widget = Widget(world.call("ops_widget", {"show": show, **params, "widgetContext": context or {}}))
    assert widget.problems == []
    return widget


def payloads(widget: Widget, endpoint: str) -> list[dict[str, Any]]:
    return [values for call, values in widget.calls if call["endpoint"] == endpoint]


def failed(world: World, message: str = "it broke", **body: Any) -> Task:
    world.provider.end = "failed"
    task = world.until_closed(world.create({**BODY, **body}).id)
    world.provider.end = "succeed"
    assert task.phase is Phase.FAILED, message
    return task


def test_it_describes_itself_without_reading_anything(world: World) -> None:
    text = world.call("ops_widget", {"describe": True})
    for show in ("open_tasks", "task", "failures", "videos", "account", "dead_letters"):
        assert f"`{show}`" in text
    assert "shows prompts" in text
    assert "one of open_tasks, task" in drawn(world, "<nothing>").text
    assert "one of open_tasks, task" in drawn(world, "").text


def test_open_tasks_stand_in_the_order_of_their_age_with_what_they_wait_for(world: World) -> None:
    old = world.create()
    world.clock.tick(12 * 3600)
    world.services.admissions.stop(world.clock.now, "the bill")
    waiting = world.create({**BODY, "prompt": "another"})
    widget = drawn(world, "open_tasks")
    assert [values["task"] for values in payloads(widget, HERE)] == [old.id, waiting.id]
    assert "2open" in widget.text and "1wait for room" in widget.text and "0parked" in widget.text
    assert "paused by the operator (the bill)" in widget.text and "12 h" in widget.text
    html = world.call("ops_widget", {"show": "open_tasks"})
    assert 'class="bar warn" title="50% of 1 d"><i style="width:50%"' in html
    assert [values["task"] for values in payloads(drawn(world, "open_tasks", limit=1), HERE)] == [old.id]


def test_with_nothing_open_it_says_so(world: World) -> None:
    world.until_closed(world.create().id)
    assert "Nothing is open" in drawn(world, "open_tasks").text


def test_a_failed_task_is_found_from_the_list_of_failures_with_its_reason_in_full(world: World) -> None:
    task = failed(world)
    world.until_closed(world.create().id)
    context = {"timeRange": {"start": world.clock.now - 3_600_000, "end": world.clock.now + 1}}
    widget = drawn(world, "failures", context)
    assert "1succeed" in widget.text and "1failed" in widget.text
    assert "The render failed at the provider" in widget.text and task.reason in widget.text
    (click,) = payloads(widget, HERE)
    story = drawn(world, **click, context=context)
    assert task.id in story.text and task.reason in story.text and BODY["prompt"] in story.text
    for told in ("accepted", "sent to the provider", "failed", "What happened", f'filter task_id = "{task.id}"'):
        assert told in story.text
    assert payloads(story, OPERATE) == []  # nothing that an operator could do


def test_yesterdays_failure_is_shown_where_the_time_range_has_none(world: World) -> None:
    task = failed(world)
    world.clock.tick(86_400)
    context = {"timeRange": {"start": world.clock.now - 3_600_000, "end": world.clock.now}}
    widget = drawn(world, "failures", context)
    assert "None in the time range" in widget.text and task.reason in widget.text
    context["timeRange"]["end"] = task.created_at  # before it had happened
    context["timeRange"]["start"] = task.created_at - 1000
    assert task.reason not in drawn(world, "failures", context).text


def test_a_task_is_found_by_its_clients_id_with_the_tenant(world: World) -> None:
    task = failed(world, external_task_id="order-4711")
    form = {"forms": {"all": {"task": "order-4711"}}}
    assert "name its tenant" in drawn(world, "task", form).text
    form["forms"]["all"]["tenant"] = "acme"
    widget = drawn(world, "task", form)
    assert task.id in widget.text and "order-4711" in widget.text
    assert widget.fields == {"task": "order-4711", "tenant": "acme"}
    (find,) = payloads(widget, HERE)
    assert find == {"show": "task"}  # the fields come with it
    form["forms"]["all"]["tenant"] = "umbrella"
    assert "tenant umbrella has none" in drawn(world, "task", form).text
    assert task.id in drawn(world, "task", {"forms": {"all": {"task": task.id, "tenant": "umbrella"}}}).text
    assert "Enter a task's id" in drawn(world, "task").text
    assert "There is no task" in drawn(world, "task", task="x" * 5000, tenant="y" * 5000).text


def test_a_succeeded_task_tells_of_its_copies_webhooks_and_cost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "run_notifier", lambda: None)  # its webhooks stay due
    task = world.create({**BODY, "callback_url": "https://client.example/hook"})
    world.copy_faults = ["source_unreachable"]
    task = world.until_closed(task.id)
    story = drawn(world, "task", task=task.id)
    assert "copied into your bucket" in story.text and "at try 2" in story.text
    assert "1.5 units, as the provider states" in story.text
    assert payloads(story, OPERATE) == [{"action": "replay_notice", "task_id": task.id}]
    assert any(video_keys(task)[0] in link for link in story.links)


def test_a_task_that_was_paid_in_cash_names_the_amount(world: World) -> None:
    task = world.create()
    world.table.move(task, Phase.RENDERED, cash="0.49", outputs=[], updated_at=world.clock.now)
    assert "0.49 of the account's balance of money, as the provider states" in drawn(world, "task", task=task.id).text


def test_a_task_under_a_cap_says_what_counts(world: World) -> None:
    world.call("operate_tasks", {"action": "set_cap", "tenant": "acme", "units": 500})
    task = world.until_closed(world.create().id)
    assert "1.5 units count towards the cap of 2026-09" in drawn(world, "task", task=task.id).text


@pytest.mark.parametrize("show", ["failures", "task"])
def test_a_copy_that_failed_can_be_begun_again(cloud: Cloud, show: str) -> None:
    world = World(cloud, deadline_seconds=600)
    world.copy_faults = ["source_unreachable"] * 200
    task = world.create()
    world.run(1500)
    assert world.task(task.id).phase is Phase.EXPIRED
    widget = drawn(world, show, task=task.id)
    assert "Rendered and paid, not copied" in widget.text and "source_unreachable" in widget.text
    call, values = next((call, values) for call, values in widget.calls if call["endpoint"] == OPERATE)
    assert values == {"action": "retry_archive", "task_id": task.id} and call["confirmation"]
    world.copy_faults = []
    assert world.call("operate_tasks", {**values, "widgetContext": {"forms": {"all": {}}}})["begun"] is True
    world.run(5)
    assert world.task(task.id).phase is Phase.SUCCEEDED
    assert "None" in drawn(world, "failures").text  # its end is another one now
    assert any(task.id in link for link in drawn(world, "videos").links)


def test_videos_have_their_image_as_poster_and_are_shown_newest_first(world: World) -> None:
    first = world.until_closed(world.create({**BODY, "image": b64(png())}).id)
    second = world.until_closed(world.create().id)  # its image lies at another host
    failed(world)
    widget = drawn(world, "videos")
    videos = [link for link in widget.links if "/videos/acme/" in link]
    assert [second.id in videos[0], first.id in videos[1], len(videos)] == [True, True, 2]
    (poster,) = [link for link in widget.links if "/inputs/acme/" in link]
    assert f"inputs/acme/{first.id}/image.png" in poster
    assert "no stored image" in widget.text and "images.example" not in "".join(widget.links)
    again = drawn(world, "videos")
    assert poster in again.links  # the browser has it already
    assert len([link for link in drawn(world, "videos", limit=1).links if "/videos/acme/" in link]) == 1


def test_a_deleted_video_is_not_shown(world: World) -> None:
    task = world.until_closed(world.create().id)
    world.http("DELETE", f"/v1/videos/image2video/{task.id}", authorization=world.key())
    assert drawn(world, "videos").links == []
    story = drawn(world, "task", task=task.id)
    assert "deleted by its owner" in story.text and BODY["prompt"] not in story.text


def test_the_account_says_whether_tasks_are_sent_and_its_button_changes_that(world: World) -> None:
    widget = drawn(world, "account")
    assert "kling takes tasks" in widget.text
    (pause,) = payloads(widget, OPERATE)
    world.call("operate_tasks", {**pause, "widgetContext": {}})
    widget = drawn(world, "account")
    assert "paused by an operator (from the dashboard)" in widget.text
    (resume,) = payloads(widget, OPERATE)
    assert world.call("operate_tasks", resume)["paused"] is False
    world.provider.submit_faults = ["arrears"]
    world.create()
    widget = drawn(world, "account")
    assert "refuses this account: HTTP 429, code 1101" in widget.text and "1wait for room" in widget.text
    assert "canary-words" not in widget.text


def test_spending_is_told_by_tenant_dearest_first(world: World) -> None:
    world.call("operate_tasks", {"action": "set_cap", "tenant": "acme", "units": 3})
    assert "No task has ended" in drawn(world, "account").text
    world.until_closed(world.create().id)
    for number in range(2):
        world.until_closed(world.create({**BODY, "prompt": str(number)}, tenant="umbrella").id)
    spent = world.services.ended.spent(0, world.clock.now + 1)
    assert (spent.units, spent.tasks, spent.whole) == (
        {"acme": 1500, "umbrella": 3000},
        {"acme": 1, "umbrella": 2},
        True,
    )
    text = drawn(world, "account").text
    assert "umbrella23no cap" in text and "acme11.51.5 of 3" in text
    assert text.index("umbrella") < text.index("acme")


def test_what_is_too_much_for_one_look_is_said_to_be(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = world.services.ended._query
    monkeypatch.setattr(ended_module, "_MAX_PAGES", 2)
    monkeypatch.setattr(world.services.ended, "_query", lambda *args, **more: real(*args, **{**more, "Limit": 1}))
    for number in range(3):
        world.until_closed(world.create({**BODY, "prompt": str(number)}).id)
    spent = world.services.ended.spent(0, world.clock.now + 1)
    assert (spent.tasks, spent.whole) == ({"acme": 2}, False)
    assert "at least so high" in drawn(world, "account").text
    assert world.services.ended.count("succeed", 0, world.clock.now + 1) == (1, False)
    assert "1succeed (at least)" in drawn(world, "failures").text


def test_a_window_begins_with_its_first_moment_and_ends_before_its_last(world: World) -> None:
    task = world.until_closed(world.create().id)
    at = world.row(f"task#{task.id}")["ended"]["S"].partition("#")[0]
    assert world.services.ended.newest("succeed", int(at), int(at) + 1, 5) == [task.id]
    assert world.services.ended.newest("succeed", int(at) + 1, int(at) + 9, 5) == []
    assert world.services.ended.newest("succeed", 0, int(at), 5) == []


def test_a_view_reads_keys_and_its_own_rows_and_writes_nothing(world: World) -> None:
    for number in range(4):
        failed(world, prompt=str(number))
    asked: list[tuple[str, int]] = []

    class Counted:
        def __getattr__(self, name: str) -> Any:
            def call(**given: Any) -> Any:
                rows = given.get("RequestItems", {}).values()
                asked.append((name, sum(len(one["Keys"]) for one in rows)))
                return getattr(world.dynamodb, name)(**given)

            return call

    world.table.rows.client = Counted()
    drawn(world, "failures", limit=2)
    assert {name for name, _ in asked} == {"query", "batch_get_item"}
    assert max(rows for _, rows in asked) == 4
    asked.clear()
    for show in ("open_tasks", "videos", "account"):
        drawn(world, show)
    assert {name for name, _ in asked} <= {"query", "batch_get_item", "get_item"}


def test_no_view_lets_anything_out_of_its_place(world: World) -> None:
    """Every attack in every field of rows that lists show, in the gate and in the pause."""
    for number, attack in enumerate(ATTACKS):
        text = attack.encode(errors="replace").decode()
        video = {"id": text, "key": f"videos/{text}", "duration": text, "size": 5}
        said = {"reason": text, "waits_for": text, "external_task_id": f"{number}{text}", "units": text, "tenant": text}
        said |= {
            "upstream_id": text,
            "request": {"prompt": text, "model_name": text, "image": {"s3": f"inputs/{text}"}},
        }
        for end in ("succeed", "failed", None):
            phase = {"succeed": Phase.SUCCEEDED, "failed": Phase.FAILED, None: Phase.PROCESSING}[end]
            row = new_task(phase=phase, videos=[video] if end == "succeed" else [], **said)
            item = {**new_item(row), "end": value(end), "ended": value(f"{world.clock.now:013}#{row.id}")}
            kept = {name: given for name, given in item.items() if end or name not in ("end", "ended")}
            world.dynamodb.put_item(TableName=world.table.rows.name, Item=kept)
    hostile = "".join(ATTACKS)[:200].encode(errors="replace").decode()
    world.services.admissions.close(
        world.services.account,
        world.services.admissions.get(world.services.account),
        not_before=world.clock.now + 60_000,
        reason=hostile,
    )
    world.clock.tick(1)
    for show in ("open_tasks", "failures", "videos", "account"):
        widget = drawn(world, show, limit=100)
        assert set(call["endpoint"] for call, _ in widget.calls) <= {HERE, OPERATE}
        assert "<script>alert(1)</script>" in widget.text or show == "videos"
        assert all("javascript:" not in link.partition("?")[0][:12] for link in widget.links)
    world.services.admissions.stop(world.clock.now, hostile)
    assert "<script>alert(1)</script>" in drawn(world, "account").text
