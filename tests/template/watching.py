"""Find blind alarms and graphs, metrics and queues without an alarm, and runbook sections without content.

CloudWatch reports none of these. Each finder takes the template as AWS sees it and returns sentences, none if all is
correct.
"""

import json
import re
from typing import Any, NamedTuple

from kling_relay.observability import DIMENSION, NAMESPACE, REASONS, UNITS, Metric

from tests.template.rules import REPOSITORY, of_type

Template = dict[str, Any]

AWS_METRICS = json.loads((REPOSITORY / "tests/template/aws_metrics.json").read_text())
FUNCTIONS = {"FILL", "IF", "SUM", "METRICS"}
"""Of CloudWatch's metric math, what is used here; local/cloudwatch/metric_math.py has to know it."""
MAX_METRICS = 10
"""That one alarm's expressions may use."""

# What is measured each minute, or day, has a maximum: added up, it says nothing.
_GAUGES = {Metric.ACCOUNT_TROUBLE, Metric.WAITING_TASKS, Metric.PARKED_TASKS, Metric.OLDEST_OPEN_TASK}
_GAUGES |= {Metric.RECONCILE_FINDINGS}
_OF_UNIT = {"Count": {"Sum"}, "Bytes": {"Sum", "SampleCount"}, "Seconds": {"p50", "p90", "p99", "SampleCount"}}

# Dimension -> the type of resource whose name it takes, and the attribute that is this name ("" for Ref).
_NAMED = {
    "FunctionName": ("AWS::Lambda::Function", ""),
    "QueueName": ("AWS::SQS::Queue", "QueueName"),
    "Stage": ("AWS::ApiGateway::Stage", ""),
    "StateMachineArn": ("AWS::StepFunctions::StateMachine", ""),
    "TableName": ("AWS::DynamoDB::Table", ""),
}
_STACK = {"Ref": "AWS::StackName"}  # also the API's name, which has no other


class Series(NamedTuple):
    """One metric with one statistic, as an alarm or a graph asks for it."""

    namespace: str
    name: str
    dimensions: dict[str, Any]  # values: text, Ref or Fn::GetAtt
    statistic: str


def series_problem(template: Template, series: Series) -> str:
    """Why nothing ever has this series; empty if something has."""
    where = f"{series.namespace} {series.name}"
    if series.namespace == NAMESPACE:
        if series.name not in UNITS:
            return f"{where}: no such metric"
        metric = Metric(series.name)
        second, values = REASONS.get(metric, (None, ()))
        wanted = {DIMENSION} | ({second} if second else set())
        statistics = {"Maximum"} if metric in _GAUGES else _OF_UNIT[UNITS[metric]]
        if second and series.dimensions.get(second) not in (*values, None):
            return f"{where}: {second} is never {series.dimensions[second]}"
    else:
        known = AWS_METRICS.get(series.namespace, {"metrics": {}})
        if series.name not in known["metrics"]:
            return f"{where}: no such metric"
        wanted, statistics = set(known["dimensions"]), set(known["metrics"][series.name])
    if set(series.dimensions) != wanted:
        return f"{where}: not published under {', '.join(series.dimensions) or 'no dimension'}"
    if series.statistic not in statistics:
        return f"{where}: {series.statistic} says nothing"
    return next(
        (
            f"{where}: {wrong}"
            for wrong in map(lambda one: _value_problem(template, *one), series.dimensions.items())
            if wrong
        ),
        "",
    )


def _value_problem(template: Template, dimension: str, value: Any) -> str:
    if dimension in (DIMENSION, "ApiName"):
        return "" if value == _STACK else f"{dimension} is not the stack's name"
    if dimension not in _NAMED:
        return ""
    kind, attribute = _NAMED[dimension]
    logical_id = next(iter(value.values())) if isinstance(value, dict) else ""
    right = {"Fn::GetAtt": [logical_id[0], attribute]} if isinstance(logical_id, list) else {"Ref": logical_id}
    name = logical_id[0] if isinstance(logical_id, list) else logical_id
    of_this_type = template["Resources"].get(name, {}).get("Type") == kind
    return (
        ""
        if of_this_type and value == right and isinstance(logical_id, list) == bool(attribute)
        else f"{dimension} is no {kind}"
    )


def math_problems(expressions: dict[str, str], others: set[str], returned: set[str]) -> list[str]:
    """What is wrong with `expressions` (id -> text) over themselves and the ids `others`; `returned` are looked at."""
    known, used, problems = {*expressions, *others}, set(returned), []
    for name in sorted(known):
        if not re.fullmatch(r"[a-z]\w*", name):
            problems.append(f"{name} is no id")
    for name, text in expressions.items():
        words = re.findall(r"[A-Za-z_]\w*", text)
        used |= {word for word in words if word != name}
        problems += [f"{name}: no such function or id: {word}" for word in words if word not in known | FUNCTIONS]
        problems += [f"{name}: in terms of itself"] * (name in words)
        if "METRICS" in words:
            used |= others
        if not re.fullmatch(r"[\w\s(),+\-*/<>=.]+", text) or text.count("(") != text.count(")"):
            problems.append(f"{name}: cannot be read")
    return problems + [f"{name} is not used" for name in sorted(known - used)]


# ------------------------------------------------------------------------------------------------------------- alarms
def alarms(template: Template) -> dict[str, dict[str, Any]]:
    return {name: one["Properties"] for name, one in of_type(template, "AWS::CloudWatch::Alarm").items()}


def composites(template: Template) -> dict[str, dict[str, Any]]:
    return {name: one["Properties"] for name, one in of_type(template, "AWS::CloudWatch::CompositeAlarm").items()}


def parts(composite: dict[str, Any]) -> list[str]:
    """The logical ids of the alarms in a composite's rule."""
    return re.findall(r"\$\{(\w+)\}", composite["AlarmRule"]["Fn::Sub"])


def watched(alarm: dict[str, Any]) -> list[Series]:
    """What an alarm looks at."""
    stats = [one["MetricStat"] for one in alarm.get("Metrics", []) if "MetricStat" in one]
    if not stats:
        stats = [{"Metric": alarm, "Stat": alarm.get("Statistic", alarm.get("ExtendedStatistic"))}]
    return [
        Series(
            one["Metric"]["Namespace"],
            one["Metric"]["MetricName"],
            {dimension["Name"]: dimension["Value"] for dimension in one["Metric"].get("Dimensions", [])},
            one["Stat"],
        )
        for one in stats
    ]


def alarm_problems(template: Template) -> list[str]:
    """Alarms that can never ring, or that nobody would hear."""
    found = []
    rung = [part for composite in composites(template).values() for part in parts(composite)]
    for name, alarm in alarms(template).items():
        problems = [wrong for one in watched(alarm) if (wrong := series_problem(template, one))]
        problems += _window_problems(alarm)
        told, once = bool(alarm.get("AlarmActions")), rung.count(name)
        if told + once != 1:
            problems.append(f"tells {told + once} times")
        if alarm["TreatMissingData"] not in ("breaching", "notBreaching"):
            problems.append("what are missing data?")
        found += [f"{name}: {problem}" for problem in problems]
    for name, composite in composites(template).items():
        rule = re.sub(r'ALARM\("\$\{\w+\}"\)', "A", composite["AlarmRule"]["Fn::Sub"])
        problems = [] if re.fullmatch(r"A( OR A)+", rule) else ["its rule cannot be read"]
        problems += [f"no alarm {part}" for part in parts(composite) if part not in alarms(template)]
        found += [f"{name}: {problem}" for problem in problems]
    topics = of_type(template, "AWS::SNS::Topic")
    for name, alarm in {**alarms(template), **composites(template)}.items():
        actions, over = alarm.get("AlarmActions", []), alarm.get("OKActions", [])
        if actions != over:
            found.append(f"{name}: says that it rings, not that it is over")
        found += [f"{name}: no topic {action}" for action in actions if action.get("Ref") not in topics]
    return found


def _window_problems(alarm: dict[str, Any]) -> list[str]:
    queries = alarm.get("Metrics", [])
    periods = {one["MetricStat"]["Period"] for one in queries if "MetricStat" in one} or {alarm.get("Period")}
    problems = [f"periods of {sorted(periods)}"] * (len(periods) != 1)
    if queries:
        stats = {one["Id"] for one in queries if "MetricStat" in one}
        texts = {one["Id"]: one["Expression"] for one in queries if "Expression" in one}
        returned = {one["Id"] for one in queries if one.get("ReturnData", True)}
        problems += math_problems(texts, stats, returned)
        problems += [f"rings for {len(returned)} results"] * (len(returned) != 1)
        problems += [f"more than {MAX_METRICS} metrics"] * (len(stats) > MAX_METRICS)
    if max(periods) * alarm["EvaluationPeriods"] > 86_400:
        problems.append("looks back for more than a day")
    return problems


def unwatched(template: Template) -> list[str]:
    """Functions, queues, the workflow and the API, as far as no alarm looks at them."""
    seen = {
        (one.name, json.dumps(value))
        for alarm in alarms(template).values()
        for one in watched(alarm)
        for value in one.dimensions.values()
    }
    wanted = {
        "AWS::Lambda::Function": ("Errors", "Duration"),
        "AWS::StepFunctions::StateMachine": ("ExecutionsFailed", "ExecutionsTimedOut"),
        "AWS::ApiGateway::Stage": ("5XXError", "Latency"),
    }
    found = [
        f"{name}: no alarm on {metric}"
        for kind, metrics in wanted.items()
        for name in of_type(template, kind)
        for metric in metrics
        if (metric, json.dumps({"Ref": name})) not in seen
    ]
    queues = ("ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage")
    for name in of_type(template, "AWS::SQS::Queue"):
        if not any((metric, json.dumps({"Fn::GetAtt": [name, "QueueName"]})) in seen for metric in queues):
            found.append(f"{name}: no alarm")
    return found + _near_timeout_problems(template)


def _near_timeout_problems(template: Template) -> list[str]:
    """Limits of FunctionNearTimeoutAlarm that are not nine tenths of the function's time."""
    alarm = alarms(template)["FunctionNearTimeoutAlarm"]
    ids = {
        one["Id"]: one["MetricStat"]["Metric"]["Dimensions"][0]["Value"]["Ref"]
        for one in alarm["Metrics"]
        if "MetricStat" in one
    }
    (text,) = [one["Expression"] for one in alarm["Metrics"] if "Expression" in one]
    limits = {ids[name]: int(limit) for name, limit in re.findall(r"\(FILL\((\w+), 0\) > (\d+)\)", text) if name in ids}
    times = {name: one["Properties"]["Timeout"] for name, one in of_type(template, "AWS::Lambda::Function").items()}
    return [
        f"{name}: limit {limits.get(name)}, not {900 * seconds} ms"
        for name, seconds in times.items()
        if limits.get(name) != 900 * seconds
    ]


# ------------------------------------------------------------------------------------------------------------ runbook
def anchors(text: str) -> dict[str, str]:
    """The anchors that a code host makes of a document's second-level headings -> what stands below them."""
    sections = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-"): body
        for heading, body in zip(sections[::2], sections[1::2], strict=True)
    }


def runbook_problems(template: Template, text: str) -> list[str]:
    """Alarms that lead nowhere or are described twice, and sections about an alarm that there is not."""
    sections, found, explained = anchors(text), [], []
    for name, alarm in {**alarms(template), **composites(template)}.items():
        said = alarm["AlarmDescription"]
        match = re.fullmatch(r"([A-Z0-9].{30,}?[.]) docs/runbook\.md#([\w-]+)", said)
        if match is None or said.count("#") != 1:
            found.append(f"{name}: what does it mean, and where is more?")
        elif f"**Alarm** `{name}`" not in sections.get(match[2], ""):
            found.append(f"{name}: docs/runbook.md#{match[2]} is not about it")
    for section in sections.values():
        explained += re.findall(r"\*\*Alarm\*\* `(\w+)`", section)
    there = {*alarms(template), *composites(template)}
    found += [f"docs/runbook.md: no alarm {name}" for name in explained if name not in there]
    return found + [f"docs/runbook.md: {name} stands twice" for name in there if explained.count(name) > 1]
