"""A client of the API, and of nothing else: send a task, follow it, download its video."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import requests

GIVE_UP_SECONDS = 1800.0


class ClientError(Exception):
    """The API, or the task, did not do what was asked for; the text says what it said."""


class Client:
    """`api_url`: the part before /kling/v1. `direct`: past the environment's proxies, which know no loopback."""

    def __init__(self, api_url: str, api_key: str, *, direct: bool = False) -> None:
        self.videos = f"{api_url}/kling/v1/videos"
        self._session = requests.Session()
        self._session.trust_env = not direct
        self._session.headers["Authorization"] = f"Bearer {api_key}"

    def send(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make a task; never repeated, since each one is paid for."""
        return self._data(lambda: self._session.post(f"{self.videos}/{kind}", json=body, timeout=60))

    def query(self, kind: str, task_id: str) -> dict[str, Any]:
        return self._data(lambda: self._session.get(f"{self.videos}/{kind}/{task_id}", timeout=30))

    def follow(
        self, kind: str, task: dict[str, Any], look: Callable[[dict[str, Any]], None], every: float = 5.0
    ) -> dict[str, Any]:
        """Ask until the task has ended, `look` at each answer; returns the last one. A single failing query is no end.

        Raises ClientError where the task failed, or is not finished after half an hour.
        """
        ends_at, missed = time.monotonic() + GIVE_UP_SECONDS, 0
        look(task)
        while task["task_status"] not in ("succeed", "failed"):
            if time.monotonic() > ends_at:
                where = f"{self.videos}/{kind}/{task['task_id']}"
                raise ClientError(f"not finished after {GIVE_UP_SECONDS:.0f} s; the task continues: GET {where}")
            time.sleep(every)
            try:
                task, missed = self.query(kind, task["task_id"]), 0
            except ClientError:
                missed += 1
                if missed == 5:
                    raise
            look(task)
        if task["task_status"] == "failed":
            raise ClientError(f"the task failed: {task['task_status_msg'] or 'no reason given'}")
        return task

    def download(self, task: dict[str, Any], path: Path) -> Path:
        """The task's first video into `path`. Without our own Authorization header: the URL is signed already."""
        path.parent.mkdir(parents=True, exist_ok=True)
        url = task["task_result"]["videos"][0]["url"]
        try:
            with self._session.get(url, stream=True, timeout=60, headers={"Authorization": None}) as response:
                response.raise_for_status()
                with path.open("wb") as file:
                    shutil.copyfileobj(response.raw, file)
                announced = response.headers.get("Content-Length")
        except requests.RequestException as exc:
            raise ClientError(f"the video cannot be downloaded: {type(exc).__name__}") from exc
        if announced is not None and int(announced) != path.stat().st_size:
            raise ClientError(f"the video must have {announced} bytes (got {path.stat().st_size}); download it again")
        return path

    def _data(self, call: Callable[[], requests.Response]) -> dict[str, Any]:
        try:
            response = call()
            answer = response.json()
        except requests.JSONDecodeError:
            raise ClientError(f"HTTP {response.status_code} without JSON") from None
        except requests.RequestException as exc:
            raise ClientError(f"{self.videos} cannot be reached: {type(exc).__name__}") from exc
        if response.status_code != 200:
            raise ClientError(f"HTTP {response.status_code}, code {answer.get('code')}: {answer.get('message')}")
        data: dict[str, Any] = answer["data"]
        return data


def seconds_of_video(path: Path) -> float:
    """How long the video is; every frame is decoded. Raises ClientError for a file that does not play."""
    try:
        with av.open(str(path)) as container:
            frames, rate = sum(1 for _ in container.decode(video=0)), container.streams.video[0].average_rate
    except (av.FFmpegError, IndexError) as exc:
        raise ClientError(f"{path} is not a playable video: {exc}") from exc
    if not frames or not rate:
        raise ClientError(f"{path} has no frames")
    return float(frames / rate)
