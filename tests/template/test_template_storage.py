"""Test the resources that outlive the stack: table, buckets, secrets."""

from typing import Any

import pytest

from tests.template.rules import of_type, references

Template = dict[str, Any]

RETAINED = ("AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SecretsManager::Secret")
NAMES = ("TableName", "BucketName", "Name")
WORTHLESS = ("DeliveryKeySecret",)
"""Goes with the distribution that trusts it; `make delivery-key` makes another one."""


def retained(template: Template) -> dict[str, dict[str, Any]]:
    found = {name: resource for kind in RETAINED for name, resource in of_type(template, kind).items()}
    return {name: resource for name, resource in found.items() if name not in WORTHLESS}


def test_they_survive_the_stack_and_have_no_name_to_collide_with(template: Template) -> None:
    assert len(retained(template)) == 5
    for name, resource in retained(template).items():
        assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain"), name
        assert not set(NAMES) & set(resource["Properties"]), name


def test_nothing_else_is_left_behind(template: Template) -> None:
    kept = {name for name, resource in template["Resources"].items() if resource.get("DeletionPolicy") == "Retain"}
    assert kept == set(retained(template))


def test_the_table_can_be_restored_and_not_be_deleted_by_mistake(template: Template) -> None:
    (table,) = of_type(template, "AWS::DynamoDB::Table").values()
    properties = table["Properties"]
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert properties["DeletionProtectionEnabled"] is True
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert properties["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}


def chosen(items: list[Any], tenant_index: bool) -> list[Any]:
    """A list of the table's properties in a stack with or without the index by_tenant."""
    made = [one["Fn::If"][1 if tenant_index else 2] if "Fn::If" in one else one for one in items]
    return [one for one in made if one != {"Ref": "AWS::NoValue"}]


@pytest.mark.parametrize("tenant_index", [True, False])
def test_every_attribute_of_the_table_is_a_key(template: Template, tenant_index: bool) -> None:
    """DynamoDB refuses a definition that no key uses, and a key without definition."""
    (table,) = of_type(template, "AWS::DynamoDB::Table").values()
    properties = table["Properties"]
    indexes = [properties, *chosen(properties["GlobalSecondaryIndexes"], tenant_index)]
    keys = {key["AttributeName"] for index in indexes for key in index["KeySchema"]}
    assert {one["AttributeName"] for one in chosen(properties["AttributeDefinitions"], tenant_index)} == keys


def test_an_old_stack_gets_one_index_an_update(template: Template) -> None:
    """DynamoDB creates one index in one UpdateTable (its API reference). A stack of c90a538 has the first five."""
    (table,) = of_type(template, "AWS::DynamoDB::Table").values()
    given = table["Properties"]["GlobalSecondaryIndexes"]
    had = {"by_due", "by_owner", "by_age", "by_notice", "by_end"}
    first, second = ({one["IndexName"] for one in chosen(given, choice)} for choice in (False, True))
    assert (first - had, second - first) == ({"by_turn"}, {"by_tenant"})
    conditions = {name for one in given for name in [one.get("Fn::If", [None])[0]] if name is not None}
    assert conditions == {"HasTenantIndex"}
    assert template["Conditions"]["HasTenantIndex"] == {"Fn::Equals": [{"Ref": "TenantIndex"}, "on"]}
    assert template["Parameters"]["TenantIndex"]["Default"] == "on"


def test_buckets_are_private(template: Template) -> None:
    for name, bucket in of_type(template, "AWS::S3::Bucket").items():
        properties = bucket["Properties"]
        assert properties["PublicAccessBlockConfiguration"] == dict.fromkeys(
            ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
        ), name
        assert properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}, name
        (encryption,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert encryption == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}, name


def test_buckets_are_reached_by_tls_only(template: Template) -> None:
    policies = of_type(template, "AWS::S3::BucketPolicy").values()
    guarded = {policy["Properties"]["Bucket"]["Ref"]: policy for policy in policies}
    assert set(guarded) == set(of_type(template, "AWS::S3::Bucket"))
    for bucket, policy in guarded.items():
        statement = policy["Properties"]["PolicyDocument"]["Statement"][0]
        assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        arn = {"Fn::GetAtt": [bucket, "Arn"]}
        assert statement["Resource"] == [arn, {"Fn::Sub": f"${{{bucket}.Arn}}/*"}]


def test_leftovers_go(template: Template) -> None:
    for name, bucket in of_type(template, "AWS::S3::Bucket").items():
        rules = bucket["Properties"]["LifecycleConfiguration"]["Rules"]
        aborts = [rule["AbortIncompleteMultipartUpload"] for rule in rules if "AbortIncompleteMultipartUpload" in rule]
        assert aborts == [{"DaysAfterInitiation": 1}], name


def test_where_users_write_there_are_versions_and_both_end(template: Template) -> None:
    properties = template["Resources"]["InputBucket"]["Properties"]
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    rules = {rule["Id"]: rule for rule in properties["LifecycleConfiguration"]["Rules"] if "Id" in rule}
    for name, folder in (("inputs-end", "inputs/"), ("uploads-end", "uploads/")):
        assert rules[name]["ExpirationInDays"] == {"Ref": "InputRetentionDays"} and rules[name]["Prefix"] == folder
    assert rules["leftovers"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7}


def test_browsers_may_upload_and_nothing_else(template: Template) -> None:
    (rule,) = template["Resources"]["InputBucket"]["Properties"]["CorsConfiguration"]["CorsRules"]
    assert (rule["AllowedMethods"], rule["AllowedOrigins"]) == (["POST"], ["*"])


def test_the_indexes_for_lists_and_turns_hold_keys_only(template: Template) -> None:
    (table,) = of_type(template, "AWS::DynamoDB::Table").values()
    indexes = {one["IndexName"]: one for one in chosen(table["Properties"]["GlobalSecondaryIndexes"], True)}
    assert set(indexes) == {"by_due", "by_owner", "by_age", "by_notice", "by_end", "by_turn", "by_tenant"}
    for name in ("by_owner", "by_turn", "by_tenant"):
        assert indexes[name]["Projection"] == {"ProjectionType": "KEYS_ONLY"}


def test_videos_stay_unless_somebody_says_otherwise(template: Template) -> None:
    rules = template["Resources"]["VideoBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    (ending,) = [rule["Fn::If"] for rule in rules if "Fn::If" in rule]
    assert (ending[0], ending[2]) == ("VideosEnd", {"Ref": "AWS::NoValue"})
    assert template["Conditions"]["VideosEnd"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "VideoRetentionDays"}, 0]}]}
    assert template["Parameters"]["VideoRetentionDays"]["Default"] == 0


@pytest.mark.parametrize(
    ("condition", "parameter", "prefix"),
    [("InboxEnds", "InboxRetentionDays", "inbox/"), ("ResultsEnd", "ResultRetentionDays", "results/")],
)
def test_what_users_drop_and_its_results_stay_unless_somebody_says_otherwise(
    template: Template, condition: str, parameter: str, prefix: str
) -> None:
    rules = template["Resources"]["InputBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    (rule,) = [rule["Fn::If"] for rule in rules if rule.get("Fn::If", [""])[0] == condition]
    assert rule[1]["Prefix"] == prefix and rule[1]["ExpirationInDays"] == {"Ref": parameter}
    assert rule[2] == {"Ref": "AWS::NoValue"}
    assert template["Conditions"][condition] == {"Fn::Not": [{"Fn::Equals": [{"Ref": parameter}, 0]}]}


def test_two_secrets_and_none_with_a_value_in_the_template(template: Template) -> None:
    """Each costs $0.40 a month: one of ours and the provider's, and one more where there is a distribution."""
    secrets = of_type(template, "AWS::SecretsManager::Secret")
    assert {name: secret.get("Condition") for name, secret in secrets.items()} == {
        **dict.fromkeys(("RelaySecret", "ProviderKeySecret")),
        "DeliveryKeySecret": "HasDelivery",
    }
    assert not [name for name, secret in secrets.items() if "SecretString" in secret["Properties"]]
    assert "GenerateSecretString" not in secrets["ProviderKeySecret"]["Properties"]  # empty until the operator fills it


@pytest.mark.parametrize("kind", ["AWS::KMS::Key", "AWS::EC2::NatGateway"])
def test_nothing_costs_by_the_hour(template: Template, kind: str) -> None:
    assert of_type(template, kind) == {}


def test_outputs_name_what_tools_need(template: Template) -> None:
    named = {name: references(output["Value"]) for name, output in template["Outputs"].items()}
    assert named == {
        "ApiUrl": {"BaseUrlParameter"},
        "Version": set(),
        "TaskTable": {"TaskTable"},
        "InputBucket": {"InputBucket"},
        "VideoBucket": {"VideoBucket"},
        "EventBus": {"EventBus"},
        "IntakeQueue": {"IntakeQueue"},
        "IntakeDeadLetters": {"IntakeDeadLetters"},
        "StateMachineArn": {"TaskLifecycle"},
        "ProviderKeySecret": {"ProviderKeySecret"},
        "OperateTasksFunction": {"OperateTasksFunction"},
        "OpsWidgetFunction": {"OpsWidgetFunction"},
        "ViewerPolicy": {
            "OpsWidgetFunction",
            *(f"AWS::{of}" for of in ("Partition", "Region", "AccountId", "StackName")),
        },
        "OperatorTopic": {"OperatorTopic"},
        "TicketTopic": {"TicketTopic"},
        "DashboardUrl": {"AWS::Region", "OperationsDashboard"},
        "DeliveryUrl": {"Delivery"},
        "DeliveryKeySecret": {"DeliveryKeySecret"},
    }
