"""A deployed stack, read through CloudFormation with the operator's own AWS credentials."""

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

from kling_relay_cli import IN_CHECKOUT
from kling_relay_cli.errors import CommandError
from kling_relay_cli.operators import provider_secret

# An action takes as long as its function (five minutes). No retry: a second invocation would repeat the action.
_ONE_LONG_ATTEMPT = Config(read_timeout=310, tcp_keepalive=True, retries={"mode": "standard", "total_max_attempts": 1})
_SIGN_IN = "sign in (`aws sso login`, `aws configure`) or name a profile (AWS_PROFILE=...)"
_NO_CREDENTIALS = (
    *(CredentialRetrievalError, NoCredentialsError, PartialCredentialsError),
    *(ProfileNotFound, SSOError, TokenRetrievalError),
)
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"}
_DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"}


def next_command(stage: str, command: str, **options: str) -> str:
    """Return the line that runs `command`: with make in a checkout, with `kling-relay` in an installed copy."""
    given = {"stage": stage, **options}
    if IN_CHECKOUT:
        return " ".join(("make", command, *(f"{name.upper()}={value}" for name, value in given.items())))
    return " ".join(("kling-relay", command, *(f"--{name} {value}" for name, value in given.items())))


class DeployedStack:
    """The stack `kling-relay-{stage}`. Each value is read when it is first used. boto3 reads AWS_ENDPOINT_URL."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.name = f"kling-relay-{stage}"
        self.deploy = f"make deploy STAGE={stage}"

    def command(self, name: str, **options: str) -> str:
        """Return the line that runs another command on this stack."""
        return next_command(self.stage, name, **options)

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
            raise CommandError(f"stack {self.name}: not complete (status {self.described['StackStatus']})", self.deploy)
        return found

    @property
    def parameters(self) -> dict[str, str]:
        return {p["ParameterKey"]: p.get("ParameterValue", "") for p in self.described.get("Parameters", [])}

    @property
    def account(self) -> str:
        """The provider account of new tasks, under the name that the functions use."""
        given = self.parameters
        name, label = given.get("Provider") or Settings().provider, given.get("ProviderAccount") or "1"
        return str(Account(name, profile(name, given.get("KlingBaseUrl", "")).base_url, label))

    def forget(self) -> None:
        """Discard the cached description, after an update."""
        for name in ("described", "outputs"):
            self.__dict__.pop(name, None)

    @property
    def delivery_url(self) -> str:
        """The distribution's URL; empty without a delivery key."""
        return self.outputs.get("DeliveryUrl", "")

    def resource(self, logical_id: str) -> str:
        """Return the physical id of a resource."""
        answer = self.client("cloudformation").describe_stack_resource(
            StackName=self.name, LogicalResourceId=logical_id
        )
        return str(answer["StackResourceDetail"]["PhysicalResourceId"])

    def has_provider_key(self) -> bool:
        return provider_secret.holds_key(self.provider_secret(), self.account)

    def provider_secret(self) -> str:
        """Return the stored secret of the provider, "" if none is stored."""
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
        """The base URL that the functions use (SSM parameter)."""
        parameter = self.client("ssm").get_parameter(Name=f"/{self.name}/base-url")
        return str(parameter["Parameter"]["Value"]).rstrip("/")

    @cached_property
    def api_address(self) -> str:
        """The API's URL: its custom domain, or the one of API Gateway."""
        if self.parameters.get("DomainName"):
            return f"https://{self.parameters['DomainName']}"
        region = self.client("apigateway").meta.region_name
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        return f"https://{self.resource('Api')}.execute-api.{region}.{suffix}/live"

    def operate(self, action: str, **fields: Any) -> dict[str, Any]:
        """Invoke OperateTasksFunction with an action; return its response."""
        function, payload = self.outputs["OperateTasksFunction"], json.dumps({"action": action, **fields})
        response = self.client("lambda", _ONE_LONG_ATTEMPT).invoke(FunctionName=function, Payload=payload)
        body: dict[str, Any] = json.loads(response["Payload"].read())
        if "FunctionError" in response:
            invalid = body.get("errorType") == "ValueError"
            remedy = "correct the value and try again" if invalid else "read the log of OperateTasksFunction"
            raise CommandError(str(body.get("errorMessage", body)), remedy)
        return body


def explained(error: ClientError | BotoCoreError, stack: DeployedStack) -> CommandError:
    """Return an error of AWS with its meaning and remedy for the operator."""
    if isinstance(error, NoRegionError):
        return CommandError("AWS region: not set", "set AWS_DEFAULT_REGION, or a region in your AWS profile")
    if isinstance(error, _NO_CREDENTIALS):
        return CommandError(f"AWS credentials: not usable ({error})", _SIGN_IN)
    if not isinstance(error, ClientError):
        return CommandError(f"AWS: no connection ({error})", "check the network and the region")
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    if code == "ValidationError" and "does not exist" in message:
        region = stack.client("cloudformation").meta.region_name
        return CommandError(
            f"stack {stack.name}: not found in {region}", f"{stack.deploy}, or choose another stage, region or profile"
        )
    if code in _EXPIRED:
        return CommandError(f"AWS credentials: rejected ({message})", _SIGN_IN)
    if code in _DENIED:
        return CommandError(f"AWS permissions: denied ({message})", "get the permission, or use another profile")
    return CommandError(f"AWS {error.operation_name}: failed ({code}: {message})", "try again; see docs/runbook.md")
