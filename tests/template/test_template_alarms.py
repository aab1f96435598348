"""Test the alarms: each can ring, notifies someone, and links to a runbook section; every failure metric has one."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from kling_relay.observability import Metric

from tests.template import watching
from tests.template.rules import REPOSITORY, of_type
from tests.template.watching import alarm_problems, alarms, composites, runbook_problems, unwatched

Template = dict[str, Any]

PAGES = {
    *("HeartbeatMissingAlarm", "ApiErrorsAlarm", "SpendAlarm"),
    *("ProviderDownAlarm", "VideosNotComingAlarm"),
}
TICKETS = {
    *(
        "WorkflowFailedAlarm",
        "ApiSlowAlarm",
        "FunctionErrorsAlarm",
        "FunctionNearTimeoutAlarm",
        "CallbacksMissingAlarm",
    ),
    *("ParkedTasksAlarm", "UploadsNotHandledAlarm", "UploadsWaitingAlarm", "WebhooksFailedAlarm", "ResultHostAlarm"),
    "ReconcileFindingsAlarm",
}


def test_every_alarm_can_ring_and_is_heard(template: Template) -> None:
    assert alarm_problems(template) == []


def test_nothing_is_without_an_alarm(template: Template) -> None:
    assert unwatched(template) == []


def test_every_alarm_has_its_section_of_the_runbook(template: Template) -> None:
    assert runbook_problems(template, (REPOSITORY / "docs/runbook.md").read_text()) == []


def test_who_is_woken_and_who_is_told_in_the_morning(template: Template) -> None:
    told = {name: one.get("AlarmActions") for name, one in {**alarms(template), **composites(template)}.items()}
    assert {name for name, actions in told.items() if actions == [{"Ref": "OperatorTopic"}]} == PAGES
    assert {name for name, actions in told.items() if actions == [{"Ref": "TicketTopic"}]} == TICKETS
    assert {name for name, actions in told.items() if not actions} == {
        part for composite in composites(template).values() for part in watching.parts(composite)
    }


def test_one_mail_address_gets_both(template: Template) -> None:
    subscribed = [one["Properties"] for one in of_type(template, "AWS::SNS::Subscription").values()]
    assert [one["TopicArn"]["Ref"] for one in subscribed] == ["OperatorTopic", "TicketTopic"]
    assert all(one["Endpoint"] == {"Ref": "OperatorEmail"} for one in subscribed)


def test_a_provider_that_is_down_is_one_page(template: Template) -> None:
    assert composites(template)["VideosNotComingAlarm"]["ActionsSuppressor"] == {
        "Fn::GetAtt": ["ProviderDownAlarm", "Arn"]
    }
    assert set(watching.parts(composites(template)["ProviderDownAlarm"])) == {
        *("ProviderErrorsAlarm", "AccountTroubleAlarm")
    }


def test_the_watcher_is_watched(template: Template) -> None:
    """A sweeper that is dead measures nothing: for its own alarm no data is the worst data, for no other."""
    breaching = [name for name, alarm in alarms(template).items() if alarm["TreatMissingData"] == "breaching"]
    assert breaching == ["HeartbeatMissingAlarm"]
    alarm = alarms(template)["HeartbeatMissingAlarm"]
    assert (alarm["MetricName"], alarm["Threshold"]) == (Metric.SWEEPER_HEARTBEAT, 1)
    assert alarm["Period"] * alarm["EvaluationPeriods"] <= 600


def test_what_a_parameter_says_is_what_an_alarm_waits_for(template: Template) -> None:
    assert alarms(template)["OldestTaskAlarm"]["Threshold"] == {"Ref": "DeadlineSeconds"}
    assert alarms(template)["SpendAlarm"]["Threshold"] == {"Ref": "SpendAlarmUnits"}
    assert template["Resources"]["SpendAlarm"]["Condition"] == "HasSpendAlarm"
    (said,) = template["Conditions"]["HasSpendAlarm"]["Fn::Not"]
    assert said == {"Fn::Equals": [{"Ref": "SpendAlarmUnits"}, 0]}


def test_alarms_leave_room_in_an_idle_stacks_ten_dollars(template: Template) -> None:
    """$0.10 a month for each metric of an alarm, $0.50 for a composite (us-east-1, 2026)."""
    metrics = sum(len(watching.watched(alarm)) for alarm in alarms(template).values())
    assert 0.10 * metrics + 0.50 * len(composites(template)) <= 6


# ------------------------------------------------------------------------------------------- the finders find something
def _properties(template: Template, name: str) -> dict[str, Any]:
    properties: dict[str, Any] = template["Resources"][name]["Properties"]
    return properties


def _change(name: str, **properties: Any) -> Callable[[Template], None]:
    return lambda template: _properties(template, name).update(properties)


def _query(name: str, index: int, change: Callable[[dict[str, Any]], Any]) -> Callable[[Template], None]:
    return lambda template: change(_properties(template, name)["Metrics"][index])


def _without(name: str, key: str) -> Callable[[Template], None]:
    return lambda template: _properties(template, name).pop(key)


def _dimension(name: str, **changed: Any) -> Callable[[Template], None]:
    return lambda template: _properties(template, name)["Dimensions"][0].update(changed)


def _metric(query: dict[str, Any]) -> dict[str, Any]:
    metric: dict[str, Any] = query["MetricStat"]["Metric"]
    return metric


MUTATIONS: dict[str, tuple[Callable[[Template], Any], str]] = {
    "a metric of AWS that there is not": (
        _query("ApiErrorsAlarm", 0, lambda query: _metric(query).update(MetricName="5XXErrors")),
        "ApiErrorsAlarm: AWS/ApiGateway 5XXErrors: no such metric",
    ),
    "a namespace that there is not": (
        _change("UploadsWaitingAlarm", Namespace="AWS/Sqs"),
        "UploadsWaitingAlarm: AWS/Sqs ApproximateAgeOfOldestMessage: no such metric",
    ),
    "a metric that is not ours": (
        _change("ParkedTasksAlarm", MetricName="ParkedTask"),
        "ParkedTasksAlarm: KlingRelay ParkedTask: no such metric",
    ),
    "another dimension": (
        _dimension("UploadsWaitingAlarm", Name="Queue"),
        "UploadsWaitingAlarm: AWS/SQS ApproximateAgeOfOldestMessage: not published under Queue",
    ),
    "a second dimension left out": (
        _query("FailureRateAlarm", 0, lambda query: _metric(query)["Dimensions"].pop()),
        "FailureRateAlarm: KlingRelay Failed: not published under service",
    ),
    "a second dimension too many": (
        lambda template: _properties(template, "ResultHostAlarm").update(
            Dimensions=[*_properties(template, "ResultHostAlarm")["Dimensions"], {"Name": "reason", "Value": "host"}]
        ),
        "ResultHostAlarm: KlingRelay ResultHostNotListed: not published under service, reason",
    ),
    "a reason that there never is": (
        _query("FailureRateAlarm", 0, lambda query: _metric(query)["Dimensions"][1].update(Value="timeout")),
        "FailureRateAlarm: KlingRelay Failed: reason is never timeout",
    ),
    "another stack's name": (
        _change("WebhooksFailedAlarm", Dimensions=[{"Name": "service", "Value": "kling-relay"}]),
        "WebhooksFailedAlarm: KlingRelay WebhooksFailed: service is not the stack's name",
    ),
    "a queue's address for its name": (
        _dimension("UploadsWaitingAlarm", Value={"Ref": "IntakeQueue"}),
        "UploadsWaitingAlarm: AWS/SQS ApproximateAgeOfOldestMessage: QueueName is no AWS::SQS::Queue",
    ),
    "a function that is not there": (
        _query("FunctionErrorsAlarm", 0, lambda query: _metric(query)["Dimensions"][0].update(Value={"Ref": "Gone"})),
        "FunctionErrorsAlarm: AWS/Lambda Errors: FunctionName is no AWS::Lambda::Function",
    ),
    "a gauge added up": (
        _change("OldestTaskAlarm", Statistic="Sum"),
        "OldestTaskAlarm: KlingRelay OldestOpenTask: Sum says nothing",
    ),
    "a percentile of a count": (
        _query("ApiErrorsAlarm", 0, lambda query: query["MetricStat"].update(Stat="p99")),
        "ApiErrorsAlarm: AWS/ApiGateway 5XXError: p99 says nothing",
    ),
    "an id that is not defined": (
        _query("ApiErrorsAlarm", 2, lambda query: query.update(Expression="errors / requests + answers")),
        "ApiErrorsAlarm: percent: no such function or id: requests",
    ),
    "a metric that nothing looks at": (
        _query("ApiErrorsAlarm", 2, lambda query: query.update(Expression="errors * 1")),
        "ApiErrorsAlarm: answers is not used",
    ),
    "an expression that cannot be read": (
        _query("ApiErrorsAlarm", 2, lambda query: query.update(Expression="IF(errors >= 5, errors / answers, 0")),
        "ApiErrorsAlarm: percent: cannot be read",
    ),
    "two results": (
        _query("ApiErrorsAlarm", 0, lambda query: query.update(ReturnData=True)),
        "ApiErrorsAlarm: rings for 2 results",
    ),
    "two periods": (
        _query("ApiErrorsAlarm", 0, lambda query: query["MetricStat"].update(Period=60)),
        "ApiErrorsAlarm: periods of [60, 300]",
    ),
    "more metrics than an alarm takes": (
        lambda template: _properties(template, "FunctionErrorsAlarm").update(
            Metrics=[
                {**query, "Id": f"{query['Id']}{n}"} if "MetricStat" in query else query
                for n in range(2)
                for query in _properties(template, "FunctionErrorsAlarm")["Metrics"][n:]
            ]
        ),
        "FunctionErrorsAlarm: more than 10 metrics",
    ),
    "more than a day": (
        _change("ReconcileFindingsAlarm", EvaluationPeriods=2),
        "ReconcileFindingsAlarm: looks back for more than a day",
    ),
    "nobody is told": (
        lambda template: [
            _properties(template, "WebhooksFailedAlarm").pop(key) for key in ("AlarmActions", "OKActions")
        ],
        "WebhooksFailedAlarm: tells 0 times",
    ),
    "told twice": (
        _change("OldestTaskAlarm", AlarmActions=[{"Ref": "OperatorTopic"}], OKActions=[{"Ref": "OperatorTopic"}]),
        "OldestTaskAlarm: tells 2 times",
    ),
    "the end is not told": (
        _without("ParkedTasksAlarm", "OKActions"),
        "ParkedTasksAlarm: says that it rings, not that it is over",
    ),
    "a topic that is not there": (
        _change("ParkedTasksAlarm", AlarmActions=[{"Ref": "Gone"}], OKActions=[{"Ref": "Gone"}]),
        "ParkedTasksAlarm: no topic {'Ref': 'Gone'}",
    ),
    "missing data left to chance": (
        _change("ParkedTasksAlarm", TreatMissingData="ignore"),
        "ParkedTasksAlarm: what are missing data?",
    ),
    "a composite of an alarm that is not there": (
        _change("ProviderDownAlarm", AlarmRule={"Fn::Sub": 'ALARM("${Gone}") OR ALARM("${AccountTroubleAlarm}")'}),
        "ProviderDownAlarm: no alarm Gone",
    ),
    "a composite that watches for health": (
        _change("ProviderDownAlarm", AlarmRule={"Fn::Sub": 'OK("${AccountTroubleAlarm}")'}),
        "ProviderDownAlarm: its rule cannot be read",
    ),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_a_dead_alarm_is_found(template: Template, what: str) -> None:
    mutate, problem = MUTATIONS[what]
    broken = deepcopy(template)
    mutate(broken)
    assert problem in alarm_problems(broken)


LEFT_OUT: dict[str, tuple[Callable[[Template], Any], str]] = {
    "a function": (
        lambda template: template["Resources"].update(
            NewFunction={"Type": "AWS::Lambda::Function", "Properties": {"Timeout": 5}}
        ),
        "NewFunction: no alarm on Errors",
    ),
    "a function's time": (
        lambda template: template["Resources"]["TaskApiFunction"]["Properties"].update(Timeout=20),
        "TaskApiFunction: limit 25200, not 18000 ms",
    ),
    "a queue": (
        lambda template: template["Resources"].update(NewQueue={"Type": "AWS::SQS::Queue", "Properties": {}}),
        "NewQueue: no alarm",
    ),
    "the queue's own alarm": (
        lambda template: template["Resources"].pop("UploadsNotHandledAlarm"),
        "IntakeDeadLetters: no alarm",
    ),
    "the workflow": (
        lambda template: template["Resources"].pop("WorkflowFailedAlarm"),
        "TaskLifecycle: no alarm on ExecutionsTimedOut",
    ),
    "the API": (
        lambda template: template["Resources"].pop("ApiSlowAlarm"),
        "ApiliveStage: no alarm on Latency",
    ),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_has_no_alarm_is_found(template: Template, what: str) -> None:
    mutate, problem = LEFT_OUT[what]
    broken = deepcopy(template)
    mutate(broken)
    assert problem in unwatched(broken)


def test_a_runbook_that_does_not_fit_is_found(template: Template) -> None:
    book = (REPOSITORY / "docs/runbook.md").read_text()
    assert runbook_problems(template, book.replace("## Workflow failed", "## Workflows")) == [
        "WorkflowFailedAlarm: docs/runbook.md#workflow-failed is not about it"
    ]
    assert runbook_problems(template, book.replace("**Alarm** `ParkedTasksAlarm`", "**Alarm** `ParkedAlarm`")) == [
        "ParkedTasksAlarm: docs/runbook.md#parked-tasks is not about it",
        "docs/runbook.md: no alarm ParkedAlarm",
    ]
    twice = book.replace("**Alarm** `ParkedTasksAlarm`", "**Alarm** `ParkedTasksAlarm` **Alarm** `ParkedTasksAlarm`")
    assert runbook_problems(template, twice) == ["docs/runbook.md: ParkedTasksAlarm stands twice"]
    broken = deepcopy(template)
    _properties(broken, "ParkedTasksAlarm")["AlarmDescription"] = "Something is wrong. Look into the console."
    assert runbook_problems(broken, book) == ["ParkedTasksAlarm: what does it mean, and where is more?"]


def test_anchors_are_made_as_code_hosts_make_them() -> None:
    text = "# Run book\n## Workflow failed\ntext # no\n### Deeper\n## Who's `there`?\n"
    assert watching.anchors(text) == {"workflow-failed": "\ntext # no\n### Deeper\n", "whos-there": "\n"}
