"""Test the corrections of IAM: the role of each call, and the record of the authorizations."""

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.emulator.aws import Aws, catch, store_token, until

ACCOUNT = "us-east-1:000000000000"


def allow(action: str | list[str], resource: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


class TestFunctions:
    def test_a_call_is_checked_and_written_down(self, aws: Aws) -> None:
        source = """
            import boto3
            def handler(event, context):
                table = boto3.client("dynamodb")
                table.get_item(TableName="tokens", Key={"id": {"S": "x"}})
                table.delete_item(TableName="tokens", Key={"id": {"S": "x"}})
        """
        tokens = f"arn:aws:dynamodb:{ACCOUNT}:table/tokens"
        aws.create_function("reads", source, Role=aws.create_role("reader", allow("dynamodb:GetItem", tokens)))
        answer = aws.functions.invoke(FunctionName="reads")
        assert "AccessDenied" in json.loads(answer["Payload"].read())["errorMessage"]
        assert aws.calls("reader") == {("dynamodb:GetItem", tokens, True), ("dynamodb:DeleteItem", tokens, False)}

    def test_a_bucket_that_wants_tls_is_reached_and_each_version_asked_for(self, aws: Aws) -> None:
        bucket = {"Bucket": "strict"}
        aws.s3.create_bucket(**bucket)
        aws.s3.put_bucket_versioning(**bucket, VersioningConfiguration={"Status": "Enabled"})
        objects = "arn:aws:s3:::strict/*"
        plain: dict[str, Any] = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": objects}
        plain["Condition"] = {"Bool": {"aws:SecureTransport": "false"}}
        policy = {"Version": "2012-10-17", "Statement": [plain]}
        aws.s3.put_bucket_policy(**bucket, Policy=json.dumps(policy))
        version = aws.s3.put_object(**bucket, Key="a", Body=b"a")["VersionId"]
        source = """
            import boto3
            def handler(event, context):
                named = {"Objects": [{"Key": "a", "VersionId": event}]}
                return boto3.client("s3").delete_objects(Bucket="strict", Delete=named).get("Errors", [])
        """
        actions = ["s3:DeleteObject", "s3:DeleteObjectVersion"]
        aws.create_function("deletes", source, Role=aws.create_role("deleter", allow(actions, objects)))
        answer = aws.functions.invoke(FunctionName="deletes", Payload=json.dumps(version))
        assert json.loads(answer["Payload"].read()) == []
        assert aws.calls("deleter") == {(action, "arn:aws:s3:::strict/a", True) for action in actions}

    def test_a_batch_of_messages_needs_the_right_to_send_one(self, aws: Aws) -> None:
        queue = aws.queue("batches")
        source = """
            import boto3
            def handler(event, context):
                boto3.client("sqs").send_message_batch(QueueUrl=event, Entries=[{"Id": "1", "MessageBody": "one"}])
        """
        role = aws.create_role("sender", allow("sqs:SendMessage", queue.arn))
        aws.create_function("sends", source, Role=role)
        assert "FunctionError" not in aws.functions.invoke(FunctionName="sends", Payload=json.dumps(queue.url))
        assert aws.calls("sender") == {("sqs:SendMessage", queue.arn, True)}


class TestStateMachines:
    @pytest.mark.parametrize("allowed", [True, False])
    def test_tasks_run_under_the_machines_role(self, aws: Aws, allowed: bool) -> None:
        name = f"tasks-{allowed}".lower()
        function = aws.create_function(name, "def handler(event, context): return event")
        role = aws.create_role(name, allow("lambda:InvokeFunction", function if allowed else f"{function}-other"))
        call = {"Resource": "arn:aws:states:::lambda:invoke", "Parameters": {"FunctionName": function, "Payload": 1}}
        machine = aws.create_machine(name, {"Type": "Task", **call, **catch("Lambda.AWSLambdaException")}, role=role)
        output = json.loads(aws.run(machine)["output"])
        assert ("Error" not in output) is allowed
        assert aws.calls(name) == {("lambda:InvokeFunction", function, allowed)}

    def test_a_token_is_answered_with_a_right_on_its_machine(self, aws: Aws) -> None:
        source = """
            import boto3
            def handler(event, context):
                boto3.client("stepfunctions").send_task_success(taskToken=event, output="1")
        """
        mine = aws.create_machine("mine", store_token("mine"))
        other = aws.create_machine("other", store_token("other"))
        role = aws.create_role("answerer", allow("states:SendTaskSuccess", mine))
        aws.create_function("answers", source, Role=role)
        for machine, key, refused in ((mine, "mine", False), (other, "other", True)):
            aws.start(machine)
            (token,) = aws.tokens(key)
            answer = aws.functions.invoke(FunctionName="answers", Payload=json.dumps(token))
            assert ("FunctionError" in answer) is refused
        send = "states:SendTaskSuccess"
        assert aws.calls("answerer") == {(send, mine, True), (send, other, False)}


class TestQueues:
    @pytest.mark.parametrize("allowed", [True, False])
    def test_a_functions_role_has_to_allow_its_queue(self, aws: Aws, allowed: bool) -> None:
        name = f"polled-{allowed}".lower()
        queue = aws.queue(name)
        actions = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
        role = aws.create_role(name, allow(actions if allowed else actions[1:], queue.arn))
        function = aws.create_function(name, "def handler(event, context): pass", Role=role)
        aws.functions.create_event_source_mapping(EventSourceArn=queue.arn, FunctionName=function)
        aws.sqs.send_message(QueueUrl=queue.url, MessageBody="one")
        until(lambda: len(aws.calls(name)) == 3)
        assert {action: granted for action, _, granted in aws.calls(name)} == {
            **dict.fromkeys(actions, True),
            "sqs:ReceiveMessage": allowed,
        }

    @pytest.mark.parametrize("admitted", [True, False])
    def test_a_rule_delivers_where_it_is_admitted(self, aws: Aws, admitted: bool) -> None:
        name = f"rule-{admitted}".lower()
        rule = aws.events.put_rule(Name=name, EventPattern=json.dumps({"source": [name]}))["RuleArn"]
        queue = aws.queue(name, admits=rule if admitted else f"{rule}-other")
        aws.events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": queue.arn}])
        aws.events.put_events(Entries=[{"Source": name, "DetailType": "any", "Detail": "{}"}])
        if admitted:
            assert aws.message(queue)["source"] == name
        else:
            time.sleep(0.5)
            assert "Messages" not in aws.sqs.receive_message(QueueUrl=queue.url)


def test_a_reference_to_a_secret_is_its_arn(aws: Aws) -> None:
    formation, name = aws.cloudformation, "a-secret"
    for value, verb in (("one", "create"), ("two", "update")):
        secret = {"Type": "AWS::SecretsManager::Secret", "Properties": {"SecretString": value}}
        template = json.dumps({"Resources": {"Secret": secret}, "Outputs": {"Secret": {"Value": {"Ref": "Secret"}}}})
        getattr(formation, f"{verb}_stack")(StackName=name, TemplateBody=template)
        formation.get_waiter(f"stack_{verb}_complete").wait(StackName=name, WaiterConfig={"Delay": 0.2})
        arn = formation.describe_stacks(StackName=name)["Stacks"][0]["Outputs"][0]["OutputValue"]
        stored = aws.secretsmanager.get_secret_value(SecretId=arn)
        assert (stored["ARN"], stored["SecretString"]) == (arn, value)
    formation.delete_stack(StackName=name)
    until(lambda: arn not in [one["ARN"] for one in aws.secretsmanager.list_secrets()["SecretList"]])


def test_a_role_that_is_not_there_cannot_be_used(aws: Aws) -> None:
    with pytest.raises(ClientError):
        aws.create_function("nobodys", "", Role="arn:aws:iam::000000000000:role/nobody")
