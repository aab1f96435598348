"""Test the dashboard's widgets on the whole stack: they show the failures, and their buttons work."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.widget_html import Widget
from tests.workflow.driver import BODY, Driver, call, play, until

MODERATED = "Failure to pass the risk control system"


class Console:
    """CloudWatch's part: it calls the functions that a widget names, with what they are to be called with."""

    def __init__(self, driver: Driver) -> None:
        self.lambdas = driver.lambdas
        names = [one["FunctionName"] for one in self.lambdas.list_functions()["Functions"]]
        (self.widget,) = [name for name in names if "OpsWidget" in name]

    def show(self, show: str, forms: dict[str, str] | None = None, **params: Any) -> Widget:
        context = {"forms": {"all": forms or {}}, "theme": "light", "width": 900, "params": {"show": show}}
        return self.drawn(self.widget, {"show": show, **params, "widgetContext": context})

    def drawn(self, function: str, event: dict[str, Any]) -> Widget:
        widget = Widget(self.invoke(function, event))
        assert widget.problems == []
        return widget

    def invoke(self, function: str, event: dict[str, Any]) -> Any:
        answer = self.lambdas.invoke(FunctionName=function, Payload=json.dumps(event).encode())
        said = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, said
        return said

    def click(self, widget: Widget, wanted: Callable[[dict[str, Any]], bool]) -> Any:
        """What the one element of a widget answers whose call is `wanted`."""
        ((action, values),) = [(action, values) for action, values in widget.calls if wanted(values)]
        return self.invoke(action["endpoint"], {**values, "widgetContext": {"forms": {"all": widget.fields}}})


@pytest.fixture
def console(driver: Driver) -> Console:
    return Console(driver)


def test_why_a_task_failed_is_found_from_the_dashboard_alone(driver: Driver, console: Console) -> None:
    good = driver.post()["task_id"]
    driver.delivered(good)
    driver.faults(fail={"value": MODERATED, "times": 1})
    bad = driver.post(external_task_id="order-7")["task_id"]
    assert driver.ended(bad)["task_status"] == "failed"
    failures = console.show("failures")
    assert "1failed" in failures.text and "1succeed" in failures.text
    assert "Stopped by the provider's content rules" in failures.text and MODERATED in failures.text
    assert "Its client has to change them" in failures.text
    story = Widget(console.click(failures, lambda values: values.get("task") == bad))
    assert story.problems == []
    for told in (bad, "order-7", MODERATED, BODY["prompt"], "sent to the provider"):
        assert told in story.text
    assert story.text.index("accepted") < story.text.index("sent to the provider")
    found = console.show("task", forms={"task": "order-7", "tenant": "demo"})
    assert bad in found.text
    assert "Nothing is open" in console.show("open_tasks").text


def test_videos_can_be_watched_and_their_images_seen(driver: Driver, console: Console) -> None:
    task_id = driver.post()["task_id"]
    video = driver.delivered(task_id)
    widget = console.show("videos")
    (poster, watched) = widget.links
    assert call("GET", watched).content == video
    assert call("GET", poster).content[:3] == b"\xff\xd8\xff"


def test_a_copy_that_failed_is_begun_again_by_its_button(driver: Driver, console: Console) -> None:
    driver.faults(wrong_file=True)
    task_id = driver.post()["task_id"]
    until(lambda: driver.row(task_id).get("copies", 0) >= 2)
    widget = console.show("open_tasks")
    assert task_id[:8] in widget.text and "its copy to S3 (not_a_video)" in widget.text
    driver.faults(wrong_file=None)
    until(lambda: _begun(driver, console, task_id))
    assert play(driver.delivered(task_id))
    assert len(driver.posts(task_id)) == 1


def test_a_task_that_expired_for_want_of_a_copy_still_gets_its_video(driver: Driver, console: Console) -> None:
    driver.faults(wrong_file=True)
    task_id = driver.post()["task_id"]
    driver.phase(task_id, "rendered")
    driver.write(f"task#{task_id}", rendered_at=driver.row(task_id)["rendered_at"] - 86_400_000)
    driver.phase(task_id, "expired")
    failures = console.show("failures")
    assert "Rendered and paid, not copied" in failures.text and "not_a_video" in failures.text
    driver.faults(wrong_file=None)
    assert console.click(failures, lambda values: values.get("action") == "retry_archive")["begun"]
    until(lambda: driver.row(task_id)["phase"] == "succeeded")
    assert play(driver.delivered(task_id)) and len(driver.posts(task_id)) == 1
    assert "0failed" in console.show("failures").text


def _begun(driver: Driver, console: Console, task_id: str) -> bool:
    """Whether the button was pressed while the task slept, or it has not been needed any more."""
    story = console.show("task", task=task_id)
    if driver.row(task_id)["phase"] == "succeeded":
        return True
    begun: bool = console.click(story, lambda values: values.get("action") == "retry_archive")["begun"]
    return begun


def test_sending_is_paused_and_resumed_by_a_button(driver: Driver, console: Console) -> None:
    said = console.click(console.show("account"), lambda values: values.get("action") == "pause")
    assert said["paused"] and said["reason"] == "from the dashboard"
    task_id = driver.post()["task_id"]
    assert "paused by the operator" in console.show("open_tasks").text
    assert driver.ledger()["accepted"] == 0
    assert console.click(console.show("account"), lambda values: values.get("action") == "resume")["resumed"]
    driver.sweep()
    driver.delivered(task_id)


def test_dead_letters_go_back_by_a_button(driver: Driver, console: Console) -> None:
    queues = driver.emulator.client("sqs")
    urls = {url.rpartition("/")[2]: url for url in queues.list_queues()["QueueUrls"]}
    (dead,) = [url for name, url in urls.items() if "IntakeDeadLetters" in name]
    key = "inbox/never-there.png"
    detail = {"bucket": {"name": driver.endpoint["input_bucket"]}, "object": {"key": key, "version-id": "none"}}
    queues.send_message(QueueUrl=dead, MessageBody=json.dumps({"detail": detail}))
    widget = console.show("dead_letters")
    assert "1 message" in widget.text and key in widget.text
    answer = console.click(widget, lambda values: values.get("action") == "redrive")
    assert answer == {"queue": "IntakeDeadLetters", "moved": 1, "left": 0}
    assert "empty" in console.show("dead_letters").text
    until(lambda: driver.objects("input_bucket", f"results/{key}.json"))  # it was handled: its result says why not
