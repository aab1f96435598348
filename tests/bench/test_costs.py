"""Test the cost model: its document contains the computed values, and its promises hold."""

import json
from typing import Any

import pytest

from bench import costs
from bench.usage import Image, write_units
from kling_relay_cli import REPOSITORY
from local.stack.deploy_template import load_template
from local.stack.expand_template import transformed

PRICES = json.loads((REPOSITORY / "bench/prices.json").read_text())["prices"]
WITH_TENANT = (("queue", "due_at"), ("tenant",))


@pytest.fixture(scope="module")
def used() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REPOSITORY / "bench/usage.json").read_text())
    return found


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return transformed(load_template())


def test_the_document_has_the_tables_as_they_are(used: dict[str, Any]) -> None:
    document = (REPOSITORY / "docs/costs.md").read_text()
    assert costs.written(document, used) == document, "run `make costs`"
    assert all(table in document for table in costs.tables(used).values())


def test_an_idle_stack_costs_ten_dollars_at_most(used: dict[str, Any], template: dict[str, Any]) -> None:
    """Alone in its account; and with others in it, but for the dashboard: each account has three for nothing."""
    lines = costs.per_idle_month(used, costs.memory_of(template), template)
    assert 1 < costs.total(costs.own_account(lines)) <= 10
    assert costs.total([line for line in lines if line[2] != "dashboard_month"]) <= 10


@pytest.mark.parametrize(("render_seconds", "times"), [(120, 5), (300, 12)])
def test_waiting_costs_a_fraction_of_polling(
    used: dict[str, Any], template: dict[str, Any], render_seconds: int, times: int
) -> None:
    both = costs.waiting(used, costs.memory_of(template), render_seconds)
    assert both["polling"] > times * both["ours"] > 0


def test_every_price_is_used_and_says_where_it_was_seen(used: dict[str, Any], template: dict[str, Any]) -> None:
    memory = costs.memory_of(template)
    lines = [*costs.per_video(used, memory), *costs.per_idle_month(used, memory, template)]
    assert {price for _, _, price in lines} == set(PRICES)
    assert all(row["usd"] > 0 and row["seen"] for row in PRICES.values())


@pytest.mark.parametrize(
    ("alarm", "metrics"),
    [
        ({"MetricName": "Failed"}, 1),
        ({"Metrics": [{"MetricStat": {}}, {"MetricStat": {}}, {"Expression": "a / b"}]}, 2),
    ],
)
def test_alarms_are_billed_by_their_metrics(used: dict[str, Any], alarm: dict[str, Any], metrics: int) -> None:
    resources = {
        "A": {"Type": "AWS::CloudWatch::Alarm", "Properties": alarm},
        "C": {"Type": "AWS::CloudWatch::CompositeAlarm", "Properties": {}},
        "S": {"Type": "AWS::SecretsManager::Secret", "Properties": {}},
    }
    lines = costs.per_idle_month(used, {"SweepTasksFunction": 0.5}, {"Resources": resources})
    billed = {price: quantity for _, quantity, price in lines}
    assert billed["alarm_metric_month"] == metrics
    assert (billed["composite_alarm_month"], billed["dashboard_month"], billed["secret_month"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("old", "new", "units"),
    [
        (None, {"pk": 1}, 2),  # in a transaction
        ({"pk": 1}, {"pk": 1, "text": "x" * 1024}, 2),
        ({"pk": 1, "text": "x" * 1024}, {"pk": 1}, 2),
        ({"pk": 1}, {"pk": 1, "queue": "open", "due_at": 1}, 2),  # an entry appears
        ({"queue": "open", "due_at": 1}, {"queue": "open", "due_at": 2}, 3),  # it moves: one goes, one comes
        ({"queue": "open", "due_at": 1}, {"queue": "open"}, 2),
        ({"queue": "open", "due_at": 1, "tenant": "a"}, {"queue": "open", "due_at": 1, "tenant": "b"}, 2),
        ({"queue": "open", "due_at": 1, "tenant": "a"}, {"queue": "open", "due_at": 1, "tenant": "a", "n": 1}, 1),
    ],
)
def test_writes_are_counted_with_their_indexes(old: Image, new: Image, units: int) -> None:
    assert write_units(old, new, [WITH_TENANT]) == units
