"""Test that functions print exactly the metrics of the catalogue, and that no metric makes a call fail."""

import json
import re
from typing import Any

import pytest
from kling_relay import observability
from kling_relay.observability import DIMENSION, REASONS, UNITS, Metric, emit
from kling_relay.tasks.task import Phase

from tests.support.printed_metrics import published_metrics
from tests.support.stack_in_memory import ROOT, Cloud, World

IN_MEMORY = True


def test_the_catalogue() -> None:
    """A series costs $0.30 a month: forty are the house's limit, and names stay the same for dashboards."""
    series = len(set(Metric) - set(REASONS)) + sum(len(reasons) for _, reasons in REASONS.values())
    assert set(UNITS) == set(Metric) and series <= 40
    assert all(name.isalpha() and name[0].isupper() for name in UNITS)
    assert set(UNITS.values()) == {"Count", "Seconds", "Bytes"}
    assert {metric for metric, unit in UNITS.items() if unit == "Seconds"} == {
        *(metric for metric in Metric if metric.endswith("Seconds")),
        Metric.OLDEST_OPEN_TASK,
    }
    for dimension, reasons in REASONS.values():
        assert dimension != DIMENSION and len(set(reasons)) == len(reasons) > 1


def test_they_carry_the_stacks_name(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    World(cloud, stack_name="kling-relay-prod").services.measure({Metric.UNCONFIRMED: 1})
    line = json.loads(capsys.readouterr().out)
    assert line["service"] == "kling-relay-prod" and line["Unconfirmed"] == [1.0]
    assert set(line) == {"_aws", "service", "Unconfirmed"}


def test_a_reason_is_the_second_dimension(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for metric, (_, reasons) in REASONS.items():
        for reason in reasons:
            world.services.count(metric, reason)
            assert published_metrics(capsys) == {f"{metric}/{reason}": [1]}


@pytest.mark.parametrize(
    "bad",
    [
        ({Metric.UNCONFIRMED: "text"},),
        ({Metric.UNCONFIRMED: None},),
        ({"Invented": 1},),
        ({Metric.FAILED: 1},),
        ({Metric.FAILED: 1}, "invented"),
        ({Metric.UNCONFIRMED: 1}, "refused"),
        ({Metric.UNCONFIRMED: 1, Metric.FAILED: 1}, "refused"),
    ],
)
def test_a_metric_that_the_catalogue_does_not_have_is_no_error_and_no_series(
    bad: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    emit("x", *bad)
    assert published_metrics(capsys) == {} and [record.message for record in caplog.records] == ["metrics_lost"]


def test_a_broken_library_breaks_no_handler(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> Any:
        raise OSError("no space left")

    monkeypatch.setattr(observability, "EphemeralMetrics", broken)
    task = world.create()
    world.clock.tick(61)
    assert world.callback(task) == 200 and world.task(task.id).phase is Phase.RENDERED
    world.run_notifier()
    assert world.sweep() == {"overdue": 0, "waiting": 0, "late": 0, "notifications": 0}


def test_a_sweep_measures_what_is_open(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.sweep()
    nothing = {"SweeperHeartbeat": [1], "AccountTrouble": [0], "WaitingTasks": [0], "ParkedTasks": [0]}
    assert published_metrics(capsys) == {**nothing, "OldestOpenTask": [0]}
    world.provider.seconds = 3600
    world.create()
    world.clock.tick(7)
    world.provider.submit_faults = ["no_room", "no_room"]
    world.create(), world.create()
    world.clock.tick(0.5)
    capsys.readouterr()
    world.sweep()
    assert published_metrics(capsys) == {**nothing, "WaitingTasks": [2], "OldestOpenTask": [7.5]}


def test_the_oldest_task_is_the_oldest_that_a_client_still_waits_for(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(cloud, deadline_seconds=600)
    world.provider.seconds = 5000
    expired = world.until_closed(world.create().id)
    assert expired.phase is Phase.EXPIRED and expired.due_at is not None
    world.provider.seconds = 60
    world.until_closed(world.create().id)
    capsys.readouterr()
    world.sweep()
    assert published_metrics(capsys)["OldestOpenTask"] == [0], "one is done, the other is only watched"
    world.run(6 * 3600, step=1800)
    assert world.task(expired.id).phase is Phase.SUCCEEDED, "its late move"
    assert world.services.backlog.oldest() is None
    open_ = world.create()
    world.clock.tick(5)
    assert world.services.backlog.oldest() == open_.created_at


def test_a_sweep_whose_measuring_fails_still_beats(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: Any) -> Any:
        raise ConnectionError("away")

    monkeypatch.setattr(world.services.backlog, "_query", broken)
    world.sweep()
    assert published_metrics(capsys) == {"SweeperHeartbeat": [1]}


def test_a_sweep_that_fails_does_not_beat(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> Any:
        raise ConnectionError("away")

    monkeypatch.setattr(world.table.queue, "waiting", broken)
    with pytest.raises(ConnectionError):
        world.sweep()
    assert published_metrics(capsys) == {}


def test_every_metric_is_measured_somewhere() -> None:
    """An alarm on one that nobody publishes would be silent for ever."""
    code = "".join(
        path.read_text() for folder in ("layers/relay", "functions") for path in (ROOT / folder).rglob("*.py")
    )
    uses = {name: len(re.findall(rf"\bMetric\.{name}\b", code)) for name in Metric.__members__}
    in_catalogue = {"REJECTED", "FAILED", "PROVIDER_CALLS", "ARCHIVED_BYTES", "OLDEST_OPEN_TASK"}  # as keys
    assert [name for name, found in uses.items() if found < 1 + (name in in_catalogue)] == []
