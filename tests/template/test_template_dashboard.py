"""Test the dashboard and the saved queries: they cover every metric and log event, and reference only existing ones."""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.template.drawing import dashboard_problems, drawn, intrinsic, logged, query_problems, widgets
from tests.template.rules import REPOSITORY, of_type

Template = dict[str, Any]

QUERIES = {
    *("task timeline", "failures by reason", "slowest tasks", "cost by tenant", "rejected callbacks"),
    "render times by model",
}
SHOWN = ("open_tasks", "task", "failures", "videos", "account", "dead_letters")


def test_every_graph_has_something_to_draw(template: Template) -> None:
    assert dashboard_problems(template) == []


def test_every_query_has_something_to_find(template: Template) -> None:
    assert query_problems(template) == []


def test_the_queries_that_operators_need(template: Template) -> None:
    names = [one["Properties"]["Name"]["Fn::Sub"] for one in of_type(template, "AWS::Logs::QueryDefinition").values()]
    assert set(names) == {f"${{AWS::StackName}}/{name}" for name in QUERIES} and len(names) == len(QUERIES)


def test_first_of_all_it_says_what_rings_and_whether_videos_come_out(template: Template) -> None:
    """What one sees without scrolling: alarms, then numbers of the whole range and of now, then the way of tasks."""
    top = [one for one in widgets(template) if one["y"] < 13]
    assert [one["type"] for one in top] == ["alarm", "alarm", *["metric"] * 5]
    numbers = [one for one in top if one["properties"].get("view") == "singleValue"]
    assert [one["properties"].get("setPeriodToTimeRange", False) for one in numbers] == [True, False]
    shown = {series.name for one in top if one["type"] == "metric" for series in drawn(one)}
    assert shown >= {"Accepted", "Submitted", "Succeeded", "Failed", "OldestOpenTask", "ArchivedBytes", "NoticeSeconds"}


def test_its_name_is_the_stacks_in_this_region(template: Template) -> None:
    """Dashboards are the account's, in every region."""
    properties = template["Resources"]["OperationsDashboard"]["Properties"]
    assert properties["DashboardName"] == {"Fn::Sub": "${AWS::StackName}-${AWS::Region}"}


def test_each_custom_widget_is_there_once(template: Template) -> None:
    custom = [one["properties"]["params"] for one in widgets(template) if one["type"] == "custom"]
    assert sorted(one["show"] for one in custom) == sorted(SHOWN)


def test_without_an_alarm_on_spending_there_is_a_dashboard_too(template: Template) -> None:
    text, variables = template["Resources"]["OperationsDashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    condition, *_, otherwise = variables["SpendAlarms"]["Fn::If"]
    assert (condition, otherwise) == (template["Resources"]["SpendAlarm"]["Condition"], "")
    strips = [one for one in json.loads(text.replace("${SpendAlarms}", otherwise))["widgets"] if one["type"] == "alarm"]
    assert "${SpendAlarm.Arn}" not in json.dumps(strips)
    assert "${SpendAlarm.Arn}" in json.dumps(widgets(template))


def test_each_log_is_asked_for_errors(template: Template) -> None:
    (errors,) = [one["properties"]["query"] for one in widgets(template) if one["type"] == "log"]
    functions = of_type(template, "AWS::Lambda::Function").values()
    logs = {one["Properties"]["LoggingConfig"]["LogGroup"]["Ref"] for one in functions}
    assert {log for log in logs if f"SOURCE '${{{log}}}'" not in errors} == set()


def test_the_runbook_calls_things_as_they_are_called(template: Template) -> None:
    """What it quotes with a capital is on the dashboard; what it calls a saved query is one."""
    text = (REPOSITORY / "docs/runbook.md").read_text()
    book = " ".join(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL).split())
    titles = [one["properties"].get("title", "") for one in widgets(template)]
    titles += [row[-1].get("label", "") for one in widgets(template) for row in one["properties"].get("metrics", [])]
    quoted = set(re.findall(r'"([A-Z][^"]{3,60})"', book))
    assert len(quoted) > 8 and {name for name in quoted if not any(name in title for title in titles)} == set()
    assert set(re.findall(r'saved query "([^"]+)"', book)) <= QUERIES


# ------------------------------------------------------------------------------------------- the finders find something
def _redraw(change: Callable[[str], str]) -> Callable[[Template], None]:
    """Change the text of the dashboard."""

    def mutate(template: Template) -> None:
        body = template["Resources"]["OperationsDashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
        body[0], before = change(body[0]), body[0]
        assert body[0] != before

    return mutate


def _word(old: str, new: str) -> Callable[[Template], None]:
    return _redraw(lambda text: text.replace(old, new, 1))


def _widget(title: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Template], None]:
    """Change one widget."""

    def redrawn(text: str) -> str:
        body = json.loads(text.replace("${SpendAlarms}", ', "${SpendAlarm.Arn}"'))
        (widget,) = [one for one in body["widgets"] if one["properties"].get("title") == title]
        change(widget)
        return json.dumps(body)

    return _redraw(redrawn)


MUTATIONS: dict[str, tuple[Callable[[Template], None], str]] = {
    "a metric that is not ours": (
        _word('"Accepted"', '"Acepted"'),  # codespell:ignore acepted
        "Delivered videos (whole time range): KlingRelay Acepted: no such metric",  # codespell:ignore acepted
    ),
    "a statistic that says nothing": (
        _widget("Spend (units per hour)", lambda one: one["properties"]["metrics"][0][-1].update(stat="p99")),
        "Spend (units per hour): KlingRelay UnitsSpent: p99 says nothing",
    ),
    "a reason that there never is": (
        _word('"reason", "credentials"', '"reason", "key"'),
        "Rejected requests by reason: KlingRelay Rejected: reason is never key",
    ),
    "a resource of another type": (
        _word('"StateMachineArn", "${TaskLifecycle}"', '"StateMachineArn", "${TaskTable}"'),
        "Workflow executions: AWS/States ExecutionsStarted: StateMachineArn is no AWS::StepFunctions::StateMachine",
    ),
    "a queue's address for its name": (
        _word('"QueueName", "${IntakeDeadLetters.QueueName}"', '"QueueName", "${IntakeDeadLetters}"'),
        "Dead-letter queue: AWS/SQS ApproximateNumberOfMessagesVisible: QueueName is no AWS::SQS::Queue",
    ),
    "another stack": (
        _word('"Latency", "ApiName", "${AWS::StackName}"', '"Latency", "ApiName", "kling-relay"'),
        "API latency (ms): AWS/ApiGateway Latency: ApiName is not the stack's name",
    ),
    "an id that is not defined": (
        _word("FILL(expired, 0)", "FILL(timeout, 0)"),
        "Delivered videos (whole time range): bad: no such function or id: timeout",
    ),
    "a hidden row that nothing uses": (
        _word('"id": "succeeded"', '"id": "succeeded2", "visible": false'),
        "Delivered videos (whole time range): succeeded2 is not used",
    ),
    "one widget over another": (
        _widget("Spend (units per hour)", lambda one: one.update(width=9)),
        "Totals (whole time range): lies over Spend (units per hour)",
    ),
    "a widget over the edge": (
        _widget("Latest errors", lambda one: one.update(x=1)),
        "Latest errors: lies over the edge",
    ),
    "another region": (
        _widget("Spend (units per hour)", lambda one: one["properties"].update(region="us-east-1")),
        "Spend (units per hour): of which region?",
    ),
    "an alarm left out": (
        _word('"${ParkedTasksAlarm.Arn}",', ""),
        "ParkedTasksAlarm: not among the alarms that are shown",
    ),
    "an alarm that is not there": (_word("${ParkedTasksAlarm.Arn}", "${GoneAlarm.Arn}"), "GoneAlarm: no such alarm"),
    "a widget that the function does not know": (
        _word('"show": "videos"', '"show": "movies"'),
        "Latest videos: shows no movies",
    ),
    "a widget of another function": (
        _word("${OpsWidgetFunction.Arn}", "${TaskApiFunction.Arn}"),
        "Open tasks: asks whom?",
    ),
    "a widget that stays as it is": (
        _widget("Latest videos", lambda one: one["properties"]["updateOn"].update(timeRange=False)),
        "Latest videos: does not follow the dashboard",
    ),
    "a metric that no graph shows": (
        _widget("Rejected requests by reason", lambda one: one["properties"]["metrics"].pop(2)),
        "Rejected cap is not on the dashboard",
    ),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_a_blind_graph_is_found(template: Template, what: str) -> None:
    mutate, problem = MUTATIONS[what]
    broken = deepcopy(template)
    mutate(broken)
    assert problem in dashboard_problems(broken)


@pytest.mark.parametrize(
    ("query", "old", "new", "problem"),
    [
        ("SlowestTasksQuery", "provider_seconds", "render_seconds", "no line has render_seconds"),
        ("SlowestTasksQuery", '"succeeded"', '"succeed"', "no phase succeed"),
        ("FailuresQuery", "task_moved", "task_ended", "nothing logs task_ended"),
        ("FailuresQuery", "sort tasks", "sort task", "no line has task"),
        ("CallbacksRejectedQuery", "callback_rejected", "callback_refused", "nothing logs callback_refused"),
    ],
)
def test_a_query_for_nothing_is_found(template: Template, query: str, old: str, new: str, problem: str) -> None:
    broken = deepcopy(template)
    properties = broken["Resources"][query]["Properties"]
    assert old in properties["QueryString"]
    properties["QueryString"] = properties["QueryString"].replace(old, new)
    assert query_problems(broken) == [f"{query}: {problem}"]
    properties["LogGroupNames"] = [{"Ref": "Gone"}]
    assert f"{query}: no log Gone" in query_problems(broken)


def test_the_keys_of_the_log_are_found_in_the_code() -> None:
    messages, keys = logged()
    assert {"task_moved", "provider_account_blocked", "reconcile_completed"} <= messages
    assert {"task_id", "phase", "previous_phase", "reason", "object"} <= keys and "FILL" not in keys


def test_a_reference_is_read_as_fn_sub_reads_it() -> None:
    assert intrinsic("${AWS::StackName}") == {"Ref": "AWS::StackName"}
    assert intrinsic("${Queue.QueueName}") == {"Fn::GetAtt": ["Queue", "QueueName"]}
    assert intrinsic("p99") == "p99"
