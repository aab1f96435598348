"""Play an operator: run commands, type input, inspect the stack."""

import io

import pytest

from kling_relay_cli import commands
from kling_relay_cli.api_client import Client
from kling_relay_cli.operators import doctor
from kling_relay_cli.operators.stack import DeployedStack
from local.stack.stack import Stack

STAGE = "test"


def run(*arguments: str) -> int:
    return commands.main([*arguments, "--stage", STAGE])


def typed(monkeypatch: pytest.MonkeyPatch, text: str, *, terminal: bool = False) -> None:
    stream = io.StringIO(text)
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("sys.stdin", stream)


def stored_key() -> str:
    stack = DeployedStack(STAGE)
    secrets = stack.client("secretsmanager")
    value: str = secrets.get_secret_value(SecretId=stack.outputs["ProviderKeySecret"])["SecretString"]
    return value


def problems() -> dict[str, doctor.Finding]:
    return {finding.check: finding for finding in doctor.examine(DeployedStack(STAGE)) if finding.problem}


def client(stack: Stack, tenant: str) -> Client:
    return Client(stack.endpoint["api_url"], DeployedStack(STAGE).operate("create_key", tenant=tenant)["api_key"])
