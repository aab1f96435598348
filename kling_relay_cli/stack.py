"""A deployed stack as its operator sees it: through CloudFormation, with the operator's own AWS credentials."""

import json
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from kling_relay.provider.profiles import Account, profile
from kling_relay.settings import Settings

from kling_relay_cli import provider_secret

# An action may take as long as its function, and is never begun a second time because the first one takes its time.
_PATIENT = Config(read_timeout=310, tcp_keepalive=True, retries={"mode": "standard", "total_max_attempts": 1})
_SIGN_IN = "sign in (`aws sso login`, `aws configure`) or name a profile (AWS_PROFILE=...)"
_NO_CREDENTIALS = (
    *(CredentialRetrievalError, NoCredentialsError, PartialCredentialsError),
    *(ProfileNotFound, SSOError, TokenRetrievalError),
)
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"}
_DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"}


class OperatorError(Exception):
    """Something foreseeable is wrong; `remedy` says what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


class DeployedStack:
    """The stack `kling-relay-{stage}`; nothing is asked before it is needed. AWS_ENDPOINT_URL is honoured (boto3)."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.name = f"kling-relay-{stage}"
        self.deploy = f"make deploy STAGE={stage}"

    def client(self, service: str, config: Config | None = None) -> Any:
        return self._session.client(service, config=config)

    @cached_property
    def _session(self) -> boto3.Session:
        return boto3.Session()

    @cached_property
    def described(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"][0]
        return found

    @cached_property
    def outputs(self) -> dict[str, str]:
        found = {output["OutputKey"]: output["OutputValue"] for output in self.described.get("Outputs", [])}
        if "OperateTasksFunction" not in found:
            raise OperatorError(f"the stack {self.name} is {self.described['StackStatus']}", self.deploy)
        return found

    @property
    def parameters(self) -> dict[str, str]:
        return {p["ParameterKey"]: p.get("ParameterValue", "") for p in self.described.get("Parameters", [])}

    @property
    def account(self) -> str:
        """The account that new tasks are sent to, as the functions name it."""
        given = self.parameters
        name, label = given.get("Provider") or Settings().provider, given.get("ProviderAccount") or "1"
        return str(Account(name, profile(name, given.get("KlingBaseUrl", "")).base_url, label))

    def forget(self) -> None:
        """After an update: look at the stack anew."""
        for name in ("described", "outputs"):
            self.__dict__.pop(name, None)

    @property
    def delivery_url(self) -> str:
        """The distribution's address; empty without a delivery key."""
        return self.outputs.get("DeliveryUrl", "")

    def resource(self, logical_id: str) -> str:
        """The physical id of a resource."""
        answer = self.client("cloudformation").describe_stack_resource(
            StackName=self.name, LogicalResourceId=logical_id
        )
        return str(answer["StackResourceDetail"]["PhysicalResourceId"])

    def has_provider_key(self) -> bool:
        return provider_secret.holds_key(self.provider_secret(), self.account)

    def provider_secret(self) -> str:
        """The provider's secret as it is stored now, "" where nothing is."""
        secrets = self.client("secretsmanager")
        try:
            value = secrets.get_secret_value(SecretId=self.outputs["ProviderKeySecret"])
        except secrets.exceptions.ResourceNotFoundException:  # a secret without a value has no version
            return ""
        return str(value.get("SecretString", "")).strip()

    def store_provider_secret(self, text: str) -> None:
        self.client("secretsmanager").put_secret_value(SecretId=self.outputs["ProviderKeySecret"], SecretString=text)

    @cached_property
    def base_url(self) -> str:
        """What the functions take for the API's address."""
        parameter = self.client("ssm").get_parameter(Name=f"/{self.name}/base-url")
        return str(parameter["Parameter"]["Value"]).rstrip("/")

    @cached_property
    def api_address(self) -> str:
        """The API's address, as the template makes it: a domain of its own, or the one that API Gateway gave it."""
        if self.parameters.get("DomainName"):
            return f"https://{self.parameters['DomainName']}"
        region = self.client("apigateway").meta.region_name
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        return f"https://{self.resource('Api')}.execute-api.{region}.{suffix}/live"

    def operate(self, action: str, **more: Any) -> dict[str, Any]:
        """Have OperateTasksFunction do something; returns its answer."""
        function, payload = self.outputs["OperateTasksFunction"], json.dumps({"action": action, **more})
        answer = self.client("lambda", _PATIENT).invoke(FunctionName=function, Payload=payload)
        said: dict[str, Any] = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            refused = said.get("errorType") == "ValueError"
            remedy = "correct the value and retry" if refused else "read the log of OperateTasksFunction"
            raise OperatorError(str(said.get("errorMessage", said)), remedy)
        return said


def explained(trouble: ClientError | BotoCoreError, stack: DeployedStack) -> OperatorError:
    """What an error of AWS means for the operator."""
    if isinstance(trouble, NoRegionError):
        return OperatorError("no AWS region is set", "set AWS_DEFAULT_REGION, or a region in your AWS profile")
    if isinstance(trouble, _NO_CREDENTIALS):
        return OperatorError(f"no AWS credentials: {trouble}", _SIGN_IN)
    if not isinstance(trouble, ClientError):
        return OperatorError(f"AWS cannot be reached: {trouble}", "check the network connection and the region")
    code, message = trouble.response["Error"]["Code"], trouble.response["Error"].get("Message", "")
    if code == "ValidationError" and "does not exist" in message:
        where = f"stack {stack.name} not found in {stack.client('cloudformation').meta.region_name}"
        return OperatorError(where, f"{stack.deploy}, or choose another STAGE, region or profile")
    if code in _EXPIRED:
        return OperatorError(f"AWS rejected your credentials: {message}", _SIGN_IN)
    if code in _DENIED:
        return OperatorError(f"AWS denied access: {message}", "ask for the permission, or use another profile")
    return OperatorError(f"AWS refused {trouble.operation_name}: {code}: {message}", "retry, or read the runbook")
