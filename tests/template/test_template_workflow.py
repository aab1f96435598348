"""Test the workflow's definition, which no linter checks."""

import json
import re
from typing import Any

import pytest
from kling_relay.lifecycle import polling

from tests.template.rules import REPOSITORY, of_type, route_problems, walk

# Where AWS offers `.waitForTaskToken`; DynamoDB's optimized integration is not among them, its SDK integration is.
WITH_TOKEN = re.compile(
    r"arn:aws:states:::(aws-sdk:[a-z0-9]+:[a-zA-Z0-9]+|lambda:invoke|sqs:sendMessage|sns:publish|ecs:runTask|"
    r"events:putEvents|apigateway:invoke|states:startExecution)\.waitForTaskToken"
)
MAX_EVENTS = 25_000  # of one execution; AWS ends it there
ROUND = {"Task": 6, "Choice": 2}  # events of a state: entered, scheduled, started, submitted, succeeded, exited
RETRY = 3  # scheduled, started, failed

Machine = dict[str, Any]


def tasks(machine: Machine) -> dict[str, dict[str, Any]]:
    return {name: state for name, state in machine["States"].items() if state["Type"] == "Task"}


def test_every_task_ends_is_retried_and_is_caught(machine: Machine) -> None:
    assert len(tasks(machine)) == 3
    for name, state in tasks(machine).items():
        assert {"TimeoutSeconds", "TimeoutSecondsPath"} & set(state), name
        assert state["Retry"], name
        assert {retry.get("JitterStrategy") for retry in state["Retry"]} == {"FULL"}, name
        assert all("MaxDelaySeconds" in retry and retry["MaxAttempts"] <= 10 for retry in state["Retry"]), name
        assert [catch["ErrorEquals"] for catch in state["Catch"]][-1] == ["States.ALL"], name


def test_retries_name_their_errors(machine: Machine) -> None:
    for state in tasks(machine).values():
        for retry in state["Retry"]:
            assert not {"States.ALL", "States.TaskFailed"} & set(retry["ErrorEquals"])


def test_the_machine_has_a_deadline_beyond_the_tasks_own(machine: Machine, template: dict[str, Any]) -> None:
    assert machine["TimeoutSeconds"] > template["Parameters"]["DeadlineSeconds"]["Default"]


def test_every_way_leads_somewhere(machine: Machine) -> None:
    assert route_problems(machine) == []


@pytest.mark.parametrize(
    ("states", "problem"),
    [
        ({"A": {"Type": "Pass", "Next": "Gone"}}, "A goes to Gone, which does not exist"),
        ({"A": {"Type": "Pass", "End": True}, "B": {"Type": "Succeed"}}, "B is never reached"),
        ({"A": {"Type": "Pass"}}, "A leads nowhere"),
        ({"A": {"Type": "Choice", "Choices": [{"Next": "A"}], "Default": "X"}}, "A goes to X, which does not exist"),
        ({"A": {"Type": "Task", "End": True, "Catch": [{"Next": "Y"}]}}, "A goes to Y, which does not exist"),
    ],
)
def test_a_broken_way_is_found(states: dict[str, Any], problem: str) -> None:
    assert route_problems({"StartAt": "A", "States": states}) == [problem]


def substitutions(template: dict[str, Any]) -> set[str]:
    (resource,) = of_type(template, "AWS::StepFunctions::StateMachine").values()
    return set(resource["Properties"]["DefinitionSubstitutions"])


def test_every_substitution_is_supplied_and_used(template: dict[str, Any]) -> None:
    text = (REPOSITORY / "statemachine/task_lifecycle.asl.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)\}", text)) == substitutions(template)


def test_tokens_are_awaited_only_where_aws_offers_it(machine: Machine) -> None:
    waiting = [state["Resource"] for state in tasks(machine).values() if "waitForTaskToken" in state["Resource"]]
    assert waiting
    assert all(WITH_TOKEN.fullmatch(resource) for resource in waiting)
    assert not WITH_TOKEN.fullmatch("arn:aws:states:::dynamodb:updateItem.waitForTaskToken")


def test_a_task_that_waits_for_a_token_stores_it(machine: Machine) -> None:
    for name, state in tasks(machine).items():
        stored = any(value == "$$.Task.Token" for _, value in walk(state["Parameters"]))
        assert stored == state["Resource"].endswith(".waitForTaskToken"), name


def test_errors_of_dynamodb_are_spelled_as_step_functions_spells_them(machine: Machine) -> None:
    sdk = [state for state in tasks(machine).values() if ":aws-sdk:dynamodb:" in state["Resource"]]
    named = {name for state in sdk for rule in [*state["Retry"], *state["Catch"]] for name in rule["ErrorEquals"]}
    assert {name for name in named if not name.startswith("States.")}
    assert all(re.fullmatch(r"States\.\w+|DynamoDb\.\w+(Exception|Exceeded)", name) for name in named), named


def test_attributes_are_never_named_bare(machine: Machine) -> None:
    """A reserved word of DynamoDB in an expression fails only when it runs."""
    for state in tasks(machine).values():
        for key, value in walk(state["Parameters"]):
            if key.endswith("Expression"):
                bare = re.sub(r"[#:]\w+|attribute_\w+|\b(SET|REMOVE|AND|OR)\b", "", value)
                assert not re.search(r"[a-zA-Z]", bare), value


def test_lambda_has_time_to_end_before_its_state_does(machine: Machine, template: dict[str, Any]) -> None:
    functions = of_type(template, "AWS::Lambda::Function")
    invoked = {n: s for n, s in tasks(machine).items() if s["Resource"] == "arn:aws:states:::lambda:invoke"}
    assert len(invoked) == 2
    for name, state in invoked.items():
        logical_id = re.sub(r"\$\{(\w+)Arn\}", r"\1", state["Parameters"]["FunctionName"])
        assert functions[logical_id]["Properties"]["Timeout"] < state["TimeoutSeconds"], name


def polls(seconds: float, first: float) -> int:
    """How often a task is asked after that nobody ever calls back for."""
    count, age = 0, 0.0
    while age < seconds:
        age += max(1.0, polling.poll_wait(age, first))
        count += 1
    return count


def test_the_longest_life_stays_far_below_the_limit_of_events(machine: Machine) -> None:
    a_round = [machine["States"][name] for name in ("AwaitCallback", "Advance", "WhatNext")]
    events = sum(ROUND[state["Type"]] + RETRY * (state["Type"] == "Task") for state in a_round)  # each retried once
    models = json.loads((REPOSITORY / "layers/relay/kling_relay/provider/models.json").read_text())["models"]
    soonest = min(p5 for model in models.values() for p5 in model.get("render_p5_seconds", {}).values())
    asked = polls(machine["TimeoutSeconds"], soonest)
    assert 100 < asked < 1_000  # "a few hundred polls a day"
    assert asked * events < MAX_EVENTS / 2


def test_even_waits_of_ten_seconds_for_a_day_would_be_too_many(machine: Machine) -> None:
    """Why the waits grow: what the rule above has to catch."""
    assert machine["TimeoutSeconds"] / polling.POLL_SECONDS * (2 * ROUND["Task"] + ROUND["Choice"]) > MAX_EVENTS


def test_its_log_holds_errors_and_no_data(template: dict[str, Any]) -> None:
    (resource,) = of_type(template, "AWS::StepFunctions::StateMachine").values()
    logging = resource["Properties"]["LoggingConfiguration"]
    assert (logging["Level"], logging["IncludeExecutionData"]) == ("ERROR", False)
    assert "TracingConfiguration" not in resource["Properties"]
    assert resource["Properties"]["StateMachineType"] == "STANDARD"
