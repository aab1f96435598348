"""Read the graphs of a dashboard's metric widget: its metrics and their points.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html, without its
short forms ("." and "..."), which template.yaml does not use.
"""

from collections.abc import Mapping
from typing import Any

from local.cloudwatch import metric_math
from local.cloudwatch.series import Read

Graph = dict[str, Any]
"""`label`, `color` (None: the page's choice), `right` (the right axis if true), `points` ([[ms, value]])."""


def drawn(widget: Mapping[str, Any], read: Read, start_ms: int, end_ms: int, period_s: int) -> list[Graph]:
    """Return the graphs of a widget's properties, in periods of at most `period_s`, which suits a short range."""
    period = min(int(widget.get("period", 300)), period_s)
    if widget.get("setPeriodToTimeRange"):
        period = (end_ms - start_ms) // 1000
    rows = [_row(number, row) for number, row in enumerate(widget["metrics"])]
    queries = [_query(where, options, period) for where, options in rows]
    points = metric_math.evaluate(queries, read, start_ms, end_ms)
    return [
        {
            "label": options.get("label") or (where[1] if where else options["id"]),
            "color": options.get("color"),
            "right": options.get("yAxis") == "right",
            "points": sorted(points[options["id"]].items()),
        }
        for where, options in rows
        if options.get("visible", True)
    ]


def _row(number: int, row: list[Any]) -> tuple[list[str], dict[str, Any]]:
    """Return namespace, name and dimensions (none for an expression), and the options with an id."""
    options = row[-1] if isinstance(row[-1], dict) else {}
    return [part for part in row if isinstance(part, str)], {"id": f"row{number}", **options}


def _query(where: list[str], options: dict[str, Any], period_s: int) -> metric_math.Query:
    if not where:
        return {"Id": options["id"], "Expression": options["expression"]}
    namespace, name, *dimensions = where
    named = [{"Name": key, "Value": value} for key, value in zip(dimensions[::2], dimensions[1::2], strict=True)]
    metric = {"Namespace": namespace, "MetricName": name, "Dimensions": named}
    return {"Id": options["id"], "MetricStat": {"Metric": metric, "Stat": options["stat"], "Period": period_s}}
