"""Deploy template.yaml to the emulator: the resources, handlers and state machine that `sam deploy` sends to AWS."""

import json
import time
from functools import cache
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from kling_relay_cli import REPOSITORY
from local.emulator.process import Emulator
from local.stack import packaging

STACK_NAME = "kling-relay-local"
_ARTIFACTS = "kling-relay-artifacts"
_DEPLOY_SECONDS = 120.0

# Types that the emulator lacks, and the effect on the laptop. No other type is ever left out.
DROPPED: dict[str, str] = {}


class DeploymentError(Exception):
    """The stack's deployment failed; the text has the emulator's own reasons."""


def load_template() -> dict[str, Any]:
    """Return template.yaml with CloudFormation's short forms (!Ref ...) expanded."""
    template: dict[str, Any] = json.loads(_template())
    return template


@cache
def _template() -> str:
    """Return the template as JSON. Parsing the YAML takes half a second, and each caller may change its own copy."""
    return json.dumps(yaml_parse((REPOSITORY / "template.yaml").read_text()))


def without_dropped(template: dict[str, Any]) -> dict[str, Any]:
    """Return the template without the resources whose types are in DROPPED."""
    kept = {name: r for name, r in template["Resources"].items() if r["Type"] not in DROPPED}
    return {**template, "Resources": kept}


def deploy(emulator: Emulator, parameters: dict[str, str]) -> dict[str, str]:
    """Create the stack and wait for it. Return its outputs, including `Api`, the API's id."""
    template = without_dropped(load_template())
    _upload_code(emulator, template)
    _upload(emulator.client("s3"), "template.json", json.dumps(template).encode())
    cloudformation = emulator.client("cloudformation")
    cloudformation.create_stack(
        StackName=STACK_NAME,
        TemplateURL=f"{emulator.endpoint_url}/{_ARTIFACTS}/template.json",  # larger than the limit of a request body
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    ends_at = time.monotonic() + _DEPLOY_SECONDS
    while time.monotonic() < ends_at:
        stack = cloudformation.describe_stacks(StackName=STACK_NAME)["Stacks"][0]
        if stack["StackStatus"] == "CREATE_COMPLETE":
            outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
            return {**outputs, "Api": physical_id(emulator, "Api")}
        if not stack["StackStatus"].endswith("IN_PROGRESS") or "ROLLBACK" in stack["StackStatus"]:
            break
        time.sleep(0.05)
    raise DeploymentError("\n".join(["The deployment of the stack failed:", *_reasons(cloudformation)]))


def physical_id(emulator: Emulator, logical_id: str) -> str:
    described = emulator.client("cloudformation").describe_stack_resource(
        StackName=STACK_NAME, LogicalResourceId=logical_id
    )
    return str(described["StackResourceDetail"]["PhysicalResourceId"])


def _upload_code(emulator: Emulator, template: dict[str, Any]) -> None:
    """Upload code and definition to the places that CloudFormation reads, and reference them in the template."""
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket=_ARTIFACTS)
    layers = {"DependenciesLayer": packaging.dependencies_layer, "RelayLayer": packaging.relay_layer}
    for name, resource in template["Resources"].items():
        properties, folder = resource.get("Properties", {}), REPOSITORY
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            properties["ContentUri"] = _upload(s3, f"{name}.zip", layers[name]())
        elif resource["Type"] == "AWS::Serverless::Function":
            code = packaging.zip_folder(folder / properties["CodeUri"])
            properties["CodeUri"] = _upload(s3, f"{name}.zip", code)
        elif resource["Type"] == "AWS::Serverless::StateMachine":
            definition = (folder / properties["DefinitionUri"]).read_bytes()
            properties["DefinitionUri"] = _upload(s3, f"{name}.asl.yaml", definition)


def _upload(s3: Any, key: str, body: bytes) -> str:
    s3.put_object(Bucket=_ARTIFACTS, Key=key, Body=body)
    return f"s3://{_ARTIFACTS}/{key}"


def _reasons(cloudformation: Any) -> list[str]:
    events = cloudformation.describe_stack_events(StackName=STACK_NAME)["StackEvents"]
    failed = [event for event in events if "FAILED" in event["ResourceStatus"]]
    return [f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}" for event in failed]
