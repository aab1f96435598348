"""Start a whole local stack that plays the deployed one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kling_relay_cli.operators import smoke
from kling_relay_cli.operators.stack import DeployedStack
from local.stack import deploy_template
from local.stack.stack import Options, Stack
from tests.deployed.operator import STAGE


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    options = Options(
        port=0, wait_scale=0.05, render_seconds=0.5, render_size=160, state=tmp_path_factory.mktemp("state")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy_template, "STACK_NAME", f"kling-relay-{STAGE}")
        with Stack(options) as stack:
            yield stack


@pytest.fixture
def aws(running: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stack:
    """The operator's AWS settings lead to the local stack, whose front is API Gateway and CloudFront in one."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint["aws_endpoint_url"])
    for name in ("api_address", "delivery_url"):
        monkeypatch.setattr(DeployedStack, name, running.endpoint["api_url"])
    monkeypatch.setattr(smoke, "STATE", tmp_path)
    return running


@pytest.fixture
def restored_key(aws: Stack) -> Iterator[None]:
    secrets, name = DeployedStack(STAGE).client("secretsmanager"), DeployedStack(STAGE).outputs["ProviderKeySecret"]
    before = secrets.get_secret_value(SecretId=name)["SecretString"]
    yield
    secrets.put_secret_value(SecretId=name, SecretString=before)
