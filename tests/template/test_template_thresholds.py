"""Test alarm thresholds by CloudWatch's evaluation rules: the lowest value that rings, the highest that does not.

Other tests check that a run on the local stack emits these values.
"""

from collections.abc import Mapping
from typing import Any

import pytest

from local.cloudwatch.alarm_states import state
from local.cloudwatch.series import Series
from tests.template.rules import of_type
from tests.template.watching import alarms

Template = dict[str, Any]

NOW = 1_790_000_000_000 - 1_790_000_000_000 % 86_400_000
QUIET = {"SweeperHeartbeat": 5.0, "Count": 100.0}
"""Of a healthy stack in which nothing happens, in every period."""


def ring(template: Template, name: str, seen: Mapping[str, float], periods: int = 1) -> str:
    """The alarm's state when its last periods had the values `seen`: metric, or "metric value-of-second-dimension"."""
    alarm = {**alarms(template)[name]}
    if isinstance(alarm["Threshold"], dict):
        alarm["Threshold"] = template["Parameters"][alarm["Threshold"]["Ref"]]["Default"]

    def read(
        namespace: str, metric: str, dimensions: Mapping[str, Any], statistic: str, period_s: int, start: int, end: int
    ) -> Series:
        names = [metric, *(f"{metric} {value}" for value in dimensions.values() if isinstance(value, str))]
        names += [f"{metric} {value['Ref']}" for value in dimensions.values() if "Ref" in value]
        value = next((seen[one] for one in reversed(names) if one in seen), None)
        steps = [end - period_s * 1000 * (back + 1) for back in range(periods)]
        return {} if value is None else dict.fromkeys(steps, value)

    return state(alarm, read, NOW)


CASES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "ApiErrorsAlarm": ({"5XXError": 5, "Count": 99}, {"5XXError": 4, "Count": 4}),
    "ProviderErrorsAlarm": (
        {"ProviderCalls failed": 6, "ProviderCalls ok": 5},
        {"ProviderCalls failed": 5, "ProviderCalls ok": 2, "ProviderCalls no_room": 2, "ProviderCalls refused": 1},
    ),
    "AccountTroubleAlarm": ({"AccountTrouble": 1}, {"AccountBlocked": 0}),
    "FailureRateAlarm": (
        {"Failed provider": 2, "Failed expired": 1, "Succeeded": 8},
        {"Failed provider": 3, "Succeeded": 9, "Failed refused": 40, "Failed content": 40},
    ),
    "NothingDeliveredAlarm": ({"OldestOpenTask": 7201}, {"OldestOpenTask": 80_000, "Succeeded": 1}),
    "ArchiveFailingAlarm": ({"ArchiveFailed": 5, "ArchivedBytes": 4}, {"ArchiveFailed": 5, "ArchivedBytes": 5}),
    "WorkflowFailedAlarm": ({"ExecutionsTimedOut": 1}, {"ExecutionsAborted": 7}),
    "ApiSlowAlarm": ({"Count": 20, "Latency": 10_001}, {"Count": 19, "Latency": 28_000}),
    "FunctionErrorsAlarm": ({"Errors SweepTasksFunction": 1}, {"Errors SweepTasksFunction": 0}),
    "FunctionNearTimeoutAlarm": ({"Duration ApiDocsFunction": 9_001}, {"Duration ArchiveVideoFunction": 800_000}),
    "CallbacksMissingAlarm": (
        {"PollsFoundEnd": 3, "CallbacksReceived": 2},
        {"PollsFoundEnd": 2, "CallbacksReceived": 0},
    ),
    "ParkedTasksAlarm": ({"ParkedTasks": 1}, {"ParkedTasks": 0}),
    "UploadsNotHandledAlarm": (
        {"ApproximateNumberOfMessagesVisible": 1},
        {"ApproximateNumberOfMessagesVisible": 0},
    ),
    "UploadsWaitingAlarm": ({"ApproximateAgeOfOldestMessage": 3601}, {"ApproximateAgeOfOldestMessage": 3600}),
    "WebhooksFailedAlarm": ({"WebhooksFailed": 1}, {"NoticeSeconds": 9999}),
    "ResultHostAlarm": ({"ResultHostNotListed": 1}, {}),
    "ReconcileFindingsAlarm": ({"ReconcileFindings": 1}, {"ReconcileFindings": 0}),
    "HeartbeatMissingAlarm": ({"SweeperHeartbeat": 0}, {"SweeperHeartbeat": 1}),
}
"""Alarm -> what makes it ring, and what does not quite."""


@pytest.mark.parametrize("name", CASES)
def test_it_rings_from_there_on_and_not_before(template: Template, name: str) -> None:
    rings, does_not = CASES[name]
    assert ring(template, name, {**QUIET, **rings}) == "ALARM"
    assert ring(template, name, {**QUIET, **does_not}) == "OK"


def test_a_quiet_stack_rings_nothing(template: Template) -> None:
    for name in alarms(template):
        assert ring(template, name, QUIET, periods=5) == "OK", name


def test_only_a_dead_sweeper_is_heard_by_its_silence(template: Template) -> None:
    rung = {name for name in alarms(template) if ring(template, name, {}) != "OK"}
    assert rung == {"HeartbeatMissingAlarm"}


def test_a_task_may_be_late_for_a_moment(template: Template) -> None:
    deadline = template["Parameters"]["DeadlineSeconds"]["Default"]
    late = {"OldestOpenTask": deadline + 1}
    assert [ring(template, "OldestTaskAlarm", late, periods) for periods in (4, 5)] == ["OK", "ALARM"]
    assert ring(template, "OldestTaskAlarm", {"OldestOpenTask": deadline}, periods=5) == "OK"


def test_every_function_is_near_its_timeout_before_it_is_over(template: Template) -> None:
    for name, function in of_type(template, "AWS::Lambda::Function").items():
        milliseconds = function["Properties"]["Timeout"] * 1000
        assert ring(template, "FunctionNearTimeoutAlarm", {f"Duration {name}": milliseconds * 0.91}) == "ALARM", name
        assert ring(template, "FunctionNearTimeoutAlarm", {f"Duration {name}": milliseconds * 0.89}) == "OK", name
        assert ring(template, "FunctionErrorsAlarm", {f"Errors {name}": 1}) == "ALARM", name


def test_every_alarm_but_that_on_money_has_its_case(template: Template) -> None:
    """SpendAlarm needs a parameter; its threshold is just that."""
    assert set(alarms(template)) == {*CASES, "OldestTaskAlarm", "SpendAlarm"}
    given = {**template, "Parameters": {"SpendAlarmUnits": {"Default": 100}}}
    assert ring(given, "SpendAlarm", {"UnitsSpent": 100}) == "OK"
    assert ring(given, "SpendAlarm", {"UnitsSpent": 100.5}) == "ALARM"
