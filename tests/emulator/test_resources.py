"""Test the corrections of S3 and of resources in templates."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.emulator.aws import ROLE, Aws, until


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
        rule = aws.events.put_rule(Name="created", EventPattern=json.dumps({"source": ["aws.s3"]}))["RuleArn"]
        created = aws.queue("created", admits=rule)
        aws.events.put_targets(Rule="created", Targets=[{"Id": "queue", "Arn": created.arn}])
        version = aws.s3.put_object(Bucket="versioned", Key="a", Body=b"a")["VersionId"]
        assert aws.message(created)["detail"]["object"].get("version-id") == version

    def test_a_version_is_read_in_ranges(self, aws: Aws) -> None:
        aws.s3.create_bucket(Bucket="ranges")
        aws.s3.put_bucket_versioning(Bucket="ranges", VersioningConfiguration={"Status": "Enabled"})
        made = [
            aws.s3.put_object(Bucket="ranges", Key="a", Body=body)["VersionId"] for body in (b"01234567", b"new", b"")
        ]
        old = aws.s3.get_object(Bucket="ranges", Key="a", VersionId=made[0], Range="bytes=2-4")
        assert (old["Body"].read(), old["ContentRange"], old["ContentLength"]) == (b"234", "bytes 2-4/8", 3)
        with pytest.raises(ClientError) as refused:
            aws.s3.get_object(Bucket="ranges", Key="a", VersionId=made[2], Range="bytes=0-9")
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 416

    def test_a_template_sets_time_to_live(self, aws: Aws, stack: dict[str, str]) -> None:
        ttl = aws.dynamodb.describe_time_to_live(TableName=stack["Table"])["TimeToLiveDescription"]
        assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}

    def test_a_secret_without_a_value_has_none(self, aws: Aws) -> None:
        """What a stack has before a command stores the key. Source: the AWS::SecretsManager::Secret reference."""
        template = {"Resources": {"Secret": {"Type": "AWS::SecretsManager::Secret"}}}
        template["Outputs"] = {"Secret": {"Value": {"Ref": "Secret"}}}
        aws.cloudformation.create_stack(StackName="no-value", TemplateBody=json.dumps(template))
        aws.cloudformation.get_waiter("stack_create_complete").wait(StackName="no-value", WaiterConfig={"Delay": 0.2})
        (output,) = aws.cloudformation.describe_stacks(StackName="no-value")["Stacks"][0]["Outputs"]
        with pytest.raises(aws.secretsmanager.exceptions.ResourceNotFoundException):
            aws.secretsmanager.get_secret_value(SecretId=output["OutputValue"])
        aws.secretsmanager.put_secret_value(SecretId=output["OutputValue"], SecretString="stored")
        assert aws.secretsmanager.get_secret_value(SecretId=output["OutputValue"])["SecretString"] == "stored"
        aws.cloudformation.delete_stack(StackName="no-value")

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

    def test_a_template_holds_saved_queries(self, aws: Aws) -> None:
        def deploy(verb: str, text: str) -> str:
            properties = {"Name": "queries/slow", "QueryString": text, "LogGroupNames": ["any"]}
            query = {"Type": "AWS::Logs::QueryDefinition", "Properties": properties}
            output = {"Id": {"Value": {"Fn::GetAtt": ["Query", "QueryDefinitionId"]}}}
            body = json.dumps({"Resources": {"Query": query}, "Outputs": output})
            getattr(aws.cloudformation, f"{verb}_stack")(StackName="queries", TemplateBody=body)
            waiter = aws.cloudformation.get_waiter(f"stack_{verb}_complete")
            waiter.wait(StackName="queries", WaiterConfig={"Delay": 0.2})
            outputs = aws.cloudformation.describe_stacks(StackName="queries")["Stacks"][0]["Outputs"]
            return str(outputs[0]["OutputValue"])

        made = deploy("create", "fields @message")
        assert deploy("update", "fields @timestamp") == made
        aws.cloudformation.delete_stack(StackName="queries")
        aws.cloudformation.get_waiter("stack_delete_complete").wait(StackName="queries", WaiterConfig={"Delay": 0.2})
