"""Test the gateway's metrics: all of them arrive in few calls, and no request waits or fails because of them."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.stack.gateway_metrics import GatewayMetrics


class CloudWatch:
    """Takes figures once it is `open`; `refusals` times it refuses them."""

    def __init__(self) -> None:
        self.calls: list[list[dict[str, Any]]] = []
        self.open = threading.Event()
        self.refusals = 0

    def put_metric_data(self, *, Namespace: str, MetricData: list[dict[str, Any]]) -> None:
        assert Namespace == "AWS/ApiGateway" and self.open.wait(5)
        if self.refusals:
            self.refusals -= 1
            raise ClientError({"Error": {"Code": "InternalServiceFault"}}, "PutMetricData")
        assert all(len(one["Values"]) == len(one["Counts"]) <= 150 for one in MetricData)
        self.calls.append(MetricData)

    def total(self, metric: str, *dimensions: str) -> float:
        found = [one for call in self.calls for one in call if one["MetricName"] == metric]
        mine = [one for one in found if tuple(each["Value"] for each in one["Dimensions"]) == dimensions]
        return sum(v * count for one in mine for v, count in zip(one["Values"], one["Counts"], strict=True))


@pytest.fixture
def cloudwatch() -> CloudWatch:
    return CloudWatch()


@pytest.fixture
def figures(cloudwatch: CloudWatch) -> Iterator[GatewayMetrics]:
    running = GatewayMetrics(cloudwatch, "kling-relay", "live")
    yield running
    cloudwatch.open.set()
    running.stop()


def test_every_request_is_told_in_few_calls_and_nobody_waits(figures: GatewayMetrics, cloudwatch: CloudWatch) -> None:
    began = time.monotonic()
    for number in range(250):
        figures.record((200, 404, 502, 429, 302)[number % 5], float(number))
    assert time.monotonic() - began < 1
    cloudwatch.open.set()
    figures.stop()
    for dimensions in (("kling-relay", "live"), ("kling-relay",)):
        assert [cloudwatch.total(name, *dimensions) for name in ("Count", "4XXError", "5XXError")] == [250, 100, 50]
        assert cloudwatch.total("Latency", *dimensions) == sum(range(250))
    assert len(cloudwatch.calls) <= 4


def test_figures_that_are_refused_are_dropped_and_later_ones_arrive(
    figures: GatewayMetrics, cloudwatch: CloudWatch
) -> None:
    cloudwatch.refusals = 1
    cloudwatch.open.set()
    figures.record(200, 1.0)
    while cloudwatch.refusals:
        time.sleep(0.005)
    figures.record(500, 2.0)
    figures.stop()
    assert cloudwatch.total("Count", "kling-relay") == cloudwatch.total("5XXError", "kling-relay") == 1
