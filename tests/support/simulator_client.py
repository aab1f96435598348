"""Call the Kling simulator over real sockets, as a client and through its control API."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import requests

from local.simulator import Simulator

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = (ROOT / "local" / "stack" / "sample.jpg").read_bytes()
KEY = "a-test-key"
AUTH = {"Authorization": f"Bearer {KEY}"}
DIALECTS = ("official", "cometapi")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def picture(width: int, height: int, colour: str = "teal") -> bytes:
    """Return a small plain PNG."""
    graph = av.filter.Graph()
    start, end = graph.add("color", f"c={colour}:s={width}x{height}"), graph.add("buffersink")
    start.link_to(end)
    graph.configure()
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "rgb24", Fraction(1, 25)
    drawn = end.pull()
    assert isinstance(drawn, av.VideoFrame)
    frame = drawn.reformat(format="rgb24")
    return b"".join(bytes(one) for one in encoder.encode(frame) + encoder.encode(None))


class CallbackReceiver(ThreadingHTTPServer):
    """Record the callbacks that arrive at `url` in `got`: (Unix time, headers, body)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ReceiverHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.got: list[tuple[float, dict[str, str], bytes]] = []


class _ReceiverHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, CallbackReceiver)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((time.time(), dict(self.headers), body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(SAMPLE)))
        self.end_headers()
        self.wfile.write(SAMPLE)

    def log_message(self, *_: Any) -> None:
        pass


def base(sim: Simulator, dialect: str = "official") -> str:
    return (sim.url if dialect == "official" else sim.comet_url) + "/v1/videos"


def submit(
    sim: Simulator,
    body: dict[str, Any] | None = None,
    dialect: str = "official",
    kind: str = "image2video",
    **extra: Any,
) -> requests.Response:
    body = {"model_name": "kling-v2-6", "image": b64(SAMPLE)} if body is None else body
    return requests.post(f"{base(sim, dialect)}/{kind}", json={**body, **extra}, headers=AUTH, timeout=10)


def query(sim: Simulator, reference: str, dialect: str = "official", kind: str = "image2video") -> requests.Response:
    return requests.get(f"{base(sim, dialect)}/{kind}/{reference}", headers=AUTH, timeout=10)


def until(what: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def ended(sim: Simulator, task_id: str, dialect: str = "official", kind: str = "image2video") -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        data = query(sim, task_id, dialect, kind).json()["data"]
        return data if data["task_status"] in ("succeed", "failed") else None

    task: dict[str, Any] = until(look)
    return task


def finished(sim: Simulator, **extra: Any) -> dict[str, Any]:
    return ended(sim, submit(sim, **extra).json()["data"]["task_id"])


def ledger(sim: Simulator) -> dict[str, Any]:
    books: dict[str, Any] = requests.get(f"{sim.url}/_sim/ledger", timeout=5).json()
    return books


def faults(sim: Simulator, **switches: Any) -> dict[str, Any]:
    answer = requests.post(f"{sim.url}/_sim/faults", json=switches, timeout=5)
    assert answer.status_code == 200, answer.text
    switched: dict[str, Any] = answer.json()
    return switched


def account(sim: Simulator, **settings: Any) -> None:
    answer = requests.post(f"{sim.url}/_sim/account", json=settings, timeout=5)
    assert answer.status_code == 200, answer.text


def samples(frame: av.VideoFrame) -> bytes:
    """Return 32 x 18 points of a frame, as RGB."""
    small = frame.reformat(32, 18, "rgb24", interpolation="AREA").planes[0]
    rows = bytes(small)
    return b"".join(rows[y * small.line_size : y * small.line_size + 96] for y in range(18))


def difference(one: bytes, other: bytes) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def shape(task: dict[str, Any]) -> tuple[int, int, int]:
    with av.open(io.BytesIO(requests.get(task["task_result"]["videos"][0]["url"], timeout=10).content)) as file:
        stream = file.streams.video[0]
        return stream.width, stream.height, stream.frames
