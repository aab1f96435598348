"""Measure warm invocations: the CPU of a handler against the bare network calls that it has to make.

A real stack answers once. Its answers are then replayed over loopback, and only the handler's process is measured.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from bench import built
from bench.ratio import Ratio, compared
from kling_relay_cli import REPOSITORY
from kling_relay_cli.api_client import Client
from local.stack import deploy_template
from local.stack.stack import Options, Stack

_ROUNDS = 15
_KIND = "text2video"
_BODY = {"model_name": "kling-v3", "prompt": "the cat looks up", "mode": "std", "duration": "5"}


def measure() -> Iterator[Ratio]:
    with (
        tempfile.TemporaryDirectory() as state,
        Stack(Options(port=0, render_seconds=1, render_size=160, state=Path(state))) as stack,
    ):
        requests.post(f"{stack.endpoint['simulator_url']}/_sim/faults", json={"callbacks": "lost"}, timeout=10)
        api = Client(stack.endpoint["api_url"], stack.endpoint["api_key"], direct=True)
        for name, function, events in (
            ("warm_submit", "TaskApiFunction", [_request(stack, "POST", "", json.dumps(_BODY))] * 3),
            ("warm_query", "TaskApiFunction", [_request(stack, "GET", f"/{_task(api)}")] * 3),
            ("warm_callback", "KlingCallbackFunction", _callbacks(stack, [_task(api) for _ in range(3)])),
        ):
            result = _invoked(stack, function, events)
            ours = [one[1] * 1000 for one in result]
            before, after = ([one[side] * 1000 for one in result] for side in (0, 2))
            yield compared(name, ours, [sum(pair) / 2 for pair in zip(before, after, strict=True)], "ms CPU")
            yield compared(f"{name}_control", after, before, "ms CPU")


def _task(api: Client) -> str:
    return str(api.send(_KIND, _BODY)["task_id"])


def _request(stack: Stack, method: str, rest: str, body: str | None = None) -> dict[str, Any]:
    return {
        "httpMethod": method,
        "path": f"/kling/v1/videos/{_KIND}{rest}",
        "headers": {"Authorization": f"Bearer {stack.endpoint['api_key']}", "Content-Type": "application/json"},
        "body": body,
        "isBase64Encoded": False,
        "requestContext": {"requestId": "warm"},
    }


def _callbacks(stack: Stack, tasks: list[str]) -> list[dict[str, Any]]:
    """Return the callbacks of tasks that have ended at the provider.

    The provider's own callbacks are lost: ours still wait.
    """
    events = []
    for task in tasks:
        url = f"{stack.endpoint['simulator_url']}/_sim/tasks/{task}"
        while (sold := requests.get(url, timeout=10).json())["status"] != "succeed":
            time.sleep(0.2)
        task_id, token = sold["callback_url"].split("/")[-2:]
        body = json.dumps({"task_id": sold["task_id"], "task_status": "succeed", "task_status_msg": ""})
        event = {"httpMethod": "POST", "pathParameters": {"task_id": task_id, "token": token}, "headers": {}}
        events.append({**event, "body": body, "isBase64Encoded": False})
    return events


@contextmanager
def _replaying(aws: str, provider: str) -> Iterator[str]:
    command = [sys.executable, "-m", "bench.replay", aws, provider]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip() if process.stdout else ""
        finally:
            process.kill()


def _invoked(stack: Stack, function: str, events: list[dict[str, Any]]) -> list[tuple[float, float, float]]:
    """Return the CPU seconds of the bare calls, of ours, and of the bare calls again, block by block."""
    if stack.emulator is None:
        raise deploy_template.DeploymentError("the emulator is not running")
    name = deploy_template.physical_id(stack.emulator, function)
    configuration = stack.emulator.client("lambda").get_function_configuration(FunctionName=name)
    folder = {"TaskApiFunction": "task_api", "KlingCallbackFunction": "kling_callback"}[function]
    with _replaying(stack.emulator.endpoint_url, stack.endpoint["simulator_url"]) as url:
        environment = {
            **configuration["Environment"]["Variables"],
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(map(str, [built.function(folder), *built.layers()])),
            "AWS_ENDPOINT_URL": url,
            "AWS_DEFAULT_REGION": stack.endpoint["region"],
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",  # nosec B105
            "KLING_BASE_URL": f"{url}/provider",
        }
        given = json.dumps({"warming": events[:-1], "event": events[-1], "rounds": _ROUNDS})
        command = [sys.executable, "-S", str(Path(__file__).with_name("invocations.py"))]
        done = subprocess.run(command, env=environment, input=given, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{function}: {done.stderr}")
        result = json.loads(done.stdout)
    print(f"  {len(result['calls'])} calls: {', '.join(result['calls'])}", file=sys.stderr)
    return [tuple(one) for one in result["measured"]]
