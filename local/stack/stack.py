"""Start the whole stack on this machine: emulator, template.yaml on it, the Kling simulator, and the front."""

import contextlib
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kling_relay_cli import REPOSITORY, STATE
from kling_relay_cli.operators import delivery_key
from local.cloudwatch.page import OperationsPage
from local.emulator.process import REGION, Emulator, PortInUse
from local.stack import deploy_template, issued_keys, packaging
from local.stack.api_gateway import Front
from local.stack.cloudfront import Edge
from local.stack.gateway_metrics import GatewayMetrics

SIMULATOR_KEY = "kling-simulator-key"
_ACCESS_KEY, _SECRET_KEY = "kling-simulator-access-key", "kling-simulator-secret-key-of-at-least-32-bytes"
# Profile -> the simulator's settings for it, where they differ from the defaults.
SIMULATED: dict[str, dict[str, Any]] = {
    "cometapi-2026-03": {"dynamic_masks": {"cometapi": "object"}},
    "kling-aksk": {"access_key": _ACCESS_KEY, "secret_key": _SECRET_KEY},
    **{name: {"kling_path": name} for name in ("yutoai", "powertokens", "relay")},
}


def simulated_key(provider: str) -> str:
    """Return the credential that the profile `provider` sends to the simulator."""
    return f"{_ACCESS_KEY}:{_SECRET_KEY}" if "access_key" in SIMULATED.get(provider, {}) else SIMULATOR_KEY


@dataclass(frozen=True, slots=True)
class Options:
    """Configure the stack. `upstream` and `key`: a provider other than the simulator.

    `wait_scale` shortens waits and settle windows. `port` is the front's and must be free. `aws_port` is the
    emulator's; any free port if it is 0 or in use.
    """

    port: int = 8080
    aws_port: int = 0
    provider: str = "cometapi"
    upstream: str = ""
    key: str = ""
    wait_scale: float = 1.0
    render_seconds: float = 8.0
    render_size: int = 1280
    allowed_origins: str = ""  # other pages that may call the API: one origin, or "*"
    delivery_key: bool = True  # without one, as in a newly deployed stack, URLs are S3's presigned ones
    state: Path = STATE
    parameters: tuple[tuple[str, str], ...] = ()


class PortTaken(Exception):
    """Another program listens on the port; the text contains the remedy."""


class Stack:
    """Run the stack, as a context manager.

    `say` receives each step; `endpoint` is the content of `.local/endpoint.json`.
    """

    def __init__(self, options: Options, say: Callable[[str], None] = lambda _: None) -> None:
        self.options = options
        self.say = say
        self.endpoint: dict[str, Any] = {}
        self.emulator: Emulator | None = None
        self._simulator: subprocess.Popen[str] | None = None
        self._front: Front | None = None

    def __enter__(self) -> "Stack":
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def check(self) -> None:
        """Raise EmulatorError or DeploymentError if a part of the stack has ended unexpectedly."""
        if self.emulator is not None:
            self.emulator.check()
        if self._simulator is not None and (code := self._simulator.poll()) is not None:
            raise deploy_template.DeploymentError(f"The simulator ended with exit code {code}")

    @property
    def endpoint_file(self) -> Path:
        return self.options.state / "endpoint.json"

    def _start(self) -> None:
        options = self.options
        self._front = self._take_port(options)
        self.say("packing the code and its dependencies (slow only the first time)")
        packaging.dependencies_layer()
        self.say("starting the AWS emulator")
        self.emulator = self._start_emulator(self._front.port)
        upstream, key = options.upstream, options.key
        if not upstream:
            self.say("starting the Kling simulator")
            upstream = self._start_simulator(self._front.port)
            key = simulated_key(options.provider)
        private, public = delivery_key.new_pair() if options.delivery_key else ("", "")
        self.say("deploying template.yaml")
        outputs = deploy_template.deploy(
            self.emulator,
            {
                "Provider": options.provider,
                "KlingBaseUrl": upstream,
                "WaitScale": f"{options.wait_scale:g}",
                "DeliveryKeyA": public,
                "AllowedOrigins": self._front.allowed_origins,
                **dict(options.parameters),
            },
        )
        keys = issued_keys.keys(self.emulator, outputs, options.state / "keys.json")
        api_base = f"{self.emulator.endpoint_url}/_aws/execute-api/{outputs['Api']}/live"
        api_name = self.emulator.client("apigateway").get_rest_api(restApiId=outputs["Api"])["name"]
        figures = GatewayMetrics(self.emulator.client("cloudwatch"), api_name, "live")
        edge = self._edge(self._front.url, outputs["VideoBucket"])
        operations = OperationsPage(self.emulator.client, outputs["OperateTasksFunction"], outputs["Version"])
        self._front.start(api_base, edge, figures, operations)
        self.emulator.client("ssm").put_parameter(
            Name=f"/{deploy_template.STACK_NAME}/base-url", Value=self._front.url, Overwrite=True
        )
        secrets = self.emulator.client("secretsmanager")
        secrets.put_secret_value(SecretId=outputs["ProviderKeySecret"], SecretString=key)
        if private:
            key_pair_id = deploy_template.physical_id(self.emulator, "DeliveryPublicKeyA")
            stored = {"url": self._front.url, "slot": "A", "key_pair_id": key_pair_id, "private_key": private}
            text = delivery_key.secret_text(**stored)
            secrets.put_secret_value(SecretId=outputs["DeliveryKeySecret"], SecretString=text)
        self.endpoint = {
            "api_url": self._front.url,
            "api_key": keys["demo"]["api_key"],
            "access_key": keys["demo"]["access_key"],
            "secret_key": keys["demo"]["secret_key"],
            "second_api_key": keys["second"]["api_key"],
            "input_bucket": outputs["InputBucket"],
            "video_bucket": outputs["VideoBucket"],
            "task_table": outputs["TaskTable"],
            "state_machine_arn": outputs["StateMachineArn"],
            "aws_endpoint_url": self.emulator.endpoint_url,
            "region": REGION,
            "simulator_url": None if options.upstream else upstream,
            "pid": os.getpid(),
        }
        issued_keys.write_private(self.endpoint_file, self.endpoint)

    def stop(self) -> None:
        """End all processes that were started and delete all temporary folders. Safe to repeat."""
        if self.endpoint and self._owns_endpoint_file():
            self.endpoint_file.unlink()
        if self._front is not None:
            self._front.stop()
        if self.emulator is not None:
            self.emulator.stop()
        if self._simulator is not None:
            self._simulator.terminate()
            self._simulator.wait()
        self._front = self.emulator = self._simulator = None

    def _owns_endpoint_file(self) -> bool:
        """Return whether the file still belongs to this stack, and not to a stack started later."""
        with contextlib.suppress(OSError, ValueError):
            found: bool = json.loads(self.endpoint_file.read_text()) == self.endpoint
            return found
        return False

    def _edge(self, url: str, bucket: str) -> Edge:
        """Return a CloudFront at `url` that trusts the keys in the emulator's key groups."""
        if self.emulator is None:
            raise deploy_template.DeploymentError("the emulator is not running")
        cloudfront = self.emulator.client("cloudfront")

        def public_key(key_pair_id: str) -> str | None:
            groups = cloudfront.list_key_groups()["KeyGroupList"].get("Items", [])
            if not any(key_pair_id in one["KeyGroup"]["KeyGroupConfig"]["Items"] for one in groups):
                return None
            found = cloudfront.get_public_key(Id=key_pair_id)["PublicKey"]["PublicKeyConfig"]
            return str(found["EncodedKey"])

        headers = deploy_template.load_template()["Resources"]["DeliveryHeaders"]["Properties"]
        return Edge(url, self.emulator.client("s3"), bucket, public_key, headers["ResponseHeadersPolicyConfig"])

    @staticmethod
    def _take_port(options: Options) -> Front:
        api, port = deploy_template.load_template()["Resources"]["Api"]["Properties"], options.port
        try:
            return Front(port, api["GatewayResponses"], api["Cors"], options.allowed_origins)
        except OSError as exc:
            reason = "is in use by another program" if exc.errno == errno.EADDRINUSE else f"cannot be used ({exc})"
            raise PortTaken(
                f"Port {port} {reason}: choose another port with PORT=8081, or any free one with PORT=0"
            ) from exc

    def _start_emulator(self, front_port: int) -> Emulator:
        log_path = self.options.state / "logs" / "emulator.log"

        def start(port: int) -> Emulator:
            return Emulator(
                log_path=log_path, wait_scale=self.options.wait_scale, port=port, front_port=front_port
            ).start()

        try:
            return start(self.options.aws_port)
        except PortInUse:
            emulator = start(0)
            self.say(f"port {self.options.aws_port} (AWS_PORT) is in use: the emulator listens on {emulator.port}")
            return emulator

    def _start_simulator(self, front_port: int) -> str:
        command = [sys.executable, "-m", "local.simulator", "--key", SIMULATOR_KEY, "--front-port", str(front_port)]
        command += ["--render-seconds", f"{self.options.render_seconds:g}"]
        command += ["--render-size", str(self.options.render_size)]
        command += ["--account", json.dumps(SIMULATED.get(self.options.provider, {}))]
        self._simulator = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        if self._simulator.stdout is None:
            raise deploy_template.DeploymentError("the simulator has no standard output")
        line = self._simulator.stdout.readline()
        if not line:
            raise deploy_template.DeploymentError("the simulator did not start: see its error above")
        url: str = json.loads(line)["url"]
        return url
