"""Find graphs without a metric and queries without a log event, in the dashboard and the saved queries."""

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from kling_relay.observability import NAMESPACE, REASONS, Metric
from kling_relay.operations.widget_views import VIEWS
from kling_relay.tasks.task import Phase

from tests.template.rules import REPOSITORY, of_type
from tests.template.watching import Series, Template, alarms, composites, math_problems, series_problem


# ---------------------------------------------------------------------------------------------------------- dashboard
def widgets(template: Template) -> list[dict[str, Any]]:
    """The dashboard's widgets, with every part that a parameter can switch on; `${...}` is still in them."""
    text, variables = template["Resources"]["OperationsDashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    for name, value in variables.items():
        text = text.replace(f"${{{name}}}", value["Fn::If"][1]["Fn::Sub"])
    found: list[dict[str, Any]] = json.loads(text)["widgets"]
    return found


def intrinsic(text: str) -> Any:
    """What Fn::Sub makes of a text that is one reference, as Ref or Fn::GetAtt; any other text as it is."""
    reference = re.fullmatch(r"\$\{([\w:]+)(?:\.(\w+))?\}", text)
    if not reference:
        return text
    return {"Fn::GetAtt": [reference[1], reference[2]]} if reference[2] else {"Ref": reference[1]}


def drawn(widget: dict[str, Any]) -> Iterator[Series]:
    """The series of a metric widget."""
    for row in widget["properties"]["metrics"]:
        if isinstance(row[0], str):
            namespace, name, *dimensions, options = row
            pairs = dict(zip(dimensions[::2], map(intrinsic, dimensions[1::2]), strict=True))
            yield Series(namespace, name, pairs, options["stat"])


def dashboard_problems(template: Template) -> list[str]:
    found, taken, shown = [], {}, set()
    for widget in widgets(template):
        title = widget["properties"].get("title", widget["properties"].get("markdown"))
        problems = []
        for place in (
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        ):
            if place[0] >= 24 or place in taken:
                problems.append(f"lies over {taken.get(place, 'the edge')}")
                break
            taken[place] = title
        if widget["type"] == "metric":
            problems += _graph_problems(template, widget)
        if widget["type"] == "custom":
            problems += _custom_problems(template, widget["properties"])
        if widget["type"] == "alarm":
            shown |= {alarm["Fn::GetAtt"][0] for alarm in map(intrinsic, widget["properties"]["alarms"])}
        if widget["type"] in ("metric", "log") and widget["properties"]["region"] != "${AWS::Region}":
            problems.append("of which region?")
        found += [f"{title}: {problem}" for problem in problems]
    everything = {*alarms(template), *composites(template)}
    found += [f"{name}: not among the alarms that are shown" for name in sorted(everything - shown)]
    found += [f"{name}: no such alarm" for name in sorted(shown - everything)]
    return found + [f"{name} is not on the dashboard" for name in sorted(_undrawn(template))]


def _graph_problems(template: Template, widget: dict[str, Any]) -> list[str]:
    rows = widget["properties"]["metrics"]
    problems = [wrong for one in drawn(widget) if (wrong := series_problem(template, one))]
    texts = {row[0]["id"]: row[0]["expression"] for row in rows if isinstance(row[0], dict)}
    named = {row[-1]["id"]: row[-1] for row in rows if isinstance(row[0], str) and "id" in row[-1]}
    visible = {name for name, options in named.items() if options.get("visible", True)}
    return problems + math_problems(texts, set(named), visible | set(texts))


def _custom_problems(template: Template, properties: dict[str, Any]) -> list[str]:
    name, attribute = intrinsic(properties["endpoint"])["Fn::GetAtt"]
    function = template["Resources"].get(name, {}).get("Properties", {})
    problems = [] if function.get("Description") == "Custom widgets of the operations dashboard" else ["asks whom?"]
    if attribute != "Arn" or properties["params"]["show"] not in VIEWS:
        problems.append(f"shows no {properties['params']['show']}")
    if properties["updateOn"] != {"refresh": True, "resize": True, "timeRange": True}:
        problems.append("does not follow the dashboard")
    return problems


def _undrawn(template: Template) -> set[str]:
    """Our metrics, with each value of their second dimension, that no graph shows."""
    series = [one for widget in widgets(template) if widget["type"] == "metric" for one in drawn(widget)]
    ours = [one for one in series if one.namespace == NAMESPACE]
    seen = {" ".join([one.name, *map(str, list(one.dimensions.values())[1:])]) for one in ours}
    plain = {str(metric) for metric in Metric if metric not in REASONS}
    return (plain | {f"{metric} {value}" for metric, (_, values) in REASONS.items() for value in values}) - seen


# ------------------------------------------------------------------------------------------------------------ queries
_OF_THE_LOG = {"@timestamp", "@message", "message", "level", "function_name", "service"}
"""Keys that every line has."""
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
_WORDS = {"fields", "filter", "stats", "sort", "limit", "by", "as", "asc", "desc", "and", "or", "not", "in", "like"}
_WORDS |= {"SOURCE", "ispresent", "count", "sum", "min", "max", "avg", "pct", "bin"}


def logged() -> tuple[set[str], set[str]]:
    """The messages and the keys of our log lines, as they stand in the code."""
    messages, keys = set(), set(_OF_THE_LOG)
    for path in [
        *(REPOSITORY / "layers/relay/kling_relay").rglob("*.py"),
        *(REPOSITORY / "functions").glob("*/app.py"),
    ]:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (method := _logger_method(node)):
                keys |= {word.arg or "" for word in node.keywords} if method == "append_keys" else set()
                if method in _LEVELS:
                    messages |= {str(one.value) for one in node.args[:1] if isinstance(one, ast.Constant)}
            if isinstance(node, ast.keyword) and node.arg == "extra":
                keys |= _keys(node.value)
            if path.parts[-2:] == ("tasks", "metrics.py"):  # what `task_moved` says is put together there
                keys |= _keys(node)
    return messages, keys


def _logger_method(call: ast.Call) -> str | None:
    """Return the method of the logger that `call` calls, also in `(logger.info if ... else logger.warning)(...)`."""
    for part in ast.walk(call.func):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "logger":
            return part.attr
    return None


def _keys(node: ast.AST) -> set[str]:
    """The keys of a dictionary that is written out, or of one item that is set."""
    found = node.keys if isinstance(node, ast.Dict) else [node.slice] if isinstance(node, ast.Subscript) else []
    return {str(key.value) for key in found if isinstance(key, ast.Constant)}


def query_problems(template: Template) -> list[str]:
    """Saved queries, and those of the dashboard, for what no line has."""
    messages, keys = logged()
    found = []
    texts = {
        name: (one["Properties"]["QueryString"], [group.get("Ref") for group in one["Properties"]["LogGroupNames"]])
        for name, one in of_type(template, "AWS::Logs::QueryDefinition").items()
    }
    for widget in widgets(template):
        if widget["type"] == "log":
            text = widget["properties"]["query"]
            texts[widget["properties"]["title"]] = (text, re.findall(r"SOURCE '\$\{(\w+)\}'", text))
    for name, (text, groups) in texts.items():
        text = re.sub(r"SOURCE '[^']*'( \|)?", "", text)
        problems = [f"no log {group}" for group in groups if group not in of_type(template, "AWS::Logs::LogGroup")]
        problems += ["of which logs?"] * (not groups)
        for key, values in re.findall(r'(\w+) (?:=|in) (\[[^\]]*\]|"[^"]*")', text):
            for value in re.findall(r'"([^"]*)"', values):
                if key == "message" and value not in messages:
                    problems.append(f"nothing logs {value}")
                if key == "phase" and value not in set(Phase):
                    problems.append(f"no phase {value}")
        bare = re.sub(r'"[^"]*"|/[^/]*/', "", text)
        made = set(re.findall(r" as (\w+)", bare))
        words = set(re.findall(r"(?<!\w)@?[A-Za-z_]\w*", bare))
        problems += [f"no line has {word}" for word in sorted(words - _WORDS - keys - made)]
        found += [f"{name}: {problem}" for problem in problems]
    return found
