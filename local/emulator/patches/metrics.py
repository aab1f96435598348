"""Correct CloudWatch's metrics: the metrics that services emit, and queries.

`PUT_FORWARD` is a setting of `/_ministack/config`: seconds by which CloudWatch's clock is ahead of all other clocks, so
that a test need not wait for the minutes of an alarm's range.
"""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

from ministack import app
from ministack.core import lambda_runtime
from ministack.services import cloudwatch, eventbridge, lambda_svc, sqs, stepfunctions
from ministack.services.cloudwatch import _dims_key, _metrics

from local.cloudwatch.metric_math import ExpressionError, evaluate
from local.cloudwatch.series import Series
from local.emulator.patches.patching import correction, swap, wrap

PUT_FORWARD = "cloudwatch._ahead_seconds"
LOOK_SECONDS = 1.0
"""Seconds between two reads of the queues while metrics are requested; otherwise each round of `alarms` reads them."""

_recording = threading.Lock()  # MiniStack rewrites the lists of points while it deletes old ones
_ran = threading.local()  # .ms: the duration of this thread's last invocation
_looked_at = 0.0


def now() -> float:
    """Return CloudWatch's own time, in seconds since 1970."""
    return time.time() + float(cloudwatch._ahead_seconds)


def record(
    namespace: str, name: str, value: float, unit: str, dimensions: dict[str, str], at: float | None = None
) -> None:
    with _recording:
        cloudwatch._metric_bucket((namespace, name, _dims_key(dimensions))).append(
            {
                "Timestamp": now() if at is None else at + float(cloudwatch._ahead_seconds),
                "Value": float(value),
                "Unit": unit,
                "Dimensions": dimensions,
            }
        )


def read(
    namespace: str, name: str, dimensions: Any, statistic: str, period_s: int, start_ms: int, end_ms: int
) -> Series:
    """Implement `local.cloudwatch.series.Read` on MiniStack's own store."""
    periods: dict[int, list[dict[str, Any]]] = {}
    for point in list(_metrics.get((namespace, name, _dims_key(dict(dimensions))), ())):
        at_ms = int(point["Timestamp"] * 1000)
        if start_ms <= at_ms < end_ms:
            periods.setdefault(at_ms - (at_ms - start_ms) % (period_s * 1000), []).append(point)
    values = {at: cloudwatch._stat_value(cloudwatch._calc_stats(of), statistic, of) for at, of in periods.items()}
    return {at: float(value) for at, value in sorted(values.items()) if value is not None}


@correction
def its_clock_can_be_put_forward() -> None:
    """This corrects no fault of MiniStack. It lets a test run an alarm of one hour without waiting for an hour."""
    cloudwatch._ahead_seconds = 0.0
    swap(
        app._handle_admin_config_request,
        ('        "alb.TARGET_IDLE_TIMEOUT",\n', f'        "alb.TARGET_IDLE_TIMEOUT",\n        "{PUT_FORWARD}",\n'),
    )
    swap(
        cloudwatch._put_metric_data,
        ('_parse_ts(md.get("Timestamp")) or time.time()', '_parse_ts(md.get("Timestamp")) or _now()'),
        _now=now,
    )
    wrap(cloudwatch, "_evict_old_metrics", "cf47bc1522ad")(_evict)


def _evict(stock: Any) -> None:
    with _recording:
        stock()


def _embedded(line: str) -> Iterator[tuple[str, str, float, str, dict[str, str], float]]:
    """Yield the metrics in a line of the embedded format; nothing for any other line, or for a malformed one."""
    try:
        entry = json.loads(line)
        at = entry["_aws"]["Timestamp"] / 1000
        for directive in entry["_aws"]["CloudWatchMetrics"]:
            for names in directive["Dimensions"]:
                dimensions = {name: str(entry[name]) for name in names}
                for metric in directive["Metrics"]:
                    values = entry[metric["Name"]]
                    for value in values if isinstance(values, list) else [values]:
                        unit = metric.get("Unit", "None")
                        yield directive["Namespace"], metric["Name"], float(value), unit, dimensions, at
    except (ValueError, KeyError, TypeError):
        return


@correction
def metrics_in_log_lines_are_extracted() -> None:
    """MiniStack leaves the embedded metric format in the logs. It counts only those Lambda invocations that come
    through Invoke, and their duration includes the wait. AWS: every invocation, and as duration the handler's own
    time."""
    swap(
        lambda_runtime.Worker.invoke,
        (
            "        reader.join(timeout=timeout)\n",
            "        began = time.monotonic()\n"
            "        reader.join(timeout=timeout)\n"
            "        _ran.ms = (time.monotonic() - began) * 1000\n",
        ),
        _ran=_ran,
    )

    @wrap(lambda_svc, "_emit_lambda_logs", "111efbf06968")
    def record_invocation(
        stock: Any, function: dict[str, Any], request: str, log: str, error: bool, waited_ms: int, **source: Any
    ) -> None:
        ran_ms, _ran.ms = getattr(_ran, "ms", None), None
        stock(function, request, log, error, waited_ms, **source)
        dimensions = {"FunctionName": function["config"]["FunctionName"]}
        record("AWS/Lambda", "Invocations", 1, "Count", dimensions)
        record("AWS/Lambda", "Errors", int(error), "Count", dimensions)
        at_once = lambda_svc._inflight.get(lambda_svc._inflight_key(function["config"]), 1)
        record("AWS/Lambda", "ConcurrentExecutions", at_once, "Count", dimensions)
        record("AWS/Lambda", "Duration", waited_ms if ran_ms is None else ran_ms, "Milliseconds", dimensions)
        for line in log.splitlines():
            if '"_aws"' in line:
                for metric in _embedded(line):
                    record(*metric)

    @wrap(lambda_svc, "_emit_lambda_metrics", "3b6689d77cf6")
    def throttled(_stock: Any, name: str, duration_ms: float, error: bool, throttle: bool) -> None:
        if throttle and not duration_ms:  # the other calls repeat the counts above
            record("AWS/Lambda", "Throttles", 1, "Count", {"FunctionName": name})


_ENDS = {"SUCCEEDED": "Succeeded", "FAILED": "Failed", "TIMED_OUT": "TimedOut", "ABORTED": "Aborted"}


@correction
def executions_are_counted() -> None:
    """MiniStack has no AWS/States."""

    @wrap(stepfunctions, "_emit_execution_status_event", "9c89e45693e3")
    def record_execution(stock: Any, execution: dict[str, Any]) -> None:
        stock(execution)
        dimensions = {"StateMachineArn": execution["stateMachineArn"]}
        end = _ENDS.get(execution["status"])
        record("AWS/States", f"Executions{end or 'Started'}", 1, "Count", dimensions)
        if end:
            lasted = time.time() * 1000 - stepfunctions._iso_to_epoch_ms(execution["startDate"])
            record("AWS/States", "ExecutionTime", lasted, "Milliseconds", dimensions)


def _sent(queue: dict[str, Any]) -> None:
    record("AWS/SQS", "NumberOfMessagesSent", 1, "Count", {"QueueName": queue["name"]})


@correction
def messages_are_counted() -> None:
    """MiniStack has no AWS/SQS; `look_at_queues` records the metrics that need no message."""
    append = '["messages"].append(msg)\n'
    swap(sqs._act_send_message, (f"    q{append}", f"    q{append}    _sent(q)\n"), _sent=_sent)
    swap(eventbridge._dispatch_to_sqs, (f"    queue{append}", f"    queue{append}    _sent(queue)\n"), _sent=_sent)


def look_at_queues() -> None:
    """Record each queue's number of messages, and the age of its oldest message by CloudWatch's clock."""
    global _looked_at
    if time.monotonic() - _looked_at < LOOK_SECONDS:
        return
    _looked_at = time.monotonic()
    ahead = float(cloudwatch._ahead_seconds)
    for queue in list(sqs._queues.values()):
        dimensions = {"QueueName": queue["name"]}
        sqs._refresh_counts(queue)
        for attribute, suffix in (("", "Visible"), ("NotVisible", "NotVisible"), ("Delayed", "Delayed")):
            waiting = float(queue["attributes"][f"ApproximateNumberOfMessages{attribute}"])
            record("AWS/SQS", f"ApproximateNumberOfMessages{suffix}", waiting, "Count", dimensions)
        ages = [now() - message.setdefault("_since", message["sent_at"] + ahead) for message in list(queue["messages"])]
        age = max(ages, default=0.0)
        record("AWS/SQS", "ApproximateAgeOfOldestMessage", age, "Seconds", dimensions)


def _start_of_period(at: float, period: int, start: float | None) -> int:
    origin = 0 if start is None else start - start % min(period, 60)
    return int(at - (at - origin) % period)


def _expression(name: str, queries: list[dict[str, Any]], start: float, end: float) -> dict[str, Any]:
    """Return the answer to a query with an Expression."""
    try:
        series = evaluate(queries, read, int(start * 1000), int(end * 1000))[name]
    except ExpressionError as exc:
        wrong = [{"Code": "ValidationError", "Value": str(exc)}]
        return {"StatusCode": "InternalError", "Messages": wrong, "Timestamps": [], "Values": []}
    moments = [cloudwatch._ts_iso(at / 1000) for at in series]
    return {"StatusCode": "Complete", "Timestamps": moments, "Values": list(series.values())}


@correction
def metrics_are_asked_for_as_on_aws() -> None:
    """MiniStack adds up all sets of dimensions if a query names none. It aligns periods to multiples of their length.
    It has no metric math and no AWS/SQS. AWS: exactly the dimensions; periods from the start on, in whole minutes."""
    exact = ("req_dims_key = _dims_key(req_dims) if req_dims else None", "req_dims_key = _dims_key(req_dims)")
    swap(
        cloudwatch._get_metric_statistics,
        exact,
        ("    all_points = []\n", "    _look_at_queues()\n    all_points = []\n"),
        (
            'bucket_ts = int(pt["Timestamp"] // period) * period',
            'bucket_ts = _start_of_period(pt["Timestamp"], period, start_time)',
        ),
        _look_at_queues=look_at_queues,
        _start_of_period=_start_of_period,
    )
    swap(
        cloudwatch._get_metric_data,
        exact,
        (
            "    results = []\n    for q in queries:\n",
            "    results = []\n    _look_at_queues()\n    for q in queries:\n",
        ),
        (
            '            buckets[int(pt["Timestamp"] // period) * period].append(pt)',
            '            buckets[_start_of_period(pt["Timestamp"], period, start_time)].append(pt)',
        ),
        (
            "            results.append(\n"
            "                {\n"
            '                    "Id": qid,\n'
            '                    "Label": label,\n'
            '                    "StatusCode": "InternalError",\n'
            '                    "Messages": [\n'
            '                        {"Code": "Unsupported", "Value": "Expressions not implemented"}\n'
            "                    ],\n"
            '                    "Timestamps": [],\n'
            '                    "Values": [],\n'
            "                }\n"
            "            )\n",
            "            if return_data:\n"
            "                found = _expression(qid, queries, start_time, end_time)\n"
            '                results.append({"Id": qid, "Label": label, **found})\n',
        ),
        _expression=_expression,
    )
