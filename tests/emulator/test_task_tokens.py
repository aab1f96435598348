"""Test the corrections of Step Functions' task tokens."""

import json
import time

import pytest

from tests.emulator.aws import Aws, catch, count_call, store_token, until


class TestTaskTokens:
    def test_a_failing_integration_fails_the_task(self, aws: Aws) -> None:
        function = aws.create_function("cannot", "def handler(event, context): raise ValueError('no')")
        task = {
            "Type": "Task",
            "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
            "Parameters": {"FunctionName": function, "Payload": {"token.$": "$$.Task.Token"}},
            "TimeoutSeconds": 2,
        }
        assert aws.run(aws.create_machine("failing", task))["error"] == "ValueError"

    def test_a_condition_can_refuse_to_store_the_token(self, aws: Aws) -> None:
        task = store_token("refused", TimeoutSeconds=2, **catch("DynamoDb.ConditionalCheckFailedException"))
        task["Parameters"]["ConditionExpression"] = "attribute_exists(id)"
        assert aws.run(aws.create_machine("conditional", task))["status"] == "SUCCEEDED"

    def test_the_timeout_is_read_from_its_path_in_real_seconds(self, aws: Aws) -> None:
        task = store_token("late", TimeoutSecondsPath="$.seconds", **catch("States.Timeout"))
        machine = aws.create_machine("path", task)
        ended = aws.run(machine, input={"seconds": 1.2})
        assert json.loads(ended["output"])["Error"] == "States.Timeout"
        assert 1.2 <= (ended["stopDate"] - ended["startDate"]).total_seconds() < 4
        assert aws.run(machine, input={"seconds": "soon"})["error"] == "States.Runtime"

    def test_a_token_takes_one_answer(self, aws: Aws) -> None:
        machine = aws.create_machine("answered", store_token("answered", TimeoutSeconds=20))
        execution = aws.start(machine)
        (token,) = aws.tokens("answered")
        errors = aws.stepfunctions.exceptions
        with pytest.raises(errors.InvalidOutput):
            aws.stepfunctions.send_task_success(taskToken=token, output="no json")
        aws.stepfunctions.send_task_success(taskToken=token, output='{"first": true}')
        for _ in range(2):
            with pytest.raises(errors.TaskTimedOut):
                aws.stepfunctions.send_task_success(taskToken=token, output="{}")
            assert json.loads(aws.end_of(execution)["output"]) == {"first": True}
        with pytest.raises(errors.InvalidToken):
            aws.stepfunctions.send_task_failure(taskToken="unknown")

    def test_a_failure_carries_error_and_cause(self, aws: Aws) -> None:
        execution = aws.start(aws.create_machine("told", store_token("told", TimeoutSeconds=20)))
        aws.stepfunctions.send_task_failure(taskToken=aws.tokens("told")[0], error="Refused", cause="because")
        ended = aws.end_of(execution)
        assert (ended["error"], ended["cause"]) == ("Refused", "because")

    def test_every_attempt_has_its_own_token(self, aws: Aws) -> None:
        retry = [{"ErrorEquals": ["States.Timeout"], "MaxAttempts": 1, "IntervalSeconds": 1}]
        execution = aws.start(aws.create_machine("retried", store_token("retried", TimeoutSeconds=1, Retry=retry)))
        first, second = aws.tokens("retried", 2)
        assert first != second
        with pytest.raises(aws.stepfunctions.exceptions.TaskTimedOut):
            aws.stepfunctions.send_task_success(taskToken=first, output="1")
        aws.stepfunctions.send_task_success(taskToken=second, output="2")
        assert aws.end_of(execution)["output"] == "2"

    def test_stopping_the_execution_ends_the_task(self, aws: Aws) -> None:
        execution = aws.start(aws.create_machine("stopped", store_token("stopped", TimeoutSeconds=20)))
        (token,) = aws.tokens("stopped")
        aws.stepfunctions.stop_execution(executionArn=execution)
        with pytest.raises(aws.stepfunctions.exceptions.TaskTimedOut):
            aws.stepfunctions.send_task_success(taskToken=token, output="{}")
        assert aws.status(execution) == "ABORTED"

    def test_an_aborted_execution_stays_aborted_when_its_task_fails(self, aws: Aws) -> None:
        source = count_call("fails-late") + "        time.sleep(0.5)\n            raise ValueError('no')"
        function = aws.create_function("fails-late", source)
        execution = aws.start(aws.create_machine("aborted", {"Type": "Task", "Resource": function}))
        until(lambda: aws.count("fails-late"))
        aws.stepfunctions.stop_execution(executionArn=execution)
        time.sleep(0.8)
        assert aws.status(execution) == "ABORTED"

    def test_an_aborted_execution_makes_no_more_attempts(self, aws: Aws) -> None:
        function = aws.create_function("again", count_call("again") + "        raise ValueError('no')")
        retry = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 3, "BackoffRate": 1, "MaxAttempts": 9}]
        execution = aws.start(aws.create_machine("again", {"Type": "Task", "Resource": function, "Retry": retry}))
        until(lambda: aws.count("again"))
        aws.stepfunctions.stop_execution(executionArn=execution)
        time.sleep(1)
        assert aws.count("again") == 1

    @pytest.mark.parametrize("integration", ["dynamodb:updateItem", "aws-sdk:dynamodb:updateItem"])
    def test_an_optimized_dynamodb_integration_offers_no_token(self, aws: Aws, integration: str) -> None:
        task = {**store_token("any"), "Resource": f"arn:aws:states:::{integration}.waitForTaskToken"}
        if integration.startswith("aws-sdk"):
            aws.create_machine("offered", task)
        else:
            with pytest.raises(aws.stepfunctions.exceptions.InvalidDefinition):
                aws.create_machine("refused-definition", task)
