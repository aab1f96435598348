"""Test the corrections of Step Functions' executions."""

import time
from itertools import pairwise
from typing import Any

import pytest

from tests.emulator.aws import WAIT_SCALE, Aws, catch, store_token


class TestExecutions:
    def failing(self, **retry: Any) -> dict[str, Any]:
        return {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:dynamodb:getItem",
            "Parameters": {"TableName": "missing", "Key": {"id": {"S": "any"}}},
            "Retry": [{"ErrorEquals": ["States.ALL"], **retry}],
        }

    def gaps(self, aws: Aws, execution: str) -> list[float]:
        """Unscaled seconds between the attempts."""
        times = aws.attempts(execution)
        return [(b - a).total_seconds() / WAIT_SCALE for a, b in pairwise(times)]

    def test_retries_wait_no_longer_than_their_maximum(self, aws: Aws) -> None:
        task = self.failing(IntervalSeconds=2, BackoffRate=10, MaxDelaySeconds=3, MaxAttempts=3)
        gaps = self.gaps(aws, aws.run(aws.create_machine("capped", task))["executionArn"])
        assert gaps[0] > 1.9
        assert gaps[1] > 2.9
        assert sum(gaps) < 40

    def test_retries_are_jittered(self, aws: Aws) -> None:
        task = self.failing(IntervalSeconds=5, BackoffRate=1, JitterStrategy="FULL", MaxAttempts=6)
        gaps = self.gaps(aws, aws.run(aws.create_machine("jittered", task))["executionArn"])
        assert len(gaps) == 6
        assert min(gaps) < 4.5

    def test_a_throttled_lambda_is_caught_by_name(self, aws: Aws) -> None:
        function = aws.create_function("full", "def handler(event, context): pass")
        aws.functions.put_function_concurrency(FunctionName="full", ReservedConcurrentExecutions=0)
        task = {"Type": "Task", "Resource": function, **catch("Lambda.TooManyRequestsException")}
        assert aws.run(aws.create_machine("throttled", task))["status"] == "SUCCEEDED"

    def test_the_machines_timeout_ends_the_execution(self, aws: Aws) -> None:
        machine = aws.create_machine("deadline", store_token("deadline", TimeoutSeconds=3), TimeoutSeconds=1)
        ended = aws.run(machine)
        assert ended["status"] == "TIMED_OUT"
        with pytest.raises(aws.stepfunctions.exceptions.TaskTimedOut):
            aws.stepfunctions.send_task_success(taskToken=aws.tokens("deadline")[0], output="{}")
        time.sleep(0.2)
        assert aws.status(ended["executionArn"]) == "TIMED_OUT"

    def test_the_same_start_again_is_the_running_execution(self, aws: Aws) -> None:
        machine = aws.create_machine("twice", store_token("twice", TimeoutSeconds=20))
        execution = aws.start(machine, name="one", input={"a": 1})
        assert aws.start(machine, name="one", input={"a": 1}) == execution
        with pytest.raises(aws.stepfunctions.exceptions.ExecutionAlreadyExists):
            aws.start(machine, name="one", input={"a": 2})
        (token,) = aws.tokens("twice")
        aws.stepfunctions.send_task_success(taskToken=token, output="{}")
        aws.end_of(execution)
        with pytest.raises(aws.stepfunctions.exceptions.ExecutionAlreadyExists):
            aws.start(machine, name="one", input={"a": 1})

    def test_illegal_names_and_inputs_are_refused(self, aws: Aws) -> None:
        machine = aws.create_machine("strict", {"Type": "Pass"})
        for name in ("n" * 81, "with space", "colon:", "slash/"):
            with pytest.raises(aws.stepfunctions.exceptions.InvalidName):
                aws.start(machine, name=name)
        with pytest.raises(aws.stepfunctions.exceptions.InvalidExecutionInput):
            aws.stepfunctions.start_execution(stateMachineArn=machine, input="no json")
        assert aws.run(machine, name="n" * 78 + "-r")["status"] == "SUCCEEDED"
