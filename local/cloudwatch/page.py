"""Serve the operations dashboard on this machine: the one that template.yaml deploys, with the metrics of this run.

The page requests the whole board. It invokes the custom widgets' function and their buttons as CloudWatch does.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from local.cloudwatch import graphs, series

PREFIX = "/operations"
RANGES = {15: 10, 60: 60, 180: 60, 720: 300}
"""Minutes of a range -> the period of its graphs (s): finer than CloudWatch's, because a run is short."""

_PAGE = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = {
    # A custom widget has its own style and pictures. It has no script, and a script in it would not run.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src *; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_MAX_ERRORS = 30

Answer = tuple[int, dict[str, str], bytes]


class OperationsPage:
    """Answer requests below PREFIX. `client` creates boto3 clients; the stack has one dashboard.

    `version`: the stack's output `Version`.
    """

    def __init__(self, client: Callable[[str], Any], operate_function: str, version: str) -> None:
        self._operate_function, self._version = operate_function, version
        self._cloudwatch, self._logs, self._lambda = client("cloudwatch"), client("logs"), client("lambda")
        self._read = series.reader(self._cloudwatch)

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request, which the front's guard has accepted."""
        asked, given = urlsplit(path), {name.lower(): value for name, value in headers.items()}
        name = asked.path.removeprefix(PREFIX).strip("/")
        if method == "POST" and name == "call" and given.get("content-type") == "application/json":
            return self._call(body)
        if method != "GET":
            return _json(405, {"error": "GET, or POST of a call as JSON"})
        if name == "board":
            (minutes,) = parse_qs(asked.query, keep_blank_values=True).get("minutes", ["15"])[:1]
            if minutes not in map(str, RANGES):
                return _json(
                    400, {"error": f"minutes: must be one of {', '.join(map(str, RANGES))} (got {minutes[:20]!r})"}
                )
            return _json(200, self.board(int(minutes), int(time.time() * 1000)))
        return _file(name or "operations.html")

    def board(self, minutes: int, now_ms: int) -> dict[str, Any]:
        """Return the dashboard of the last `minutes` (one of RANGES): each widget has its graphs or data in `drawn`."""
        end_ms = now_ms - now_ms % 60_000 + 60_000
        start_ms = end_ms - minutes * 60_000
        name, described = self._dashboard()
        alarms = self._alarms()

        def content(widget: dict[str, Any]) -> Any:
            properties = widget["properties"]
            if widget["type"] == "metric":
                return graphs.drawn(properties, self._read, start_ms, end_ms, RANGES[minutes])
            if widget["type"] == "alarm":
                return [alarms[arn] for arn in properties["alarms"]]
            return self._errors(properties["query"], start_ms) if widget["type"] == "log" else None

        widgets = [{**widget, "drawn": content(widget)} for widget in described]
        window = {"start": start_ms, "end": end_ms, "ranges": list(RANGES)}
        return {"name": name, "version": self._version, "window": window, "widgets": widgets}

    def _dashboard(self) -> tuple[str, list[dict[str, Any]]]:
        """Return the dashboard's name and its deployed widgets."""
        (found,) = self._cloudwatch.list_dashboards()["DashboardEntries"]
        body = self._cloudwatch.get_dashboard(DashboardName=found["DashboardName"])["DashboardBody"]
        return found["DashboardName"], json.loads(body)["widgets"]

    def _alarms(self) -> dict[str, dict[str, Any]]:
        """Return the data of each alarm, by its ARN."""
        found = self._cloudwatch.describe_alarms(AlarmTypes=["MetricAlarm", "CompositeAlarm"], MaxRecords=100)
        return {
            alarm["AlarmArn"]: {
                "name": alarm["AlarmName"],
                "state": alarm["StateValue"],
                "description": alarm.get("AlarmDescription", ""),
            }
            for alarm in found["MetricAlarms"] + found["CompositeAlarms"]
        }

    def _errors(self, query: str, start_ms: int) -> list[dict[str, Any]]:
        """Return the newest errors in the log groups of a query, which the emulator's Logs Insights cannot run."""
        found = []
        for group in re.findall(r"SOURCE '([^']+)'", query):
            try:
                events = self._logs.filter_log_events(logGroupName=group, startTime=start_ms)["events"]
            except self._logs.exceptions.ResourceNotFoundException:  # no function has run yet
                continue
            found += [{"at": event["timestamp"], **line} for event in events if (line := _error(event["message"]))]
        return sorted(found, key=lambda one: -int(one["at"]))[:_MAX_ERRORS]

    def _call(self, body: bytes) -> Answer:
        """Invoke a function as CloudWatch does for a custom widget, or for a button in it."""
        try:
            call = json.loads(body)
            endpoint, payload = str(call["endpoint"]), json.dumps(call["payload"])
        except (ValueError, TypeError, KeyError):
            return _json(400, {"error": "call: must be an object with endpoint and payload"})
        drawing = {one["properties"]["endpoint"] for one in self._dashboard()[1] if one["type"] == "custom"}
        if endpoint not in drawing and endpoint.rpartition(":")[2] != self._operate_function.rpartition(":")[2]:
            return _json(403, {"error": f"endpoint: must be a function of the dashboard (got {endpoint})"})
        answer = self._lambda.invoke(FunctionName=endpoint, Payload=payload)
        result = json.loads(answer["Payload"].read())
        return _json(
            200, {"error": result.get("errorMessage", "failed")} if "FunctionError" in answer else {"result": result}
        )


def _error(message: str) -> dict[str, Any] | None:
    """Return the fields of a log line that reports an error; None for any other line."""
    if "Task timed out" in message or "Runtime exited" in message:
        return {"message": message.strip()}
    try:
        line = json.loads(message)
    except ValueError:
        return None
    if not isinstance(line, dict) or line.get("level") not in ("ERROR", "CRITICAL"):
        return None
    return {name: line.get(name) for name in ("message", "task_id", "reason", "error")}


def _file(name: str) -> Answer:
    served = {path.name: path for path in _PAGE.iterdir() if path.suffix in _TYPES}
    if name not in served:
        return _json(404, {"error": "there is no such page"})
    kind = f"{_TYPES[served[name].suffix]}; charset=utf-8"
    return 200, {**_HEADERS, "Content-Type": kind}, served[name].read_bytes()


def _json(status: int, value: Any) -> Answer:
    return status, {**_HEADERS, "Content-Type": "application/json"}, json.dumps(value).encode()
