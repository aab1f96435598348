"""Start the corrected emulator, which must behave like AWS where the local stack relies on it. One test per correction.

With CORRECTIONS=off the same tests run on stock MiniStack. The tests that pass then name corrections that an upgrade
has made unnecessary.
"""

import os
from collections.abc import Iterator

import pytest

from local.emulator.process import Emulator
from tests.emulator.aws import WAIT_SCALE, Aws


@pytest.fixture(scope="package")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    log = tmp_path_factory.mktemp("emulator") / "emulator.log"
    with Emulator(log_path=log, wait_scale=WAIT_SCALE, stock=os.environ.get("CORRECTIONS") == "off") as emulator:
        aws = Aws(emulator)
        aws.create_role("any", {"Effect": "Allow", "Action": "*", "Resource": "*"})
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


@pytest.fixture(scope="package")
def stack(aws: Aws) -> dict[str, str]:
    """Outputs of the deployed template, and `url` of its API."""
    able = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
    aws.cloudformation.create_stack(StackName="probe", TemplateBody=TEMPLATE, Capabilities=able)
    aws.cloudformation.get_waiter("stack_create_complete").wait(StackName="probe", WaiterConfig={"Delay": 0.2})
    outputs = aws.cloudformation.describe_stacks(StackName="probe")["Stacks"][0]["Outputs"]
    values = {output["OutputKey"]: output["OutputValue"] for output in outputs}
    rendered = {"application/json": '{"code":5000}'}
    aws.apigateway.put_gateway_response(restApiId=values["Api"], responseType="DEFAULT_5XX", responseTemplates=rendered)
    aws.apigateway.create_deployment(restApiId=values["Api"], stageName="live")
    return {**values, "url": f"{aws.url}/_aws/execute-api/{values['Api']}/live"}
