"""Compute CloudWatch's alarm states by the rules of its evaluation, without a clock and without a connection.

Periods slide: they end at the last full minute, not at multiples of their length. More periods than EvaluationPeriods
are read, so that an older one can replace a missing one. Rules, and the tables that the tests check:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
"""

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from local.cloudwatch import metric_math
from local.cloudwatch.series import Read, Series

State = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
Alarm = Mapping[str, Any]
"""An alarm's properties, as DescribeAlarms returns them; a resolved template has the same names."""

MORE_PERIODS = 2
"""Periods of the evaluation range beyond EvaluationPeriods. AWS's examples have 5 for 3, and give no rule."""

_BREACHES: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}

_WITHOUT_DATA: dict[str, State] = {"breaching": "ALARM", "notBreaching": "OK", "missing": "INSUFFICIENT_DATA"}


def states(alarms: Iterable[Alarm], read: Read, now_ms: int, before: Mapping[str, State]) -> dict[str, State]:
    """Return the states by AlarmName of metric alarms and composites; `before`: the states of the last evaluation."""
    by_name = {alarm["AlarmName"]: alarm for alarm in alarms}
    found: dict[str, State] = {
        name: state(alarm, read, now_ms, before.get(name, "INSUFFICIENT_DATA"))
        for name, alarm in by_name.items()
        if "AlarmRule" not in alarm
    }
    waiting = {name: alarm["AlarmRule"] for name, alarm in by_name.items() if "AlarmRule" in alarm}
    while waiting:
        ready = [name for name, rule in waiting.items() if set(named_in(rule)) <= set(found)]
        if not ready:
            raise ValueError(f"composite alarms name unknown alarms, or each other: {', '.join(waiting)}")
        found |= {name: composite(waiting.pop(name), found) for name in ready}
    return found


def rings(alarm: Alarm, states: Mapping[str, State]) -> bool:
    """Return whether the alarm's actions run: an alarm without actions notifies no one, nor does a suppressed one."""
    suppressor = alarm.get("ActionsSuppressor")
    heard = bool(alarm.get("AlarmActions")) and alarm.get("ActionsEnabled", True)
    suppressed = bool(suppressor) and states[_name(str(suppressor))] == "ALARM"
    return states[alarm["AlarmName"]] == "ALARM" and heard and not suppressed


def state(alarm: Alarm, read: Read, now_ms: int, before: State = "INSUFFICIENT_DATA") -> State:
    """Return the state of a metric alarm at `now_ms`; `before` is its previous state."""
    periods = int(alarm["EvaluationPeriods"])
    needed = int(alarm.get("DatapointsToAlarm") or periods)
    breaches = _BREACHES[alarm["ComparisonOperator"]]
    threshold = float(alarm["Threshold"])
    values = points(alarm, read, now_ms)
    found = [None if value is None else breaches(value, threshold) for value in values]
    return decide(found, periods, needed, alarm.get("TreatMissingData") or "missing", before)


def points(alarm: Alarm, read: Read, now_ms: int) -> list[float | None]:
    """Return the points that the alarm evaluates, oldest first; None for missing data."""
    period_s = _period(alarm)
    step_ms = period_s * 1000
    end_ms = now_ms - now_ms % min(step_ms, 60_000)
    moments = [end_ms - step_ms * back for back in range(int(alarm["EvaluationPeriods"]) + MORE_PERIODS, 0, -1)]
    series = _series(alarm, read, period_s, moments[0], end_ms)
    return [series.get(at) for at in moments]


def _period(alarm: Alarm) -> int:
    if not alarm.get("Metrics"):
        return int(alarm["Period"])
    (period_s,) = {int(query["MetricStat"]["Period"]) for query in alarm["Metrics"] if "MetricStat" in query}
    return period_s


def _series(alarm: Alarm, read: Read, period_s: int, start_ms: int, end_ms: int) -> Series:
    if alarm.get("Metrics"):
        (watched,) = [query["Id"] for query in alarm["Metrics"] if _returned(query)]
        return metric_math.evaluate(alarm["Metrics"], read, start_ms, end_ms)[watched]
    dimensions = {one["Name"]: one["Value"] for one in alarm.get("Dimensions", [])}
    statistic = alarm.get("ExtendedStatistic") or alarm["Statistic"]
    return read(alarm["Namespace"], alarm["MetricName"], dimensions, statistic, period_s, start_ms, end_ms)


def _returned(query: Mapping[str, Any]) -> bool:
    return str(query.get("ReturnData", True)).lower() == "true"


def decide(found: Sequence[bool | None], periods: int, needed: int, treat_missing: str, before: State) -> State:
    """Return the state after `found` (breaching, not breaching, None = missing; oldest first).

    `needed` out of `periods` breaching points make an alarm.
    """
    real = [one for one in found if one is not None]
    if not real:
        return before if treat_missing == "ignore" else _WITHOUT_DATA[treat_missing]
    counted = real[-periods:]
    breaching = sum(counted)
    if treat_missing == "breaching":
        breaching += periods - len(counted)
    if breaching >= needed:
        return "ALARM"
    if len(counted) < periods and treat_missing in ("missing", "ignore") and all(real):
        oldest = next(index for index, one in enumerate(found) if one is not None)
        if len(found) - oldest >= needed:
            return before if treat_missing == "ignore" else "ALARM"
    return "OK"


_CHILD = re.compile(r'\b(ALARM|OK|INSUFFICIENT_DATA)\(\s*(?:"([^"]+)"|([^\s()"]+))\s*\)')
_RULE_WORDS = {"AND": " and ", "OR": " or ", "NOT": " not ", "TRUE": "True", "FALSE": "False"}


def composite(rule: str, states: Mapping[str, State]) -> State:
    """Return the state of a composite alarm with this AlarmRule.

    Raise ValueError for a rule with more than state functions, AND, OR, NOT, TRUE, FALSE and parentheses, and KeyError
    for an alarm that `states` lacks.
    """
    facts = _CHILD.sub(lambda child: str(states[_name(child[2] or child[3])] == child[1]), rule)
    spelled = re.sub(r"\b(?:AND|OR|NOT|TRUE|FALSE)\b", lambda word: _RULE_WORDS[word[0]], facts)
    try:
        return "ALARM" if _holds(ast.parse(" ".join(spelled.split()), mode="eval").body) else "OK"
    except SyntaxError as exc:
        raise ValueError(f"AlarmRule {rule}: {exc.msg}") from exc


def named_in(rule: str) -> list[str]:
    """Return the names of the alarms in an AlarmRule."""
    return [_name(child[2] or child[3]) for child in _CHILD.finditer(rule)]


def _name(reference: str) -> str:
    """Return an alarm's name from its name or its ARN."""
    return reference.partition(":alarm:")[2] or reference


def _holds(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=bool() as fact):
            return fact
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _holds(operand)
        case ast.BoolOp(op=ast.And(), values=values):
            return all([_holds(value) for value in values])
        case ast.BoolOp(op=ast.Or(), values=values):
            return any([_holds(value) for value in values])
    raise SyntaxError("more than states, AND, OR, NOT and parentheses")
