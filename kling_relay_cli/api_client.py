"""A client of the API: send a task, follow it, download its video."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import requests

TIMEOUT_SECONDS = 1800.0


class ClientError(Exception):
    """A request or a task failed; the text contains the response of the API."""


class Client:
    """`api_url`: the part before /kling/v1. `direct`: ignore the environment's proxies, which cannot reach loopback."""

    def __init__(self, api_url: str, api_key: str, *, direct: bool = False) -> None:
        self.videos = f"{api_url}/kling/v1/videos"
        self._session = requests.Session()
        self._session.trust_env = not direct
        self._session.headers["Authorization"] = f"Bearer {api_key}"

    def send(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create a task. Never retried, because each one costs money."""
        return self._data(lambda: self._session.post(f"{self.videos}/{kind}", json=body, timeout=60))

    def query(self, kind: str, task_id: str) -> dict[str, Any]:
        return self._data(lambda: self._session.get(f"{self.videos}/{kind}/{task_id}", timeout=30))

    def follow(
        self, kind: str, task: dict[str, Any], on_response: Callable[[dict[str, Any]], None], every: float = 5.0
    ) -> dict[str, Any]:
        """Query the task until it ends, and pass each response to `on_response`; return the last one.

        Raises ClientError if the task fails, after five failed queries in a row, or after half an hour.
        """
        ends_at, failed_queries = time.monotonic() + TIMEOUT_SECONDS, 0
        on_response(task)
        while task["task_status"] not in ("succeed", "failed"):
            if time.monotonic() > ends_at:
                url = f"{self.videos}/{kind}/{task['task_id']}"
                raise ClientError(f"task: not finished after {TIMEOUT_SECONDS:.0f} s; it is still running: GET {url}")
            time.sleep(every)
            try:
                task, failed_queries = self.query(kind, task["task_id"]), 0
            except ClientError:
                failed_queries += 1
                if failed_queries == 5:
                    raise
            on_response(task)
        if task["task_status"] == "failed":
            raise ClientError(f"task: failed ({task['task_status_msg'] or 'no reason given'})")
        return task

    def download(self, task: dict[str, Any], path: Path) -> Path:
        """Write the task's first video to `path`. The URL is signed, so the request has no Authorization header."""
        path.parent.mkdir(parents=True, exist_ok=True)
        url = task["task_result"]["videos"][0]["url"]
        try:
            with self._session.get(url, stream=True, timeout=60, headers={"Authorization": None}) as response:
                response.raise_for_status()
                with path.open("wb") as file:
                    shutil.copyfileobj(response.raw, file)
                expected = response.headers.get("Content-Length")
        except requests.RequestException as exc:
            raise ClientError(f"video: download failed ({type(exc).__name__})") from exc
        if expected is not None and int(expected) != path.stat().st_size:
            raise ClientError(f"video: incomplete (got {path.stat().st_size} of {expected} bytes)")
        return path

    def _data(self, call: Callable[[], requests.Response]) -> dict[str, Any]:
        try:
            response = call()
            body = response.json()
        except requests.JSONDecodeError:
            raise ClientError(f"HTTP {response.status_code}: the response is not JSON") from None
        except requests.RequestException as exc:
            raise ClientError(f"{self.videos}: no connection ({type(exc).__name__})") from exc
        if response.status_code != 200:
            raise ClientError(f"HTTP {response.status_code}, code {body.get('code')}: {body.get('message')}")
        data: dict[str, Any] = body["data"]
        return data


def seconds_of_video(path: Path) -> float:
    """Decode every frame and return the duration of the video. Raises ClientError for an invalid file."""
    try:
        with av.open(str(path)) as container:
            frames, rate = sum(1 for _ in container.decode(video=0)), container.streams.video[0].average_rate
    except (av.FFmpegError, IndexError) as exc:
        raise ClientError(f"{path}: not a playable video ({exc})") from exc
    if not frames or not rate:
        raise ClientError(f"{path}: the video has no frames")
    return float(frames / rate)
