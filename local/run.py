"""`make run` and `make serve`: the stack on this machine, and a sample image that becomes a video in it."""

import argparse
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import requests

from local import packaging, picture
from local.deployment import DeploymentError
from local.emulator import EmulatorError
from local.stack import Options, Stack

_GIVE_UP_SECONDS = 1800.0
_BAR = 30


class Console:
    """Lines with the time since the start; a bar that moves only on a terminal; colours only there too."""

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
    """The stack's options from the variables that the Makefile passes on; raises SystemExit with what to correct."""
    upstream, key = environment.get("KLING_BASE_URL", ""), environment.get("KLING_API_KEY", "")
    if upstream and not key:
        raise SystemExit("KLING_BASE_URL is given without KLING_API_KEY: say which key to use there")
    try:
        return Options(
            port=int(environment.get("PORT") or 8080),
            provider=environment.get("PROVIDER") or "cometapi",
            upstream=upstream.rstrip("/"),
            key=key,
            wait_scale=float(environment.get("WAIT_SCALE") or 1),
            render_seconds=float(environment.get("RENDER_SECONDS") or 8),
        )
    except ValueError as exc:
        raise SystemExit(f"PORT, WAIT_SCALE and RENDER_SECONDS are numbers: {exc}") from exc


def send_sample(stack: Stack, console: Console, image: Path, prompt: str) -> Path:
    """Send one image through the stack, telling each step of its life; returns the path of the finished video."""
    endpoint = stack.endpoint
    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {endpoint['api_key']}"
    videos = f"{endpoint['api_url']}/kling/v1/videos/image2video"
    body = {"image": picture.as_base64(image), "prompt": prompt, "model_name": "kling-v2-6", "duration": "5"}
    console.say(f"POST {videos}  ({image.name}, {prompt!r})")
    task = _data(session.post(videos, json=body, timeout=60))
    task_id = task["task_id"]
    console.say(f"{task['task_status']:<10}  task {task_id}")
    shown, ends_at = task["task_status"], time.monotonic() + _GIVE_UP_SECONDS
    while task["task_status"] not in ("succeed", "failed"):
        if time.monotonic() > ends_at:
            raise SystemExit(
                f"The task is not finished after {_GIVE_UP_SECONDS:.0f} s; it goes on: GET {videos}/{task_id}"
            )
        time.sleep(0.3)
        task = _data(session.get(f"{videos}/{task_id}", timeout=30))
        if task["task_status"] != shown:
            shown = task["task_status"]
            console.say(f"{shown:<10}  {task['task_status_msg'] or _meaning(shown)}")
        elif endpoint["simulator_url"]:
            console.bar(_progress(session, endpoint["simulator_url"], task_id))
    if task["task_status"] == "failed":
        raise SystemExit(f"The task failed: {task['task_status_msg']}")
    return _download(session, task, packaging.STATE / "videos" / f"{task_id}.mp4")


def _meaning(status: str) -> str:
    return {"processing": "the provider is rendering", "succeed": "the video is in S3, whole"}.get(status, "")


def _data(response: requests.Response) -> dict[str, Any]:
    answer: dict[str, Any] = response.json()
    if response.status_code != 200:
        raise SystemExit(f"HTTP {response.status_code}, code {answer.get('code')}: {answer.get('message')}")
    data: dict[str, Any] = answer["data"]
    return data


def _progress(session: requests.Session, simulator_url: str, task_id: str) -> float:
    answer = session.get(f"{simulator_url}/_sim/tasks/{task_id}", timeout=5)
    return float(answer.json().get("progress", 0)) if answer.ok else 0.0


def _download(session: requests.Session, task: dict[str, Any], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without our own Authorization header: the URL is signed, and S3 refuses two kinds of authorisation at once.
    url = task["task_result"]["videos"][0]["url"]
    with session.get(url, stream=True, timeout=60, headers={"Authorization": None}) as response:
        response.raise_for_status()
        with path.open("wb") as file:
            shutil.copyfileobj(response.raw, file)
    return path


def _curl_lines(endpoint: dict[str, Any], task_id: str) -> list[str]:
    base, key = f"{endpoint['api_url']}/kling/v1/videos", f"-H 'Authorization: Bearer {endpoint['api_key']}'"
    json_type = "-H 'Content-Type: application/json'"
    send = """'{"image":"https://example.com/cat.jpg","prompt":"the cat looks up"}'"""
    inline = """sed "s|.*|{\\"image\\":\\"$(base64 < local/sample.jpg | tr -d '\\n')\\"}|" <<< x"""
    return [
        f"curl -s {base}/image2video/{task_id} {key}",
        f"curl -s {base}/image2video {key} {json_type} -d {send}",
        f"{inline} | curl -s {base}/image2video {key} {json_type} -d @-",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.run", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="no sample: only the stack")
    serve = parser.parse_args().serve
    console, ended = Console(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _end(ended))
    try:
        with Stack(options_from(dict(os.environ)), console.say) as stack:
            console.say(f"ready: {stack.endpoint['api_url']}  (details in .local/endpoint.json)")
            if not serve:
                image = Path(os.environ.get("IMAGE") or packaging.REPOSITORY / "local/sample.jpg")
                prompt = os.environ.get("PROMPT") or "the sun goes down behind the mountains"
                path = send_sample(stack, console, image, prompt)
                print(f"video: {path}", flush=True)
                print("\n".join(["", "Try it yourself:", *_curl_lines(stack.endpoint, path.stem), ""]), flush=True)
            if serve or os.environ.get("ONCE") != "1":
                console.say("serving until Ctrl-C")
                while not ended.wait(1):
                    if stack.emulator is not None:
                        stack.emulator.check()
    except (DeploymentError, EmulatorError, packaging.PackagingError, picture.PictureError, OSError) as exc:
        raise SystemExit(f"{exc}") from exc


def _end(ended: threading.Event) -> None:
    """The first signal ends the stack in order, whatever it is doing."""
    if not ended.is_set():
        ended.set()
        raise SystemExit(0)


if __name__ == "__main__":
    main()
