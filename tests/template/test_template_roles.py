"""Test the permissions of each role, on the transformed template."""

import json
import re
from typing import Any

import pytest

from tests.template.rules import cycle, edges, of_type, references, stars, statements, walk

Template = dict[str, Any]

# (role, action) that IAM can only grant on every resource, with the reason.
LOG_DELIVERY = "log delivery is set up once an account: IAM knows no resource for it"
ON_EVERYTHING = {
    ("TaskLifecycleRole", f"logs:{action}"): LOG_DELIVERY
    for action in (
        *("CreateLogDelivery", "GetLogDelivery", "UpdateLogDelivery", "DeleteLogDelivery", "ListLogDeliveries"),
        *("PutResourcePolicy", "DescribeResourcePolicies", "DescribeLogGroups"),
    )
}
MANAGED = {
    "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole": "writes logs",
    "arn:aws:iam::aws:policy/AWSXrayWriteOnlyAccess": "writes traces",
}
MACHINE = ":stateMachine:${AWS::StackName}-task-lifecycle"
# What each role may do; a new right is a change to this list, which somebody reads.
RIGHTS = {
    "TaskApiFunctionRole": {
        *("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:Query"),
        *("s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:ListBucketVersions"),
        *("secretsmanager:GetSecretValue", "ssm:GetParameter", "states:StartExecution", "lambda:InvokeFunction"),
    },
    "KlingCallbackFunctionRole": {
        *("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:Query"),
        *("secretsmanager:GetSecretValue", "ssm:GetParameter", "states:StartExecution", "states:SendTaskSuccess"),
        "lambda:InvokeFunction",
    },
    "AdvanceTaskFunctionRole": {
        *("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:Query"),
        *("s3:GetObject", "secretsmanager:GetSecretValue", "ssm:GetParameter", "states:StartExecution"),
        "lambda:InvokeFunction",
    },
    "ImageUploadFunctionRole": {
        *("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:Query"),
        *("s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:ListBucket", "s3:ListBucketVersions"),
        "lambda:InvokeFunction",
        *("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:SendMessage"),
        *("secretsmanager:GetSecretValue", "ssm:GetParameter", "states:StartExecution"),
    },
    "ArchiveVideoFunctionRole": {
        *("dynamodb:GetItem", "dynamodb:UpdateItem", "lambda:InvokeFunction"),
        *("s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:ListBucketVersions"),
    },
    "NotifyClientFunctionRole": {
        *("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:UpdateItem", "events:PutEvents"),
        *("s3:GetObject", "s3:PutObject", "secretsmanager:GetSecretValue"),
    },
    "SweepTasksFunctionRole": {
        *("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:UpdateItem", "dynamodb:Query"),
        *("states:StartExecution", "lambda:InvokeFunction"),
    },
    "OperateTasksFunctionRole": {
        *("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"),
        *("dynamodb:Query", "dynamodb:Scan", "secretsmanager:GetSecretValue", "lambda:InvokeFunction"),
        *("states:StartExecution", "states:SendTaskSuccess", "s3:PutObject", "s3:GetObject"),
        *("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:SendMessage"),
    },
    "OpsWidgetFunctionRole": {
        *("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query", "s3:GetObject"),
        *("sqs:ReceiveMessage", "sqs:GetQueueAttributes", "secretsmanager:GetSecretValue"),
    },
    "ApiDocsFunctionRole": {"ssm:GetParameter"},
    "TaskLifecycleRole": {"dynamodb:UpdateItem", "lambda:InvokeFunction", *(action for _, action in ON_EVERYTHING)},
}


def test_one_role_a_function_and_one_for_the_workflow(template: Template) -> None:
    users = [
        resource["Properties"]["Role"]["Fn::GetAtt"][0]
        for resource in of_type(template, "AWS::Lambda::Function").values()
    ] + [
        resource["Properties"]["RoleArn"]["Fn::GetAtt"][0]
        for resource in of_type(template, "AWS::StepFunctions::StateMachine").values()
    ]
    assert len(users) == len(set(users))
    assert set(users) == set(of_type(template, "AWS::IAM::Role"))


def test_every_role_has_the_rights_that_it_is_known_to_need(template: Template) -> None:
    found: dict[str, set[str]] = {}
    for role, actions, _ in statements(template):
        found.setdefault(role, set()).update(actions)
    assert found == RIGHTS


def test_no_action_is_a_star_and_resources_only_for_a_reason(template: Template) -> None:
    free_actions, free_resources = stars(template)
    assert free_actions == set()
    assert free_resources == set(ON_EVERYTHING)


@pytest.mark.parametrize(
    ("action", "resource", "found"),
    [
        ("s3:*", "arn:aws:s3:::b/*", ({"R"}, set())),
        (["s3:GetObject", "*"], "arn:aws:s3:::b/*", ({"R"}, set())),
        ("s3:GetObject", "*", (set(), {("R", "s3:GetObject")})),
        (["a:B", "c:D"], [{"Ref": "X"}, "*"], (set(), {("R", "a:B"), ("R", "c:D")})),
        ("s3:GetObject", "arn:aws:s3:::b/*", (set(), set())),
    ],
)
def test_a_star_is_found(action: Any, resource: Any, found: Any) -> None:
    policy = {"PolicyDocument": {"Statement": {"Effect": "Allow", "Action": action, "Resource": resource}}}
    role = {"Type": "AWS::IAM::Role", "Properties": {"Policies": [policy]}}
    assert stars({"Resources": {"R": role}}) == found


def test_policies_have_a_version_and_managed_ones_are_known(template: Template) -> None:
    for name, role in of_type(template, "AWS::IAM::Role").items():
        documents = [policy["PolicyDocument"] for policy in role["Properties"]["Policies"]]
        assert [document.get("Version") for document in documents] == ["2012-10-17"], name
        assert set(role["Properties"]["ManagedPolicyArns"]) <= set(MANAGED), name


def test_parameters_are_read_by_their_name_only(template: Template) -> None:
    found: dict[str, set[str]] = {}
    for role, actions, resources in statements(template):
        if "ssm:GetParameter" in actions:
            found.setdefault(role, set()).update(resource["Fn::Sub"].rpartition("/")[2] for resource in resources)
    assert found == {
        "TaskApiFunctionRole": {"base-url", "models"},
        "ImageUploadFunctionRole": {"base-url", "models"},
        "ApiDocsFunctionRole": {"base-url"},
        "AdvanceTaskFunctionRole": {"base-url", "models"},
        "KlingCallbackFunctionRole": {"models"},
    }


def test_whoever_starts_waiting_tasks_may_read_both_of_their_indexes(template: Template) -> None:
    """sweeper.start_waiting reads by_due and by_turn. The widget only counts, and by_tenant has no reader yet."""
    indexes: dict[str, set[str]] = {}
    for role, actions, resources in statements(template):
        for name in re.findall(r"/index/(\w+)", json.dumps(resources)) if "dynamodb:Query" in actions else []:
            indexes.setdefault(role, set()).add(name)
    starting = {role for role, names in indexes.items() if "by_due" in names} - {"OpsWidgetFunctionRole"}
    assert starting == {role for role, names in indexes.items() if "by_turn" in names}
    assert len(starting) == 5 and not any("by_tenant" in names for names in indexes.values())


def test_executions_and_functions_are_started_on_our_own_only(template: Template) -> None:
    ours = set(of_type(template, "AWS::Lambda::Function"))
    checked = 0
    for _, actions, resources in statements(template):
        if {"states:StartExecution", "states:SendTaskSuccess"} & set(actions):
            checked += 1
            assert all(resource["Fn::Sub"].endswith(MACHINE) for resource in resources)
        if "lambda:InvokeFunction" in actions:
            checked += 1
            assert all(
                resource["Fn::GetAtt"][0] in ours and resource["Fn::GetAtt"][1] == "Arn" for resource in resources
            )
    assert checked == 15
    (machine,) = of_type(template, "AWS::StepFunctions::StateMachine").values()
    assert MACHINE.endswith(machine["Properties"]["StateMachineName"]["Fn::Sub"])


def test_buckets_are_listed_below_known_folders_only(template: Template) -> None:
    """A list without a prefix names the objects of every tenant."""
    found: dict[tuple[str, str], list[Any]] = {}
    for role in of_type(template, "AWS::IAM::Role").values():
        for policy in role["Properties"].get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                if statement.get("Action") in ("s3:ListBucketVersions", "s3:ListBucket"):
                    place = statement["Resource"]["Fn::GetAtt"][0], statement["Action"]
                    found.setdefault(place, []).append(statement["Condition"]["StringLike"]["s3:prefix"])
    assert found == {
        ("InputBucket", "s3:ListBucketVersions"): [["inputs/*", "uploads/*"], "inbox/*"],
        ("VideoBucket", "s3:ListBucketVersions"): ["videos/*", "videos/*"],
        ("InputBucket", "s3:ListBucket"): ["inbox/*"],
    }


def test_functions_are_invoked_by_this_stacks_api_and_rules_only(template: Template) -> None:
    permissions = of_type(template, "AWS::Lambda::Permission")
    assert permissions
    for name, permission in permissions.items():
        source = references(permission["Properties"]["SourceArn"])
        assert source & {"Api", *of_type(template, "AWS::Events::Rule")}, name


def test_viewers_may_look_and_nothing_else(template: Template) -> None:
    written = template["Outputs"]["ViewerPolicy"]["Value"]["Fn::Sub"]
    assert len(written) < 4096  # of an output
    policy = json.loads(written)
    assert policy["Version"] == "2012-10-17"
    assert {one["Effect"] for one in policy["Statement"]} == {"Allow"}
    looking = re.compile(r"(cloudwatch|logs):(Get|List|Describe|StartQuery|StopQuery)\w*")
    listed = [
        (one["Action"] if isinstance(one["Action"], list) else [one["Action"]], one) for one in policy["Statement"]
    ]
    granted = [(action, one["Resource"]) for actions, one in listed for action in actions]
    other = [pair for pair in granted if not looking.fullmatch(pair[0])]
    assert other == [("lambda:InvokeFunction", "${OpsWidgetFunction.Arn}")]


def test_nothing_depends_on_itself(template: Template) -> None:
    assert cycle(edges(template)) == []


@pytest.mark.parametrize(
    "back",
    [
        {"Properties": {"Bucket": {"Ref": "A"}}},
        {"Properties": {"Arn": {"Fn::GetAtt": ["A", "Arn"]}}},
        {"Properties": {"Arn": {"Fn::GetAtt": "A.Arn"}}},
        {"Properties": {"Text": {"Fn::Sub": "x-${A.Arn}"}}},
        {"Properties": {"Text": {"Fn::Sub": ["${Own}-${A}", {"Own": "1"}]}}},
        {"DependsOn": "A"},
        {"DependsOn": ["A"]},
    ],
)
def test_a_cycle_is_found(back: dict[str, Any]) -> None:
    a = {"Type": "T", "Properties": {"Deep": [{"Deeper": {"Fn::Sub": "${B}"}}]}}
    b = {"Type": "T", "Properties": {"Next": {"Ref": "C"}}}
    assert cycle(edges({"Resources": {"A": a, "B": b, "C": {"Type": "T", **back}}})) == ["A", "B", "C", "A"]


def test_what_only_looks_like_a_cycle_is_none() -> None:
    a = {"Type": "T", "Properties": {"Text": {"Fn::Sub": ["${!B} ${B} ${AWS::Region}", {"B": "own"}]}}}
    b = {"Type": "T", "Properties": {"Next": [{"Ref": "A"}, {"Ref": "Parameter"}]}}
    assert cycle(edges({"Resources": {"A": a, "B": b}})) == []


def test_no_key_of_an_aws_service_alias(template: Template) -> None:
    assert not [value for _, value in walk(template) if isinstance(value, str) and "alias/aws/" in value]
