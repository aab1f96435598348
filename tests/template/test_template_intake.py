"""Test the path from the input bucket to functions/image_upload: no event is lost, and no object of ours enters it."""

import re
from typing import Any

import pytest
from kling_relay.operations import actions as operations
from kling_relay.tasks.s3_source import INBOX, RESULTS

from tests.template.rules import REPOSITORY, of_type, references, statements

Template = dict[str, Any]


@pytest.fixture
def rule(template: Template) -> dict[str, Any]:
    (found,) = [
        one["Properties"]
        for one in of_type(template, "AWS::Events::Rule").values()
        if "EventPattern" in one["Properties"]
    ]
    return found


def test_the_bucket_tells_what_is_written_below_the_inbox(template: Template, rule: dict[str, Any]) -> None:
    bucket = template["Resources"]["InputBucket"]["Properties"]
    assert bucket["NotificationConfiguration"] == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    assert rule["EventPattern"] == {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": [{"Ref": "InputBucket"}]}, "object": {"key": [{"prefix": INBOX}]}},
    }
    (target,) = rule["Targets"]
    assert references(target["Arn"]) == {"IntakeQueue"} and "InputTransformer" not in target
    assert references(target["DeadLetterConfig"]) == {"IntakeDeadLetters"}, "what EventBridge cannot hand over"


def test_no_output_can_be_an_input(template: Template) -> None:
    """No role may write where a write starts a task; and the video bucket tells nobody anything."""
    assert not RESULTS.startswith(INBOX)
    writers = 0
    for role, actions, resources in statements(template):
        if "s3:PutObject" not in actions:
            continue
        for resource in resources:
            bucket, prefix = re.fullmatch(r"\$\{(\w+)\.Arn\}/(\w+/)\*", resource["Fn::Sub"]).groups()  # type: ignore[union-attr]
            writers += 1
            assert (bucket, prefix) in {
                *(("InputBucket", folder) for folder in ("inputs/", "uploads/", "exports/", RESULTS)),
                ("VideoBucket", "videos/"),
            }, role
    assert writers >= 6
    assert "NotificationConfiguration" not in template["Resources"]["VideoBucket"]["Properties"]


def test_only_the_rule_and_the_function_write_into_the_queues(template: Template) -> None:
    (policy,) = of_type(template, "AWS::SQS::QueuePolicy").values()
    queues = ("IntakeQueue", "IntakeDeadLetters")
    assert policy["Properties"]["Queues"] == [{"Ref": queue} for queue in queues]
    (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": [{"Fn::GetAtt": [queue, "Arn"]} for queue in queues],
        "Condition": {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": ["IntakeRule", "Arn"]}}},
    }
    senders = {role for role, actions, _ in statements(template) if "sqs:SendMessage" in actions}
    assert senders == {"ImageUploadFunctionRole", "OperateTasksFunctionRole"}  # the latter redrives


def test_what_fails_three_times_lies_among_the_dead(template: Template) -> None:
    queue = template["Resources"]["IntakeQueue"]["Properties"]
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": ["IntakeDeadLetters", "Arn"]}
    told = re.search(r"_MAX_TRIES = (\d+)", (REPOSITORY / "functions/image_upload/app.py").read_text())
    assert told is not None and queue["RedrivePolicy"]["maxReceiveCount"] == int(told[1])
    function = template["Resources"]["ImageUploadFunction"]["Properties"]
    assert queue["VisibilityTimeout"] >= 6 * function["Timeout"]
    for one in of_type(template, "AWS::SQS::Queue").values():
        assert one["Properties"]["SqsManagedSseEnabled"] is True and "KmsMasterKeyId" not in one["Properties"]
        assert one["Properties"]["MessageRetentionPeriod"] == 14 * 86_400


def test_one_message_fails_alone_and_few_run_at_once(template: Template) -> None:
    (mapping,) = of_type(template, "AWS::Lambda::EventSourceMapping").values()
    properties = mapping["Properties"]
    assert references(properties) == {"IntakeQueue", "ImageUploadFunction"}
    assert properties["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert 2 <= properties["ScalingConfig"]["MaximumConcurrency"] <= 5 and properties["BatchSize"] <= 10


def test_the_tenant_is_the_stacks_word(template: Template) -> None:
    pattern = template["Parameters"]["IntakeTenant"]["AllowedPattern"]
    assert pattern == f"^{operations._TENANT.pattern}$"
    given = template["Resources"]["ImageUploadFunction"]["Properties"]["Environment"]["Variables"]
    assert given["INTAKE_TENANT"] == {"Ref": "IntakeTenant"}
