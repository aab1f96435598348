"""Test the operations page: the content of its widgets, and the accepted requests. Access: test_origin_guard.py."""

import io
import json
from typing import Any

import pytest

from local.cloudwatch import graphs
from local.cloudwatch.page import OperationsPage

STACK = "kling-relay-local"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:OpsWidget"
MINUTE = 60_000


def read(
    namespace: str, metric: str, dimensions: Any, statistic: str, period_s: int, start_ms: int, end_ms: int
) -> Any:
    """Every period has as many as the period has seconds, but for a metric without any data."""
    if metric == "Silent":
        return {}
    assert (namespace, dict(dimensions)["service"]) == ("KlingRelay", STACK)
    return dict.fromkeys(range(start_ms, end_ms, period_s * 1000), float(period_s))


def metric(name: str, **options: Any) -> list[Any]:
    return ["KlingRelay", name, "service", STACK, {"stat": "Sum", **options}]


class TestGraphs:
    def test_points_labels_colours_and_axes(self) -> None:
        widget = {
            "period": 300,
            "metrics": [metric("Accepted", label="in", color="#fff"), metric("Silent", yAxis="right")],
        }
        accepted, silent = graphs.drawn(widget, read, 0, 2 * MINUTE, 60)
        assert accepted == {"label": "in", "color": "#fff", "right": False, "points": [(0, 60.0), (MINUTE, 60.0)]}
        assert silent == {"label": "Silent", "color": None, "right": True, "points": []}

    def test_a_period_that_the_widget_has_finer_stays(self) -> None:
        (graph,) = graphs.drawn({"period": 10, "metrics": [metric("Accepted")]}, read, 0, MINUTE, 60)
        assert len(graph["points"]) == 6

    def test_one_number_for_the_whole_range(self) -> None:
        (graph,) = graphs.drawn(
            {"setPeriodToTimeRange": True, "metrics": [metric("Accepted")]}, read, 0, 15 * MINUTE, 10
        )
        assert graph["points"] == [(0, 900.0)]

    def test_expressions_are_drawn_and_what_they_hide_is_not(self) -> None:
        rows = [
            metric("Accepted", id="a", visible=False),
            metric("Silent", id="s", visible=False),
            [{"expression": "a + FILL(s, 1)", "id": "both", "label": "both"}],
        ]
        (graph,) = graphs.drawn({"metrics": rows}, read, 0, MINUTE, 60)
        assert (graph["label"], graph["points"]) == ("both", [(0, 61.0)])


class Aws:
    """The clients that the page has: a dashboard with one custom widget, functions that note what they are given."""

    def __init__(self) -> None:
        self.called: list[tuple[str, Any]] = []

    def list_dashboards(self) -> dict[str, Any]:
        return {"DashboardEntries": [{"DashboardName": "board"}]}

    def get_dashboard(self, DashboardName: str) -> dict[str, Any]:
        widget = {"type": "custom", "properties": {"endpoint": FUNCTION}}
        return {"DashboardBody": json.dumps({"widgets": [widget]})}

    def describe_alarms(self, **_: Any) -> dict[str, Any]:
        return {"MetricAlarms": [], "CompositeAlarms": []}

    def invoke(self, FunctionName: str, Payload: str) -> dict[str, Any]:
        self.called.append((FunctionName, json.loads(Payload)))
        return {"Payload": io.BytesIO(b'"<p>drawn</p>"')}


@pytest.fixture
def aws() -> Aws:
    return Aws()


def ask(aws: Aws, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    page = OperationsPage(lambda _: aws, "OperateTasks", "1.2.3")
    given = {"Content-Type": "application/json", **headers}
    status, told, answer = page.answer(method, path, given, b"" if body is None else json.dumps(body).encode())
    assert told["X-Content-Type-Options"] == "nosniff" and "script-src 'self';" in told["Content-Security-Policy"]
    return status, json.loads(answer) if told["Content-Type"] == "application/json" else answer


class TestWhatMayBeAsked:
    def test_the_page_and_its_parts(self, aws: Aws) -> None:
        status, page = ask(aws, "GET", "/operations")
        assert status == 200 and b"/operations/operations.js" in page and b"http" not in page
        for part in ("operations.js", "operations.css", "chart.js"):
            assert ask(aws, "GET", f"/operations/{part}")[0] == 200

    @pytest.mark.parametrize("name", ["chart.LICENSE.txt", "../operations.py", "..%2Ffront.py", "nothing.html"])
    def test_nothing_else_is_served(self, aws: Aws, name: str) -> None:
        assert ask(aws, "GET", f"/operations/{name}")[0] == 404

    def test_the_board_states_the_version_of_the_stack(self, aws: Aws) -> None:
        status, board = ask(aws, "GET", "/operations/board")
        assert (status, board["name"], board["version"]) == (200, "board", "1.2.3")
        assert b"shown.version" in ask(aws, "GET", "/operations/operations.js")[1]

    def test_a_widget_is_drawn_and_a_button_pressed(self, aws: Aws) -> None:
        payload = {"show": "account", "widgetContext": {"theme": "dark"}}
        assert ask(aws, "POST", "/operations/call", {"endpoint": FUNCTION, "payload": payload}) == (
            200,
            {"result": "<p>drawn</p>"},
        )
        button = {
            "endpoint": "arn:aws:lambda:us-east-1:000000000000:function:OperateTasks",
            "payload": {"action": "pause"},
        }
        assert ask(aws, "POST", "/operations/call", button)[0] == 200
        assert [values for _, values in aws.called] == [payload, {"action": "pause"}]

    def test_a_form_of_another_page_moves_nothing(self, aws: Aws) -> None:
        call = {"endpoint": FUNCTION, "payload": {}}
        assert ask(aws, "POST", "/operations/call", call, **{"Content-Type": "text/plain"})[0] == 405
        assert aws.called == []

    @pytest.mark.parametrize("minutes", ["", "7", "-15", "many", "15.5"])
    def test_other_ranges_are_refused(self, aws: Aws, minutes: str) -> None:
        status, told = ask(aws, "GET", f"/operations/board?minutes={minutes}")
        assert status == 400 and "15, 60, 180, 720" in told["error"]

    @pytest.mark.parametrize("body", [[], {}, {"endpoint": FUNCTION}, "text", None])
    def test_what_is_no_call_is_refused(self, aws: Aws, body: Any) -> None:
        assert ask(aws, "POST", "/operations/call", body)[0] == 400
        assert aws.called == []

    def test_other_functions_are_not_called(self, aws: Aws) -> None:
        call = {"endpoint": FUNCTION.replace("OpsWidget", "TaskApi"), "payload": {}}
        assert ask(aws, "POST", "/operations/call", call)[0] == 403
        assert aws.called == []
