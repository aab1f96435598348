"""Parameters, alarms and their runbook, deploy profiles."""

import re
import tomllib
from typing import Any

import pytest
from kling_relay.observability import DIMENSION, NAMESPACE, REASONS, UNITS, Metric

from tests.template.rules import REPOSITORY, of_type, references

Template = dict[str, Any]

# Namespace -> metric -> sets of dimensions under which AWS publishes it, and the statistics that mean something.
_SUM = {"Sum"}
METRICS: dict[str, dict[str, tuple[set[str], set[str]]]] = {
    "AWS/States": {
        name: ({"StateMachineArn"}, _SUM)
        for name in ("ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted", "ExecutionThrottled")
    },
    "AWS/Lambda": {
        **{name: ({"FunctionName"}, _SUM) for name in ("Errors", "Throttles", "AsyncEventsDropped")},
        "Duration": ({"FunctionName"}, {"Maximum", "p99"}),
    },
    "AWS/ApiGateway": {
        **{name: ({"ApiName", "Stage"}, {"Sum", "Average"}) for name in ("4XXError", "5XXError")},
        "Latency": ({"ApiName", "Stage"}, {"p99", "Average"}),
    },
    "AWS/SQS": {"ApproximateNumberOfMessagesVisible": ({"QueueName"}, {"Maximum"})},
}
# Ours: what is measured every minute has a maximum, what happens is added up. The heartbeat is one event a minute.
_GAUGES = {Metric.ACCOUNT_TROUBLE, Metric.WAITING_TASKS, Metric.PARKED_TASKS, Metric.OLDEST_OPEN_TASK}
METRICS[NAMESPACE] = {
    metric: ({DIMENSION, *REASONS.get(metric, ())[:1]}, {"Maximum"} if metric in _GAUGES else _SUM) for metric in UNITS
}


def metric_problem(alarm: dict[str, Any]) -> str:
    """Why an alarm could never ring; empty if it can."""
    known = METRICS.get(alarm["Namespace"], {}).get(alarm["MetricName"])
    if known is None:
        return f"no such metric: {alarm['Namespace']} {alarm['MetricName']}"
    dimensions, statistics = known
    if {dimension["Name"] for dimension in alarm["Dimensions"]} != dimensions:
        return f"{alarm['MetricName']} is not published under these dimensions"
    return "" if alarm["Statistic"] in statistics else f"{alarm['Statistic']} of {alarm['MetricName']} says nothing"


def alarms(template: Template) -> dict[str, dict[str, Any]]:
    return {name: resource["Properties"] for name, resource in of_type(template, "AWS::CloudWatch::Alarm").items()}


def test_alarms_watch_what_aws_publishes(template: Template) -> None:
    assert alarms(template)
    for name, alarm in alarms(template).items():
        assert metric_problem(alarm) == "", name
        for dimension in alarm["Dimensions"]:
            ours = alarm["Namespace"] == NAMESPACE and dimension["Value"] == {"Ref": "AWS::StackName"}
            assert ours or references(dimension["Value"]) & set(template["Resources"]), name


def test_our_metrics_carry_the_stacks_name(template: Template) -> None:
    """The alarms ask for it; every function that measures has to be told."""
    functions = of_type(template, "AWS::Lambda::Function")
    given = {
        name: function["Properties"]["Environment"]["Variables"].get("STACK_NAME")
        for name, function in functions.items()
    }
    assert {name for name, value in given.items() if value is None} == {"ApiDocsFunction"}
    assert [value for value in given.values() if value is not None] == [{"Ref": "AWS::StackName"}] * 8


def test_the_watcher_is_watched(template: Template) -> None:
    """A sweeper that is dead measures nothing: for its own alarm no data is the worst data, for no other."""
    breaching = [name for name, alarm in alarms(template).items() if alarm["TreatMissingData"] == "breaching"]
    assert breaching == ["HeartbeatMissingAlarm"]
    alarm = alarms(template)["HeartbeatMissingAlarm"]
    assert (alarm["MetricName"], alarm["Threshold"]) == (Metric.SWEEPER_HEARTBEAT, 1)
    assert alarm["Period"] * alarm["EvaluationPeriods"] <= 600


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"MetricName": "5XXErrors"}, "no such metric: AWS/ApiGateway 5XXErrors"),
        ({"Namespace": "AWS/ApiGatewayV2"}, "no such metric: AWS/ApiGatewayV2 5XXError"),
        ({"Dimensions": [{"Name": "FunctionName"}]}, "5XXError is not published under these dimensions"),
        ({"Statistic": "p99"}, "p99 of 5XXError says nothing"),
        ({}, ""),
    ],
)
def test_a_dead_alarm_is_found(change: dict[str, Any], problem: str) -> None:
    alarm = {"Namespace": "AWS/ApiGateway", "MetricName": "5XXError", "Statistic": "Sum"}
    assert metric_problem({**alarm, "Dimensions": [{"Name": "ApiName"}, {"Name": "Stage"}], **change}) == problem


def anchors(text: str) -> set[str]:
    """The anchors that a code host makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_every_alarm_says_what_it_means_where_to_read_on_and_when_it_is_over(template: Template) -> None:
    known = anchors((REPOSITORY / "docs/runbook.md").read_text())
    named = set()
    for name, alarm in alarms(template).items():
        found = re.findall(r"docs/runbook\.md#([\w-]+)", alarm["AlarmDescription"])
        assert len(found) == 1, name
        assert len(alarm["AlarmDescription"]) > 60, name
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "OperatorTopic"}], name
        assert alarm["TreatMissingData"] in ("notBreaching", "breaching"), name
        named |= set(found)
    assert named <= known, f"docs/runbook.md lacks {sorted(named - known)}"


def test_anchors_are_made_as_code_hosts_make_them() -> None:
    assert anchors("# Run book\n## Workflow failed\ntext # no\n### Who's `there`?\n") == {
        *("run-book", "workflow-failed", "whos-there"),
    }


def test_the_topics_encryption_lets_cloudwatch_in(template: Template) -> None:
    for topic in of_type(template, "AWS::SNS::Topic").values():
        assert "KmsMasterKeyId" not in topic["Properties"]


# Name -> the default of a parameter that the issue asks for.
DEFAULTS = {
    "Provider": "cometapi",
    "KlingBaseUrl": "",
    "ResultHosts": "warn",
    "DefaultModelImage2Video": "",
    "DefaultModelMultiImage2Video": "",
    "DefaultModelText2Video": "",
    "DefaultModelOmniVideo": "",
    "DeadlineSeconds": 86_400,
    "SubmitTimeoutSeconds": 15,
    "TaskRetentionDays": 400,
    "VideoRetentionDays": 0,
    "InputRetentionDays": 7,
    "InboxRetentionDays": 0,
    "ResultRetentionDays": 0,
    "IntakeTenant": "inbox",
    "IntakePrompt": "",
    "IntakeMode": "",
    "IntakeDuration": "",
    "LogRetentionDays": 30,
    "WaitScale": "1",
    "MonthlyCapUnits": 0,
    "OnUnconfirmed": "park",
    "RequireWebhookSignature": "off",
}


def test_parameters_have_sane_defaults(template: Template) -> None:
    parameters = template["Parameters"]
    assert {name: parameters[name]["Default"] for name in DEFAULTS} == DEFAULTS


def test_a_stack_deploys_without_a_single_question(template: Template) -> None:
    for name, parameter in template["Parameters"].items():
        assert "Default" in parameter, name
        default = str(parameter["Default"])
        assert default in map(str, parameter.get("AllowedValues", [default])), name
        assert re.search(parameter.get("AllowedPattern", ""), default), name
        assert parameter.get("NoEcho") is None, f"{name}: secrets do not belong into parameters"


def test_every_parameter_is_used(template: Template) -> None:
    used = references([template["Resources"], template["Conditions"], template["Rules"], template["Outputs"]])
    assert set(template["Parameters"]) == used & set(template["Parameters"])


def test_every_provider_profile_can_be_chosen(template: Template) -> None:
    import json

    profiles = json.loads((REPOSITORY / "layers/relay/kling_relay/providers.json").read_text())
    assert set(template["Parameters"]["Provider"]["AllowedValues"]) == set(profiles)
    rule = template["Rules"]["ProviderHasHost"]
    without_host, _ = rule["RuleCondition"]["Fn::Contains"]
    assert set(without_host) == {name for name, profile in profiles.items() if not profile["base_url"]}
    assert "KlingBaseUrl" in json.dumps(rule["Assertions"])


def test_the_paid_post_fits_into_the_api_functions_time(template: Template) -> None:
    from kling_relay.wire import CONNECT_SECONDS

    longest = template["Parameters"]["SubmitTimeoutSeconds"]["MaxValue"] + CONNECT_SECONDS
    assert longest + 2 < template["Resources"]["TaskApiFunction"]["Properties"]["Timeout"]


def test_profiles_deploy_what_the_makefile_looks_for() -> None:
    profiles = tomllib.loads((REPOSITORY / "samconfig.toml").read_text())
    for stage in ("dev", "prod"):
        deploy = profiles[stage]["deploy"]["parameters"]
        assert deploy["stack_name"] == f"kling-relay-{stage}"
        assert deploy["capabilities"].split() == ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
        assert deploy["fail_on_empty_changeset"] is False
    assert profiles["prod"]["deploy"]["parameters"]["confirm_changeset"] is True


def test_the_look_at_images_leaves_time_for_the_paid_post(template: Template) -> None:
    from kling_relay import look, wire

    longest = look.SECONDS + template["Parameters"]["SubmitTimeoutSeconds"]["MaxValue"] + wire.CONNECT_SECONDS
    assert longest + 2 < template["Resources"]["TaskApiFunction"]["Properties"]["Timeout"]
