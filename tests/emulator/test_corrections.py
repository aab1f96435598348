"""What the local stack relies on: the corrected emulator behaves like AWS. One test a correction.

With CORRECTIONS=off the same tests run on stock MiniStack; those that pass then name corrections that an upgrade has
made unnecessary.
"""

import io
import json
import os
import textwrap
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.emulator import Emulator

ROLE = "arn:aws:iam::000000000000:role/any"
WAIT_SCALE = 0.1
STORE_TOKEN = "arn:aws:states:::aws-sdk:dynamodb:updateItem.waitForTaskToken"


def archive(**sources: str) -> bytes:
    """A zip of Python modules, by path without suffix (`__` for a slash)."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as files:
        for name, source in sources.items():
            files.writestr(name.replace("__", "/") + ".py", textwrap.dedent(source))
    return packed.getvalue()


def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.03)
    return value


class Aws:
    """Clients by name, and what the tests do again and again."""

    def __init__(self, emulator: Emulator) -> None:
        self.url = emulator.endpoint_url
        self.apigateway = emulator.client("apigateway")
        self.cloudformation = emulator.client("cloudformation")
        self.cloudfront = emulator.client("cloudfront")
        self.dynamodb = emulator.client("dynamodb")
        self.events = emulator.client("events")
        self.functions = emulator.client("lambda")
        self.s3 = emulator.client("s3")
        self.secretsmanager = emulator.client("secretsmanager")
        self.sqs = emulator.client("sqs")
        self.stepfunctions = emulator.client("stepfunctions")

    def create_function(self, name: str, source: str, **settings: Any) -> str:
        return self.functions.create_function(
            FunctionName=name,
            Runtime="python3.13",
            Handler="app.handler",
            Role=ROLE,
            Code={"ZipFile": archive(app=source)},
            **settings,
        )["FunctionArn"]

    def create_machine(self, name: str, *states: dict[str, Any], **fields: Any) -> str:
        """States run in order; the last one ends. `Caught` is where a Catch may go."""
        named = {f"S{number}": {"Next": f"S{number + 1}", **state} for number, state in enumerate(states)}
        last = named[f"S{len(states) - 1}"]
        del last["Next"]
        last["End"] = True
        definition = {"StartAt": "S0", "States": {**named, "Caught": {"Type": "Pass", "End": True}}, **fields}
        return self.stepfunctions.create_state_machine(name=name, definition=json.dumps(definition), roleArn=ROLE)[
            "stateMachineArn"
        ]

    def start(self, machine: str, **request: Any) -> str:
        given = {"input": json.dumps(request.pop("input", {})), **request}
        return self.stepfunctions.start_execution(stateMachineArn=machine, **given)["executionArn"]

    def status(self, execution: str) -> str:
        return self.stepfunctions.describe_execution(executionArn=execution)["status"]

    def end_of(self, execution: str) -> dict[str, Any]:
        until(lambda: self.status(execution) != "RUNNING")
        return self.stepfunctions.describe_execution(executionArn=execution)

    def run(self, machine: str, **request: Any) -> dict[str, Any]:
        return self.end_of(self.start(machine, **request))

    def attempts(self, execution: str) -> list[datetime]:
        history = self.stepfunctions.get_execution_history(executionArn=execution)["events"]
        return [event["timestamp"] for event in history if event["type"] == "TaskScheduled"]

    def tokens(self, key: str, count: int = 1) -> list[str]:
        """The task tokens that `store_token` has stored under the key, once there are so many."""

        def stored() -> list[str]:
            item = self.dynamodb.get_item(TableName="tokens", Key={"id": {"S": key}}).get("Item", {})
            return [token["S"] for token in item.get("tokens", {"L": []})["L"]]

        until(lambda: len(stored()) >= count)
        return stored()

    def count(self, key: str) -> int:
        item = self.dynamodb.get_item(TableName="tokens", Key={"id": {"S": key}}).get("Item", {})
        return int(item.get("calls", {"N": "0"})["N"])

    def queue(self, name: str) -> SimpleNamespace:
        url = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        return SimpleNamespace(url=url, arn=arn)

    def message(self, queue: SimpleNamespace) -> dict[str, Any]:
        received = until(lambda: self.sqs.receive_message(QueueUrl=queue.url).get("Messages"))
        return json.loads(received[0]["Body"])

    def get(self, url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> SimpleNamespace:
        request = urllib.request.Request(url, data=body, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return SimpleNamespace(status=answer.status, headers=answer.headers, body=answer.read().decode())
        except urllib.error.HTTPError as refused:
            return SimpleNamespace(status=refused.code, headers=refused.headers, body=refused.read().decode())


def store_token(key: str, **state: Any) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Resource": STORE_TOKEN,
        "Parameters": {
            "TableName": "tokens",
            "Key": {"id": {"S": key}},
            "UpdateExpression": "SET tokens = list_append(if_not_exists(tokens, :none), :token)",
            "ExpressionAttributeValues": {":token": {"L": [{"S.$": "$$.Task.Token"}]}, ":none": {"L": []}},
        },
        **state,
    }


def count_call(key: str) -> str:
    """Source of a handler that counts its calls in the table before it goes on with what is appended."""
    return f"""
        import os, time, boto3
        table = boto3.client("dynamodb")
        def handler(event, context):
            table.update_item(TableName="tokens", Key={{"id": {{"S": "{key}"}}}}, UpdateExpression="ADD calls :one",
                              ExpressionAttributeValues={{":one": {{"N": "1"}}}})
    """


def catch(*errors: str) -> dict[str, Any]:
    return {"Catch": [{"ErrorEquals": list(errors), "Next": "Caught"}]}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    log = tmp_path_factory.mktemp("emulator") / "emulator.log"
    with Emulator(log_path=log, wait_scale=WAIT_SCALE, stock=os.environ.get("CORRECTIONS") == "off") as emulator:
        aws = Aws(emulator)
        aws.dynamodb.create_table(
            TableName="tokens",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield aws


TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Resources:
  Api:
    Type: AWS::Serverless::Api
    Properties:
      StageName: live
      EndpointConfiguration: {Type: REGIONAL}
      GatewayResponses:
        MISSING_AUTHENTICATION_TOKEN:
          StatusCode: 404
          ResponseParameters: {Headers: {X-Known: "'no'"}}
          ResponseTemplates: {application/json: '{"code":1202,"message":$context.error.messageString}'}
  AnswerFunction:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.13
      Handler: index.handler
      Timeout: 1
      ReservedConcurrentExecutions: 3
      InlineCode: |
        import json, os, time
        def handler(event, context):
            mode = event["pathParameters"]["mode"]
            if mode == "raise": raise ValueError("secret detail")
            if mode == "crash": os._exit(1)
            if mode == "sleep": time.sleep(3)
            if mode == "text": return "plain"
            if mode == "extra": return {"statusCode": 200, "body": "", "surprise": 1}
            if mode == "object": return {"statusCode": 200, "body": {"not": "text"}}
            return {"statusCode": 200, "body": json.dumps({**event["requestContext"], "mode": mode})}
      Events:
        Any: {Type: Api, Properties: {Path: "/any/{mode}", Method: any, RestApiId: !Ref Api}}
        Get: {Type: Api, Properties: {Path: "/do/{mode}", Method: get, RestApiId: !Ref Api}}
        Post: {Type: Api, Properties: {Path: "/do/{mode}", Method: post, RestApiId: !Ref Api}}
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      KeySchema: [{AttributeName: id, KeyType: HASH}]
      AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
      BillingMode: PAY_PER_REQUEST
      TimeToLiveSpecification: {AttributeName: expires_at, Enabled: true}
  Secret:
    Type: AWS::SecretsManager::Secret
    Properties:
      GenerateSecretString: {PasswordLength: 40, ExcludePunctuation: true, ExcludeUppercase: true}
Outputs:
  Api: {Value: !Ref Api}
  Function: {Value: !Ref AnswerFunction}
  Table: {Value: !Ref Table}
  Secret: {Value: !Ref Secret}
"""


@pytest.fixture(scope="module")
def stack(aws: Aws) -> dict[str, str]:
    """Outputs of the deployed template, and `url` of its API."""
    aws.cloudformation.create_stack(StackName="probe", TemplateBody=TEMPLATE, Capabilities=["CAPABILITY_IAM"])
    aws.cloudformation.get_waiter("stack_create_complete").wait(StackName="probe", WaiterConfig={"Delay": 0.2})
    outputs = aws.cloudformation.describe_stacks(StackName="probe")["Stacks"][0]["Outputs"]
    values = {output["OutputKey"]: output["OutputValue"] for output in outputs}
    rendered = {"application/json": '{"code":5000}'}
    aws.apigateway.put_gateway_response(restApiId=values["Api"], responseType="DEFAULT_5XX", responseTemplates=rendered)
    aws.apigateway.create_deployment(restApiId=values["Api"], stageName="live")
    return {**values, "url": f"{aws.url}/_aws/execute-api/{values['Api']}/live"}


class TestLambda:
    def test_an_error_is_named_by_the_class_of_the_exception(self, aws: Aws) -> None:
        source = """
            class Refused(Exception): pass
            def handler(event, context): raise Refused("no")
        """
        function = aws.create_function("refuses", source)
        machine = aws.create_machine("refused", {"Type": "Task", "Resource": function, **catch("Refused")})
        assert json.loads(aws.run(machine)["output"])["Error"] == "Refused"

    def test_a_crash_is_an_exit_error(self, aws: Aws) -> None:
        aws.create_function("crashes", "import os\ndef handler(event, context): os._exit(1)")
        answer = aws.functions.invoke(FunctionName="crashes")
        assert json.loads(answer["Payload"].read())["errorType"] == "Runtime.ExitError"

    def test_imports_come_from_the_runtime_and_from_layers(self, aws: Aws) -> None:
        source = """
            from importlib.util import find_spec
            import boto3, inlayer
            def handler(event, context): return [name for name in event if find_spec(name)]
        """
        layer = aws.functions.publish_layer_version(
            LayerName="extra", Content={"ZipFile": archive(python__inlayer="")}
        )["LayerVersionArn"]
        aws.create_function("imports", source, Layers=[layer])
        wanted = json.dumps(["boto3", "inlayer", "ministack", "requests", "aws_lambda_powertools", "local"])
        answer = aws.functions.invoke(FunctionName="imports", Payload=wanted)
        assert json.loads(answer["Payload"].read()) == ["boto3", "inlayer"]

    def test_eventbridge_retries_a_failing_function_then_tells_its_destination(self, aws: Aws) -> None:
        failures = aws.queue("failures")
        function = aws.create_function("fails", count_call("fails") + "        raise ValueError('no')")
        aws.functions.put_function_event_invoke_config(
            FunctionName="fails",
            MaximumRetryAttempts=1,
            DestinationConfig={"OnFailure": {"Destination": failures.arn}},
        )
        aws.events.put_rule(Name="to-function", EventPattern=json.dumps({"source": ["test"]}))
        aws.events.put_targets(Rule="to-function", Targets=[{"Id": "function", "Arn": function}])
        aws.events.put_events(Entries=[{"Source": "test", "DetailType": "any", "Detail": "{}"}])
        assert aws.message(failures)["requestPayload"]["source"] == "test"
        assert aws.count("fails") == 2

    def test_a_throttled_asynchronous_call_waits(self, aws: Aws) -> None:
        aws.create_function("slow", count_call("slow") + "        time.sleep(0.3)")
        aws.functions.put_function_concurrency(FunctionName="slow", ReservedConcurrentExecutions=1)
        aws.functions.put_function_event_invoke_config(FunctionName="slow", MaximumRetryAttempts=0)
        for _ in range(4):
            aws.functions.invoke(FunctionName="slow", InvocationType="Event")
        until(lambda: aws.count("slow") == 4)

    def test_reserved_concurrency_throttles_and_the_laptops_own_limit_queues(self, aws: Aws) -> None:
        def invoke(name: str) -> int:
            try:
                return aws.functions.invoke(FunctionName=name)["StatusCode"]
            except ClientError as error:
                return error.response["ResponseMetadata"]["HTTPStatusCode"]

        pause = "import time\ndef handler(event, context): time.sleep(0.8)"
        aws.create_function("unlimited", pause)
        aws.create_function("single", pause)
        aws.functions.put_function_concurrency(FunctionName="single", ReservedConcurrentExecutions=1)
        with ThreadPoolExecutor(16) as callers:
            assert sorted(callers.map(invoke, ["single"] * 2)) == [200, 429]
            assert list(callers.map(invoke, ["unlimited"] * 16)) == [200] * 16

    def test_a_template_reserves_concurrency(self, aws: Aws, stack: dict[str, str]) -> None:
        reserved = aws.functions.get_function_concurrency(FunctionName=stack["Function"])
        assert reserved["ReservedConcurrentExecutions"] == 3


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


class TestGateway:
    def test_any_method_is_routed(self, aws: Aws, stack: dict[str, str]) -> None:
        assert aws.get(stack["url"] + "/any/echo", "DELETE").status == 200

    def test_gateway_responses_come_from_the_template(self, aws: Aws, stack: dict[str, str]) -> None:
        answer = aws.get(stack["url"] + "/unknown")
        assert (answer.status, answer.headers["X-Known"]) == (404, "no")
        assert json.loads(answer.body) == {"code": 1202, "message": "Missing Authentication Token"}

    def test_the_event_names_the_domain(self, aws: Aws, stack: dict[str, str]) -> None:
        context = json.loads(aws.get(stack["url"] + "/do/echo").body)
        assert (context["domainName"], context["domainPrefix"]) == ("localhost", "localhost")

    def test_a_path_stays_as_it_was_sent(self, aws: Aws, stack: dict[str, str]) -> None:
        event = json.loads(aws.get(stack["url"] + "/do/a%2Fb%20%C3%A9%25").body)
        assert event["path"] == "/live/do/a%2Fb%20%C3%A9%25"
        assert event["mode"] == "a%2Fb%20%C3%A9%25"

    def test_a_request_above_10_mb_is_refused(self, aws: Aws, stack: dict[str, str]) -> None:
        answer = aws.get(stack["url"] + "/do/echo", "POST", b"x" * (10 * 1024 * 1024 + 1))
        assert (answer.status, json.loads(answer.body)) == (413, {"message": "Request Too Long"})

    @pytest.mark.parametrize("mode", ["raise", "crash", "sleep", "text", "extra", "object"])
    def test_a_failing_function_is_a_bad_gateway(self, aws: Aws, stack: dict[str, str], mode: str) -> None:
        answer = aws.get(f"{stack['url']}/do/{mode}")
        assert (answer.status, json.loads(answer.body)) == (502, {"code": 5000})


class TestStorage:
    def test_a_presigned_request_with_an_authorization_header_is_refused(self, aws: Aws) -> None:
        aws.s3.create_bucket(Bucket="presigned")
        aws.s3.put_object(Bucket="presigned", Key="a", Body=b"a")
        url = aws.s3.generate_presigned_url("get_object", {"Bucket": "presigned", "Key": "a"})
        assert aws.get(url).status == 200
        answer = aws.get(url, Authorization="Bearer mine")
        assert answer.status == 400
        assert "InvalidArgument" in answer.body

    def test_an_event_of_a_versioned_bucket_names_the_version(self, aws: Aws) -> None:
        aws.s3.create_bucket(Bucket="versioned")
        aws.s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
        aws.s3.put_bucket_notification_configuration(
            Bucket="versioned", NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
        created = aws.queue("created")
        aws.events.put_rule(Name="created", EventPattern=json.dumps({"source": ["aws.s3"]}))
        aws.events.put_targets(Rule="created", Targets=[{"Id": "queue", "Arn": created.arn}])
        version = aws.s3.put_object(Bucket="versioned", Key="a", Body=b"a")["VersionId"]
        assert aws.message(created)["detail"]["object"].get("version-id") == version

    def test_a_template_sets_time_to_live(self, aws: Aws, stack: dict[str, str]) -> None:
        ttl = aws.dynamodb.describe_time_to_live(TableName=stack["Table"])["TimeToLiveDescription"]
        assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}

    def test_a_generated_secret_follows_its_options(self, aws: Aws, stack: dict[str, str]) -> None:
        secret = aws.secretsmanager.get_secret_value(SecretId=stack["Secret"])["SecretString"]
        assert len(secret) == 40
        assert secret.isalnum()
        assert secret == secret.lower()

    def test_a_definition_in_s3_may_be_yaml(self, aws: Aws) -> None:
        aws.s3.create_bucket(Bucket="definitions")
        definition = "StartAt: Only\nStates: # as AWS takes it\n  Only: {Type: Pass, Result: '${Word}', End: true}\n"
        aws.s3.put_object(Bucket="definitions", Key="machine.asl.yaml", Body=definition.encode())
        properties = {
            "RoleArn": ROLE,
            "DefinitionS3Location": {"Bucket": "definitions", "Key": "machine.asl.yaml"},
            "DefinitionSubstitutions": {"Word": "arn:aws:any"},
        }
        machine = {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}
        template = {"Resources": {"Machine": machine}, "Outputs": {"Arn": {"Value": {"Ref": "Machine"}}}}
        aws.cloudformation.create_stack(StackName="yaml", TemplateBody=json.dumps(template))
        aws.cloudformation.get_waiter("stack_create_complete").wait(StackName="yaml", WaiterConfig={"Delay": 0.2})
        outputs = aws.cloudformation.describe_stacks(StackName="yaml")["Stacks"][0]["Outputs"]
        assert json.loads(aws.run(outputs[0]["OutputValue"])["output"]) == "arn:aws:any"

    def test_a_template_holds_cloudfronts_keys(self, aws: Aws) -> None:
        def deploy(verb: str, *keys: str) -> dict[str, str]:
            resources: dict[str, Any] = {
                f"Key{name[0]}": {
                    "Type": "AWS::CloudFront::PublicKey",
                    "Properties": {"PublicKeyConfig": {"Name": name[0], "CallerReference": name, "EncodedKey": name}},
                }
                for name in keys
            }
            items = {"Name": "group", "Items": [{"Ref": name} for name in resources]}
            group = {"Type": "AWS::CloudFront::KeyGroup", "Properties": {"KeyGroupConfig": items}}
            body = json.dumps({"Resources": {**resources, "Group": group}})
            getattr(aws.cloudformation, f"{verb}_stack")(StackName="keys", TemplateBody=body)
            until(lambda: "IN_PROGRESS" not in status())
            listed = aws.cloudformation.describe_stack_resources(StackName="keys")["StackResources"]
            return {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in listed}

        def status() -> str:
            return str(aws.cloudformation.describe_stacks(StackName="keys")["Stacks"][0]["StackStatus"])

        def trusted() -> dict[str, str]:
            (group,) = aws.cloudfront.list_key_groups()["KeyGroupList"]["Items"]
            ids = group["KeyGroup"]["KeyGroupConfig"]["Items"]
            found = [aws.cloudfront.get_public_key(Id=one)["PublicKey"] for one in ids]
            return {one["Id"]: one["PublicKeyConfig"]["EncodedKey"] for one in found}

        first = deploy("create", "A1")
        assert trusted() == {first["KeyA"]: "A1"}
        both = deploy("update", "A1", "B1")
        assert trusted() == {first["KeyA"]: "A1", both["KeyB"]: "B1"} and both["Group"] == first["Group"]
        deploy("update", "A2", "B1")  # a public key cannot be changed
        assert status() == "UPDATE_ROLLBACK_COMPLETE" and set(trusted().values()) == {"A1", "B1"}
        deploy("update", "B1")
        again = deploy("update", "A2", "B1")
        assert trusted() == {again["KeyA"]: "A2", both["KeyB"]: "B1"} and again["KeyA"] != first["KeyA"]
        aws.cloudformation.delete_stack(StackName="keys")
        until(lambda: aws.cloudfront.list_public_keys()["PublicKeyList"]["Quantity"] == 0)
