"""Test the emitted metrics of each event: each once, and no others."""

from typing import Any

import pytest
from kling_relay.tasks import idempotency
from kling_relay.tasks.task import Phase

from tests.support.printed_metrics import published_metrics
from tests.support.stack_in_memory import BODY, Cloud, World

pytestmark = pytest.mark.slow


def test_callbacks_are_counted(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    task = world.create()
    world.clock.tick(10)
    capsys.readouterr()
    world.callback(task), world.callback(task)  # the second one comes too soon after the first
    world.call("kling_callback", {"pathParameters": {"task_id": task.id, "token": "k1.x"}})
    assert published_metrics(capsys) == {
        "CallbacksReceived": [1, 1],
        "CallbacksDuplicate": [1],
        "CallbacksRejected": [1],
    }
    world.clock.tick(10)
    world.callback(task, {"task_id": "up-1", "task_status": "processing"})  # the row knows that already
    assert published_metrics(capsys) == {"CallbacksReceived": [1], "CallbacksDuplicate": [1]}
    world.clock.tick(50)
    world.callback(task)
    assert {name for name in published_metrics(capsys) if name.startswith("Callbacks")} == {"CallbacksReceived"}
    world.callback(task)  # rendered: nothing of the provider's is news
    assert published_metrics(capsys) == {"CallbacksReceived": [1], "CallbacksDuplicate": [1]}
    world.states.run()
    capsys.readouterr()
    world.callback(task)
    assert published_metrics(capsys) == {"CallbacksReceived": [1], "CallbacksLate": [1]}


def test_an_early_callback_is_neither_late_nor_a_duplicate(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.provider.submit_faults = ["no_room"]
    task = world.create()
    capsys.readouterr()
    world.callback(task)
    assert published_metrics(capsys) == {"CallbacksReceived": [1]}


def test_a_post_in_doubt_is_counted(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.provider.submit_faults = ["lost"]
    world.create()
    assert published_metrics(capsys) == {"Accepted": [1], "Unconfirmed": [1]}


def test_the_happy_way(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Metrics are lines in a log that is paid for: one where a task has moved, one for the callback."""
    task = world.create()
    world.states.run()
    world.clock.tick(61)
    world.callback(task)
    world.clock.tick(2)
    world.states.run()
    assert world.task(task.id).phase is Phase.SUCCEEDED
    out = capsys.readouterr().out
    assert out.count('"_aws"') == 5
    capsys.readouterr()
    print(out, end="")
    assert published_metrics(capsys) == {
        **{"Accepted": [1], "Submitted": [1], "WaitingSeconds": [0], "CallbacksReceived": [1]},
        **{"ProviderSeconds": [61], "UnitsSpent": [1.5], "Succeeded": [1], "ArchivedBytes": [5]},
        **{"ArchiveSeconds": [2], "EndToEndSeconds": [63]},
    }


def test_a_missed_callback_is_a_poll_that_finds_the_end(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.provider.seconds = 100
    task = world.create()
    capsys.readouterr()
    assert world.until_closed(task.id).phase is Phase.SUCCEEDED
    told = published_metrics(capsys)
    asked = world.provider.queries.count("up-1")
    assert told["PollsMade"] == [1] * asked and asked > 1 and told["PollsFoundEnd"] == [1]
    assert "CallbacksReceived" not in told


@pytest.mark.parametrize(
    ("faults", "end", "settings", "reason"),
    [
        (["refused"], "succeed", {}, "refused"),
        (["risky"], "succeed", {}, "content"),
        ([], "failed", {}, "provider"),
        (["dropped"], "succeed", {"on_unconfirmed": "fail"}, "expired"),
        (["dropped"], "succeed", {"deadline_seconds": 500, "settle_seconds": 30}, "expired"),
        (["no_room"] * 99, "succeed", {"deadline_seconds": 500}, "expired"),
    ],
)
def test_failures_by_reason(
    cloud: Cloud, faults: list[str], end: str, settings: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(cloud, **settings)
    world.provider.submit_faults, world.provider.end = faults, end
    world.post()
    (task,) = world.tasks()
    assert world.until_closed(task.id).failure == reason
    told = published_metrics(capsys)
    assert {name: values for name, values in told.items() if name.startswith("Failed")} == {f"Failed/{reason}": [1]}
    assert "Succeeded" not in told and "Rejected" not in str(told)


def test_risk_control_after_the_render(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.provider.end, world.provider.words = "failed", "Failure to pass the risk control system"
    task = world.create()
    assert world.until_closed(task.id).failure == "content"
    assert published_metrics(capsys)["Failed/content"] == [1]


def test_who_cancels_has_not_failed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.provider.submit_faults = ["no_room"]
    task = world.create()
    capsys.readouterr()
    assert world.http("DELETE", f"/v1/videos/image2video/{task.id}", authorization=world.key())[0] == 200
    assert world.task(task.id).phase is Phase.FAILED and published_metrics(capsys) == {}


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (lambda world: world.http("POST", "/v1/videos/image2video", BODY), "credentials"),
        (lambda world: world.post({"prompt": "no image"}), "request"),
        (lambda world: world.http("POST", "/v1/videos/no-such-kind", BODY, authorization=world.key()), "request"),
        (lambda world: (world.services.spending.set_cap("acme", 1), world.post()), "cap"),
    ],
)
def test_rejections_by_reason(world: World, ask: Any, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    world.key()
    ask(world)
    assert published_metrics(capsys) == {f"Rejected/{reason}": [1]}


def test_trouble_of_ours_is_told_as_busy(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(idempotency, "record", lambda *_, **__: 1 / 0)
    assert world.post()[0] == 503
    assert published_metrics(capsys) == {"Rejected/busy": [1]}


def test_who_only_asks_is_not_rejected(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.http("GET", "/v1/videos/image2video/none", authorization=world.key())[0] == 404
    assert world.http("GET", "/v1/videos/image2video/none")[0] == 401
    assert published_metrics(capsys) == {}


def test_a_copy_that_fails_is_counted(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.copy_faults = ["truncated", "storage"]
    assert world.until_closed(world.create().id).phase is Phase.SUCCEEDED
    told = published_metrics(capsys)
    assert (told["ArchiveFailed"], told["ArchivedBytes"], told["Succeeded"]) == ([1, 1], [5], [1])
