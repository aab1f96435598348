"""Send API Gateway's metrics of its requests to CloudWatch, for the front and in the background."""

import contextlib
import queue
import threading
from collections import Counter
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

_CLOSED = (0, 0.0)
_BATCH = 100
"""The maximum number of requests in one call; PutMetricData takes 150 values per metric."""


class GatewayMetrics:
    """Send AWS/ApiGateway to `cloudwatch`, a boto3 client, under the API's name and its stage, in a separate thread.

    Metrics that cannot be sent are dropped: they must not make a request fail.
    """

    def __init__(self, cloudwatch: Any, api_name: str, stage: str) -> None:
        self._cloudwatch = cloudwatch
        api = {"Name": "ApiName", "Value": api_name}
        self._dimensions = [[api], [api, {"Name": "Stage", "Value": stage}]]
        self._told: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True, name="gateway-figures")
        self._thread.start()

    def record(self, status: int, milliseconds: float) -> None:
        """Record one request, answered with `status`. Returns at once."""
        self._told.put((status, milliseconds))

    def stop(self) -> None:
        """Send the remaining metrics, and end."""
        self._told.put(_CLOSED)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        going_on = True
        while going_on:
            batch = [self._told.get()]
            while not self._told.empty() and len(batch) < _BATCH:
                batch.append(self._told.get())
            going_on = _CLOSED not in batch
            if requests := [one for one in batch if one != _CLOSED]:
                self._send(requests)

    def _send(self, requests: list[tuple[int, float]]) -> None:
        values = {
            "Count": [1.0 for _ in requests],
            "4XXError": [float(400 <= status < 500) for status, _ in requests],
            "5XXError": [float(status >= 500) for status, _ in requests],
            "Latency": [milliseconds for _, milliseconds in requests],
        }
        metrics = [
            {"MetricName": name, "Unit": _unit(name), "Dimensions": dimensions, **_counted(found)}
            for name, found in values.items()
            for dimensions in self._dimensions
        ]
        with contextlib.suppress(BotoCoreError, ClientError):
            self._cloudwatch.put_metric_data(Namespace="AWS/ApiGateway", MetricData=metrics)


def _unit(name: str) -> str:
    return "Milliseconds" if name == "Latency" else "Count"


def _counted(values: list[float]) -> dict[str, list[float]]:
    counts = Counter(values)
    return {"Values": list(counts), "Counts": [float(count) for count in counts.values()]}
