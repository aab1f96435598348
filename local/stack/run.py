"""Run the stack on this machine (`make serve`), and turn a sample image into a video in it (`make run`).

Variables: PORT, AWS_PORT, PROVIDER, KLING_BASE_URL, KLING_API_KEY, WAIT_SCALE; for the sample IMAGE, PROMPT, ONCE; for
the simulator RENDER_SECONDS (8). ALLOW_LOCAL_WEBHOOKS=1: webhooks may go to receivers on this machine. ALLOWED_ORIGINS:
one origin, or *, whose pages may call the API too. KLING_RELAY_STATE: the folder for endpoint.json, logs and finished
videos instead of `.local`; a second stack next to the first one needs it.
"""

import argparse
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import requests

from kling_relay_cli import REPOSITORY, STATE, image_file
from kling_relay_cli.api_client import Client, ClientError
from local.emulator.process import EmulatorError
from local.stack import deploy_template, packaging
from local.stack.deploy_template import DeploymentError
from local.stack.stack import Options, PortTaken, Stack

_FORESEEN = (
    ClientError,
    DeploymentError,
    EmulatorError,
    PortTaken,
    packaging.PackagingError,
    image_file.ImageFileError,
)
_BAR = 30
_LOOK_SECONDS = 0.2


class Console:
    """Print lines with the time since the start; on a terminal also a progress bar and colours."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._live = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._open_bar = False

    def say(self, text: str) -> None:
        self._end_bar()
        stamp = f"{time.monotonic() - self._began:6.1f} s"
        print(f"\033[2m{stamp}\033[0m  {text}" if self._live else f"{stamp}  {text}", flush=True)

    def bar(self, part: float) -> None:
        if self._live:
            full = round(part * _BAR)
            print(f"\r          [{'█' * full}{'·' * (_BAR - full)}] {part:4.0%}", end="", flush=True)
            self._open_bar = True

    def _end_bar(self) -> None:
        if self._open_bar:
            print("\r\033[K", end="")
            self._open_bar = False


def options_from(environment: dict[str, str]) -> Options:
    """Return the stack's options from the Makefile's variables; raise SystemExit with the correction."""
    upstream, key = environment.get("KLING_BASE_URL", "").rstrip("/"), environment.get("KLING_API_KEY", "")
    if upstream and not key:
        raise SystemExit("KLING_API_KEY: required with KLING_BASE_URL (got none): set the provider's key")
    provider, wait_scale = environment.get("PROVIDER") or "cometapi", environment.get("WAIT_SCALE") or "1"
    _check_parameter("PROVIDER", "Provider", provider)
    _check_parameter("KLING_BASE_URL", "KlingBaseUrl", upstream)
    _check_parameter("WAIT_SCALE", "WaitScale", wait_scale)
    allowed_origins = environment.get("ALLOWED_ORIGINS", "")
    if allowed_origins:
        _check_parameter("ALLOWED_ORIGINS", "AllowedOrigins", allowed_origins)
    return Options(
        port=int(_number(environment, "PORT", "8080", maximum=65535, whole=True)),
        aws_port=int(_number(environment, "AWS_PORT", "4566", maximum=65535, whole=True)),
        provider=provider,
        upstream=upstream,
        key=key,
        wait_scale=float(wait_scale),
        allowed_origins=allowed_origins,
        render_seconds=_number(environment, "RENDER_SECONDS", "8", maximum=3600),
        state=Path(environment.get("KLING_RELAY_STATE") or STATE).absolute(),
    )


def _check_parameter(variable: str, name: str, value: str) -> None:
    """Check the variable against the template's rules for its parameter `name`."""
    rule = deploy_template.load_template()["Parameters"][name]
    if value not in rule.get("AllowedValues", [value]):
        raise SystemExit(f"{variable}: must be one of {', '.join(rule['AllowedValues'])} (got {value})")
    if not re.fullmatch(rule.get("AllowedPattern", ".*"), value):
        raise SystemExit(f"{variable}: must match {rule['AllowedPattern']} (got {value!r}). {rule['Description']}")


def _number(environment: dict[str, str], name: str, default: str, *, maximum: int, whole: bool = False) -> float:
    text = environment.get(name) or default
    if not re.fullmatch(r"\d+" if whole else r"\d+(\.\d*)?|\.\d+", text) or float(text) > maximum:
        raise SystemExit(f"{name}: must be a {'whole ' if whole else ''}number from 0 to {maximum} (got {text})")
    return float(text)


def send_sample(stack: Stack, console: Console, image: Path, prompt: str) -> Path:
    """Send one image through the stack and print each step of its life; return the path of the finished video."""
    endpoint = stack.endpoint
    api = Client(endpoint["api_url"], endpoint["api_key"], direct=True)
    body = {"image": image_file.as_base64(image), "prompt": prompt, "model_name": "kling-v2-6", "duration": "5"}
    console.say(f"POST {api.videos}/image2video  ({image.name}, {prompt!r})")
    task = api.send("image2video", body)
    progress = Progress(stack, console, task["task_id"])
    simulator = requests.Session()
    simulator.trust_env = False

    def look(task: dict[str, Any]) -> None:
        progress.look(*_rendering(simulator, endpoint["simulator_url"], task["task_id"]))

    task = api.follow("image2video", task, look, every=_LOOK_SECONDS)
    console.say("succeed     downloading the video like a client")
    return api.download(task, stack.options.state / "videos" / f"{task['task_id']}.mp4")


class Progress:
    """Print each step of a task's life once, from its row: clients see fewer steps."""

    def __init__(self, stack: Stack, console: Console, task_id: str) -> None:
        if stack.emulator is None:
            raise EmulatorError("the emulator is not running")
        self._dynamodb = stack.emulator.client("dynamodb")
        self._endpoint, self._console, self._task_id = stack.endpoint, console, task_id
        self._printed: set[str] = set()

    def look(self, rendering: bool, part: float) -> None:
        """Print new steps.

        `rendering`, `part` (0..1): the simulator's state, which is ahead of the relay's last query.
        """
        key = {"pk": {"S": f"task#{self._task_id}"}}
        item = self._dynamodb.get_item(TableName=self._endpoint["task_table"], Key=key, ConsistentRead=True)["Item"]
        row = {name: next(iter(value.values())) for name, value in item.items()}
        phase, bucket = row["phase"], self._endpoint["video_bucket"]
        self._print_step("accepted", f"task {self._task_id} is recorded")
        if phase in ("accepted", "unconfirmed") and row.get("waits_for"):
            self._print_step("waiting", row["waits_for"])
        if "upstream_id" in row:
            self._print_step("submitted", f"the provider accepted it as task {row['upstream_id']}")
        if phase == "processing" or rendering:
            self._print_step("processing", "the provider is rendering")
        if "rendered_at" in row:
            self._print_step("rendered", "the provider has finished; copying the video")
        if phase == "succeeded":
            self._print_step("copied", f"to s3://{bucket}/videos/.../{self._task_id}/, verified complete")
        if rendering:
            self._console.bar(part)

    def _print_step(self, step: str, text: str) -> None:
        if (line := f"{step:<10}  {text}") not in self._printed:
            self._printed.add(line)
            self._console.say(line)


def _rendering(session: requests.Session, simulator_url: str | None, task_id: str) -> tuple[bool, float]:
    """Return whether the simulator is rendering the task, and its progress; other providers do not report it."""
    answer = session.get(f"{simulator_url}/_sim/tasks/{task_id}", timeout=5) if simulator_url else None
    state = answer.json() if answer is not None and answer.ok else {}
    return state.get("status") == "processing", float(state.get("progress", 0))


def curl_lines(endpoint: dict[str, Any], task_id: str) -> list[str]:
    """Return example commands for any POSIX shell, to run in the repository's folder."""
    base, key = (
        f"{endpoint['api_url']}/kling/v1/videos/image2video",
        f"-H 'Authorization: Bearer {endpoint['api_key']}'",
    )
    post = f"curl -s {base} {key} -H 'Content-Type: application/json' -d"
    by_address = """'{"image":"https://example.com/cat.jpg","prompt":"the cat looks up"}'"""
    inline = """printf '{"image":"%s"}' "$(base64 < local/stack/sample.jpg | tr -d '\\n')" """
    return [f"curl -s {base}/{task_id} {key}", f"{post} {by_address}", f"{inline}| {post} @-"]


def _run(serve: bool, once: bool, console: Console, ended: threading.Event) -> None:
    image = Path(os.environ.get("IMAGE") or REPOSITORY / "local/stack/sample.jpg")
    prompt = os.environ.get("PROMPT") or "the sun goes down behind the mountains"
    if not serve:
        image_file.as_base64(image)  # refuses an unusable picture before the stack starts
    with Stack(options_from(dict(os.environ)), console.say) as stack:
        try:
            console.say(f"ready: {stack.endpoint['api_url']}  (keys and names: {stack.endpoint_file})")
            lines = curl_lines(stack.endpoint, "TASK_ID")
            if not serve:
                path = send_sample(stack, console, image, prompt)
                print(f"video: {path}", flush=True)
                lines = curl_lines(stack.endpoint, path.stem)
            if serve or not once:
                print("\n".join(["", "Try it yourself, in another terminal:", *lines, ""]), flush=True)
                console.say(f"dashboard: {stack.endpoint['api_url']}/operations")
                console.say("serving until Ctrl-C")
                while not ended.wait(1):
                    stack.check()
        finally:
            ended.set()  # from here on the stack is stopped, and no signal interrupts that


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.stack.run", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="run the stack without the sample")
    serve = parser.parse_args().serve
    console, ended = Console(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _end(ended))
    try:
        _run(serve, os.environ.get("ONCE") == "1", console, ended)
    except SystemExit as end:
        if end.code == 0:
            console.say("stopped")
        raise
    except (*_FORESEEN, OSError) as exc:
        raise SystemExit(f"{exc}") from exc


def _end(ended: threading.Event) -> None:
    """End the stack in order on the first signal, at any time; ignore further signals meanwhile."""
    if not ended.is_set():
        ended.set()
        raise SystemExit(0)


if __name__ == "__main__":
    main()
