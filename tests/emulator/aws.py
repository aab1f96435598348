"""Call the emulator through its clients, with helpers for its tests."""

import io
import json
import textwrap
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from local.emulator.process import Emulator

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


def until(condition: Callable[[], Any], seconds: float = 40.0) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.03)
    return value


class Aws:
    """Clients by name, and what the tests do again and again."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator, self.url = emulator, emulator.endpoint_url
        self.apigateway = emulator.client("apigateway")
        self.cloudformation = emulator.client("cloudformation")
        self.cloudfront = emulator.client("cloudfront")
        self.cloudwatch = emulator.client("cloudwatch")
        self.dynamodb = emulator.client("dynamodb")
        self.events = emulator.client("events")
        self.functions = emulator.client("lambda")
        self.iam = emulator.client("iam")
        self.logs = emulator.client("logs")
        self.s3 = emulator.client("s3")
        self.secretsmanager = emulator.client("secretsmanager")
        self.sns = emulator.client("sns")
        self.sqs = emulator.client("sqs")
        self.stepfunctions = emulator.client("stepfunctions")

    def create_role(self, name: str, *statements: dict[str, Any]) -> str:
        """A role that Lambda and Step Functions may assume, and that may do what `statements` say."""
        services = {"Service": ["lambda.amazonaws.com", "states.amazonaws.com"]}
        trust = {"Statement": [{"Effect": "Allow", "Principal": services, "Action": "sts:AssumeRole"}]}
        role = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
        policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        self.iam.put_role_policy(RoleName=name, PolicyName="rights", PolicyDocument=policy)
        return str(role["Arn"])

    def calls(self, role: str) -> set[tuple[str, str, bool]]:
        """(action, resource, allowed) of all that a role has asked for."""
        lines = [json.loads(line) for line in self.emulator.calls_path.read_text().splitlines()]
        return {(line["action"], line["resource"], line["allowed"]) for line in lines if line["role"] == role}

    def create_function(self, name: str, source: str, **settings: Any) -> str:
        wanted = {"Runtime": "python3.13", "Handler": "app.handler", "Role": ROLE, **settings}
        return self.functions.create_function(FunctionName=name, Code={"ZipFile": archive(app=source)}, **wanted)[
            "FunctionArn"
        ]

    def create_machine(self, name: str, *states: dict[str, Any], **fields: Any) -> str:
        """States run in order; the last one ends. `Caught` is where a Catch may go."""
        role = fields.pop("role", ROLE)
        named = {f"S{number}": {"Next": f"S{number + 1}", **state} for number, state in enumerate(states)}
        last = named[f"S{len(states) - 1}"]
        del last["Next"]
        last["End"] = True
        definition = {"StartAt": "S0", "States": {**named, "Caught": {"Type": "Pass", "End": True}}, **fields}
        return self.stepfunctions.create_state_machine(name=name, definition=json.dumps(definition), roleArn=role)[
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

    def queue(self, name: str, admits: str | None = None, service: str = "events") -> SimpleNamespace:
        """`admits`: the rule (or, with `service` "sns", the topic) from which its policy lets messages in."""
        url = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        if admits is not None:
            allow = {
                "Effect": "Allow",
                "Principal": {"Service": f"{service}.amazonaws.com"},
                "Action": "sqs:SendMessage",
            }
            only = {"Resource": arn, "Condition": {"ArnEquals": {"aws:SourceArn": admits}}}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [{**allow, **only}]})
            self.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
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
