"""Read the points of one metric from GetMetricData."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

Series = dict[int, float]
"""The start of a period (milliseconds) -> the value of the statistic over it. A period without data has no entry."""

Read = Callable[[str, str, Mapping[str, str], str, int, int, int], Series]
"""`read(namespace, metric, dimensions, statistic, period_s, start_ms, end_ms)`: the periods from `start_ms` on (a full
minute, or for shorter periods a multiple of the period) that begin before `end_ms`. `dimensions` are exactly those of
the metric. `statistic`: Sum, Average, Minimum, Maximum, SampleCount or a percentile such as p99."""


def reader(cloudwatch: Any) -> Read:
    """Return a Read on `cloudwatch`, a boto3 client."""

    def read(
        namespace: str,
        metric: str,
        dimensions: Mapping[str, str],
        statistic: str,
        period_s: int,
        start_ms: int,
        end_ms: int,
    ) -> Series:
        named = [{"Name": name, "Value": value} for name, value in dimensions.items()]
        source = {"Namespace": namespace, "MetricName": metric, "Dimensions": named}
        query = {"Id": "m", "MetricStat": {"Metric": source, "Period": period_s, "Stat": statistic}}
        pages = cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=[query], StartTime=_time(start_ms), EndTime=_time(end_ms)
        )
        results = [result for page in pages for result in page["MetricDataResults"]]
        return {
            round(at.timestamp() * 1000): value
            for result in results
            for at, value in zip(result["Timestamps"], result["Values"], strict=True)
        }

    return read


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
