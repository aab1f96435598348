"""Correct CloudWatch's alarms: states by AWS's rules, metric math, and composites in templates."""

import json
import threading
import time
from typing import Any

from ministack.services import cloudwatch
from ministack.services.cloudformation import provisioners

from local.cloudwatch import alarm_states
from local.emulator.patches import metrics
from local.emulator.patches.patching import UnexpectedMiniStackError, correction, swap, wrap

EVERY_SECONDS = 10.0
"""Seconds between two reads of the queues and two evaluations of the alarms; AWS does both once a minute."""


def _evaluate(alarm: dict[str, Any]) -> None:
    old, new = (
        alarm["StateValue"],
        alarm_states.state(alarm, metrics.read, int(metrics.now() * 1000), alarm["StateValue"]),
    )
    if new == old:
        return
    reason = f"Evaluated to {new}"
    alarm.update(StateValue=new, StateReason=reason, StateUpdatedTimestamp=int(time.time()))
    cloudwatch._record_history(alarm["AlarmName"], old, new, reason)
    cloudwatch._dispatch_alarm_actions(alarm, old, new, reason)
    cloudwatch._evaluate_parent_alarms(alarm)


def _watch() -> None:
    while True:
        time.sleep(EVERY_SECONDS)
        metrics.look_at_queues()
        cloudwatch._evaluate_all_alarms()


@correction
def alarms_are_evaluated_as_on_aws() -> None:
    """MiniStack ignores an alarm's dimensions, missing data and M out of N, and evaluates it only when a metric is put.
    AWS: all of these, once a minute. The laptop: every ten seconds, and when the states are requested."""
    wrap(cloudwatch, "_evaluate_alarm", "a0b0acd3d432")(lambda _stock, alarm: _evaluate(alarm))
    swap(cloudwatch._put_metric_data, ("    _evaluate_all_alarms()\n", ""))

    @wrap(cloudwatch, "_describe_alarms", "ab8f092ff9ae")
    def describe(stock: Any, *request: Any) -> Any:
        metrics.look_at_queues()
        cloudwatch._evaluate_all_alarms()
        return stock(*request)

    threading.Thread(target=_watch, daemon=True, name="alarms").start()


def _typed(query: dict[str, Any]) -> dict[str, Any]:
    """Convert the text scalars of an alarm's query in a template to numbers."""
    typed = {**query, "ReturnData": str(query.get("ReturnData", True)).lower() == "true"}
    if "MetricStat" in query:
        typed["MetricStat"] = {**query["MetricStat"], "Period": int(query["MetricStat"]["Period"])}
    return typed


@correction
def alarms_in_templates_may_do_metric_math() -> None:
    """MiniStack refuses a stack with such an alarm."""

    @wrap(provisioners, "_cw_metric_alarm_record", "4565fcede1eb")
    def made(stock: Any, name: str, properties: dict[str, Any]) -> dict[str, Any]:
        queries = properties.get("Metrics")
        if not queries:
            record: dict[str, Any] = stock(name, properties)
            return record
        plain = {key: value for key, value in properties.items() if key != "Metrics"}
        record = stock(name, {**plain, "MetricName": "-", "Namespace": "-"})
        for single in ("MetricName", "Namespace", "Dimensions", "Statistic", "ExtendedStatistic", "Period", "Unit"):
            del record[single]
        return {**record, "Metrics": [_typed(query) for query in queries]}


_SUPPRESSION = ("ActionsSuppressor", "ActionsSuppressorWaitPeriod", "ActionsSuppressorExtensionPeriod")


def _put_composite(logical_id: str, properties: dict[str, Any], stack: str) -> Any:
    name = properties.get("AlarmName") or provisioners._physical_name(stack, logical_id, max_len=255)
    status, _, body = cloudwatch._put_composite_alarm({}, {**properties, "AlarmName": name}, False, True)
    if status >= 400:
        raise ValueError(str(json.loads(body)["message"]))
    alarm = cloudwatch._composite_alarms[name]
    typed = {key: properties[key] for key in _SUPPRESSION if key in properties}
    alarm.update({key: value if key == "ActionsSuppressor" else int(value) for key, value in typed.items()})
    return name, {"Arn": alarm["AlarmArn"]}


@correction
def templates_know_composite_alarms() -> None:
    """MiniStack has composite alarms in CloudWatch's API, but refuses templates that contain them."""
    kind, handlers = "AWS::CloudWatch::CompositeAlarm", provisioners._RESOURCE_HANDLERS
    if kind in handlers:
        raise UnexpectedMiniStackError(f"templates know {kind} already")

    def updated(physical_id: str, _old: dict[str, Any], new: dict[str, Any], stack: str) -> Any:
        return _put_composite("", {**new, "AlarmName": physical_id}, stack)

    def deleted(physical_id: str, _properties: dict[str, Any]) -> None:
        cloudwatch._composite_alarms.pop(physical_id, None)

    handlers[kind] = {"create": _put_composite, "update": updated, "delete": deleted}
