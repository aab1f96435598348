"""The Kling simulator over real sockets: both dialects, every switch, the ledger, and a video that plays."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import pytest
import requests

from local.simulator import Simulator

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = (ROOT / "local" / "sample.jpg").read_bytes()
KEY = "a-test-key"
AUTH = {"Authorization": f"Bearer {KEY}"}
DIALECTS = ("official", "cometapi")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def picture(width: int, height: int, colour: str = "teal") -> bytes:
    """A small plain PNG."""
    graph = av.filter.Graph()
    start, end = graph.add("color", f"c={colour}:s={width}x{height}"), graph.add("buffersink")
    start.link_to(end)
    graph.configure()
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "rgb24", Fraction(1, 25)
    frame = end.pull().reformat(format="rgb24")
    return b"".join(bytes(one) for one in encoder.encode(frame) + encoder.encode(None))


@pytest.fixture(scope="module")
def running() -> Iterator[Simulator]:
    with Simulator(key=KEY, render_seconds=0.25, render_size=160) as simulator:
        yield simulator


@pytest.fixture
def sim(running: Simulator) -> Simulator:
    running.reset()
    return running


class Receiver(BaseHTTPRequestHandler):
    """Takes callbacks: (task_status, headers, body)."""

    def do_POST(self) -> None:
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


@pytest.fixture
def receiver() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.daemon_threads = True
    server.got = []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def base(sim: Simulator, dialect: str = "official") -> str:
    return (sim.url if dialect == "official" else sim.comet_url) + "/v1/videos"


def submit(
    sim: Simulator, body: dict | None = None, dialect: str = "official", kind: str = "image2video", **extra: Any
) -> requests.Response:
    body = {"model_name": "kling-v2-6", "image": b64(SAMPLE)} if body is None else body
    return requests.post(f"{base(sim, dialect)}/{kind}", json={**body, **extra}, headers=AUTH, timeout=10)


def query(sim: Simulator, reference: str, dialect: str = "official", kind: str = "image2video") -> requests.Response:
    return requests.get(f"{base(sim, dialect)}/{kind}/{reference}", headers=AUTH, timeout=10)


def until(what: Callable[[], Any], seconds: float = 8) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def ended(sim: Simulator, task_id: str, dialect: str = "official", kind: str = "image2video") -> dict:
    def look() -> dict | None:
        data = query(sim, task_id, dialect, kind).json()["data"]
        return data if data["task_status"] in ("succeed", "failed") else None

    return until(look)


def finished(sim: Simulator, **extra: Any) -> dict:
    return ended(sim, submit(sim, **extra).json()["data"]["task_id"])


def ledger(sim: Simulator) -> dict:
    return requests.get(f"{sim.url}/_sim/ledger", timeout=5).json()


def faults(sim: Simulator, **switches: Any) -> dict:
    answer = requests.post(f"{sim.url}/_sim/faults", json=switches, timeout=5)
    assert answer.status_code == 200, answer.text
    return answer.json()


def account(sim: Simulator, **settings: Any) -> None:
    answer = requests.post(f"{sim.url}/_sim/account", json=settings, timeout=5)
    assert answer.status_code == 200, answer.text


# Shapes


def test_official_answers_have_the_captured_shapes(sim: Simulator) -> None:
    account(sim, render_seconds=1.0)
    answer = submit(sim, external_task_id="ref-1")
    body = answer.json()
    assert answer.status_code == 200
    assert list(body) == ["code", "message", "request_id", "data"]
    assert (body["code"], body["message"]) == (0, "SUCCEED")
    data = body["data"]
    assert list(data) == ["task_id", "task_status", "task_info", "created_at", "updated_at"]
    assert data["task_status"] == "submitted"
    assert data["task_info"] == {"external_task_id": "ref-1"}
    assert data["task_id"].isdecimal() and len(data["task_id"]) in (18, 19)
    assert data["created_at"] == data["updated_at"] and abs(data["created_at"] / 1000 - time.time()) < 10

    processing = until(lambda: (one := query(sim, "ref-1").json())["data"]["task_status"] == "processing" and one)
    assert list(processing) == ["code", "message", "request_id", "data"]
    order = ["task_id", "task_status", "task_info", "task_result", "task_status_msg", "created_at", "updated_at"]
    assert list(processing["data"]) == order
    assert processing["data"]["task_result"] == {} and processing["data"]["task_status_msg"] == ""

    done = ended(sim, data["task_id"])
    assert list(done) == [*order, "final_unit_deduction"]
    assert done["final_unit_deduction"] == "1.5"
    (video,) = done["task_result"]["videos"]
    assert list(video) == ["id", "url", "duration"] and video["duration"] == "5.1"
    assert done["updated_at"] - done["created_at"] >= 1000


def test_cometapi_answers_have_the_captured_shapes(sim: Simulator) -> None:
    account(sim, render_seconds=1.0)
    body = submit(sim, dialect="cometapi").json()
    assert list(body) == ["code", "message", "data"]
    assert (body["code"], body["message"], body["data"]["task_info"]) == (0, "success", {})
    task_id = body["data"]["task_id"]
    assert len(task_id) == 19 and task_id.startswith("2")

    def processing() -> dict | None:
        answer = query(sim, task_id, "cometapi").json()
        return answer if answer["data"]["task_status"] == "processing" else None

    body = until(processing)
    assert list(body) == ["code", "message", "request_id", "data"] and body["message"] == "SUCCEED"
    order = ["task_id", "task_info", "created_at", "updated_at", "task_result", "task_status"]
    assert list(body["data"]) == order
    assert ended(sim, task_id, "cometapi")["task_result"]["videos"][0]["url"].startswith(sim.url)

    several = {"prompt": "they walk on", "image_list": [{"image": b64(SAMPLE)}] * 2}
    body = submit(sim, several, "cometapi", "multi-image2video").json()
    assert list(body) == ["code", "message", "data"] and body["message"] == "SUCCEED"
    assert len(body["data"]["task_id"]) == 18


@pytest.mark.parametrize("dialect", DIALECTS)
def test_kinds_and_references(sim: Simulator, dialect: str) -> None:
    bodies = {
        "image2video": {"model_name": "kling-v3", "image": b64(SAMPLE)},
        "multi-image2video": {"prompt": "p", "image_list": [{"image": b64(SAMPLE)}, {"image": b64(SAMPLE)}]},
        "text2video": {"model_name": "kling-v2-6", "prompt": "a quiet sea", "aspect_ratio": "9:16"},
        "omni-video": {"prompt": "p <<<image_1>>>", "image_list": [{"image_url": b64(SAMPLE), "type": "first_frame"}]},
    }
    ids = {}
    for kind, body in bodies.items():
        answer = submit(sim, body, dialect, kind, external_task_id=f"my-{kind}").json()
        assert answer["code"] == 0, answer
        ids[kind] = answer["data"]["task_id"]
    for kind, task_id in ids.items():
        data = query(sim, f"my-{kind}", dialect, kind).json()["data"]
        assert data["task_id"] == task_id
        other = "text2video" if kind != "text2video" else "image2video"
        assert query(sim, task_id, dialect, other).status_code == 404
        assert query(sim, task_id, DIALECTS[dialect == "official"], kind).status_code == 404
        assert ended(sim, task_id, dialect, kind)["task_status"] == "succeed"


def test_list_newest_first(sim: Simulator) -> None:
    faults(sim, never=True)
    where = f"{base(sim)}/text2video"
    assert requests.get(where, headers=AUTH, timeout=5).json() == {"code": 0, "message": "SUCCEED", "data": []}
    body = {"model_name": "kling-v2-6", "prompt": "p"}
    ids = [submit(sim, body, kind="text2video").json()["data"]["task_id"] for _ in range(5)]
    pages = [
        [
            one["task_id"]
            for one in requests.get(f"{where}?pageNum={n}&pageSize=2", headers=AUTH, timeout=5).json()["data"]
        ]
        for n in (1, 2, 3)
    ]
    assert pages == [ids[:2:-1], ids[2:0:-1], ids[:1]]
    for wrong in ("pageNum=0", "pageNum=1001", "pageSize=501", "pageSize=x"):
        answer = requests.get(f"{where}?{wrong}", headers=AUTH, timeout=5)
        assert (answer.status_code, answer.json()["code"]) == (400, 1201)


# Who may call, and what is refused


def test_authorization(sim: Simulator) -> None:
    where = f"{base(sim)}/image2video/1"
    answer = requests.get(where, timeout=5)
    assert (answer.status_code, answer.json()) == (401, {"code": 1001, "message": "Authorization is empty"})
    answer = requests.get(where, headers={"Authorization": "Bearer other"}, timeout=5)
    assert (answer.status_code, answer.json()) == (401, {"code": 1002, "message": "api key not found"})
    answer = requests.get(f"{sim.url}/v1/nothing", headers=AUTH, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (404, 1202)

    account(sim, access_key="ak", secret_key="sk")
    now = time.time()
    codes = []
    for claims, secret in (
        ({"iss": "ak", "exp": now + 60, "nbf": now - 5}, "sk"),
        ({"iss": "ak", "exp": now - 60, "nbf": now - 90}, "sk"),
        ({"iss": "ak", "exp": now + 90, "nbf": now + 60}, "sk"),
        ({"iss": "ak", "exp": now + 60}, "other"),
        ({"iss": "who", "exp": now + 60}, "sk"),
    ):
        text = ".".join(
            base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode()
            for one in ({"alg": "HS256", "typ": "JWT"}, claims)
        )
        seal = base64.urlsafe_b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())
        headers = {"Authorization": f"Bearer {text}.{seal.rstrip(b'=').decode()}"}
        codes.append(requests.get(where, headers=headers, timeout=5).json()["code"])
    assert codes == [1203, 1004, 1003, 1000, 1002]


@pytest.mark.parametrize(
    ("kind", "body", "status", "code", "words"),
    [
        ("image2video", {}, 400, 1201, "image can not be null"),
        ("image2video", [], 400, 1201, "Failed to resolve the request body"),
        ("image2video", {"image": "data:image/png;base64,iVBORw0K"}, 400, 1201, "File is not in a valid base64 format"),
        ("image2video", {"image": "http://x/", "prompt": "x" * 2501}, 400, 1201, "prompt"),
        ("image2video", {"image": "http://x/", "model_name": "kling-v9"}, 404, 1203, "kling-v9"),
        ("image2video", {"image": "http://x/", "model_name": "kling-v3-omni"}, 404, 1203, "kling-v3-omni"),
        ("image2video", {"image": "http://x/", "duration": 5}, 400, 1201, "duration"),
        ("image2video", {"image": "http://x/", "duration": "7"}, 400, 1201, "(kling-v1/std/7)"),
        ("image2video", {"image": "http://x/", "mode": "best"}, 400, 1201, "mode"),
        ("image2video", {"image": "http://x/", "cfg_scale": 2}, 400, 1201, "cfg_scale"),
        (
            "image2video",
            {"image": "http://x/", "image_tail": "http://x/", "camera_control": {"type": "simple"}},
            400,
            1201,
            "mutually exclusive",
        ),
        (
            "image2video",
            {"image": "http://x/", "image_tail": "http://x/", "model_name": "kling-v2-5-turbo"},
            400,
            1201,
            "model/mode/duration(kling-v2-5-turbo/std/5) is not supported with image_tail",
        ),
        ("multi-image2video", {"prompt": "p"}, 400, 1201, "image_list"),
        ("multi-image2video", {"image_list": [{"image": "http://x/"}]}, 400, 1201, "prompt"),
        ("text2video", {"model_name": "kling-v2-6"}, 400, 1201, "prompt"),
    ],
)
def test_refused_at_submit(sim: Simulator, kind: str, body: Any, status: int, code: int, words: str) -> None:
    answer = requests.post(f"{base(sim)}/{kind}", json=body, headers=AUTH, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert words in answer.json()["message"] and answer.json()["request_id"]
    books = ledger(sim)
    assert books["tasks"] == [] and books["posts"][0]["outcome"] == f"refused {status}/{code}"


def test_empty_strings_are_absent_and_unknown_fields_ignored(sim: Simulator) -> None:
    empty = dict.fromkeys(
        ("negative_prompt", "image_tail", "callback_url", "external_task_id", "static_mask", "mode"), ""
    )
    assert submit(sim, num_videos=2, camera_json="{}", **empty).status_code == 200
    assert ledger(sim)["tasks"][0]["external_task_id"] is None


@pytest.mark.parametrize("bad", [picture(338, 191), picture(300, 900), b"not a picture"], ids=["small", "long", "text"])
def test_a_bad_picture_is_accepted_and_fails_later_unbilled(sim: Simulator, bad: bytes) -> None:
    answer = submit(sim, image=b64(bad))
    assert answer.status_code == 200
    assert ledger(sim)["tasks"][0]["billed"] is True
    reply = until(
        lambda: (one := query(sim, answer.json()["data"]["task_id"]).json())["data"]["task_status"] == "failed" and one
    )
    assert (reply["code"], reply["message"]) == (0, "SUCCEED")
    assert reply["data"]["task_status_msg"] == "Image pixel is invalid" and reply["data"]["task_result"] == {}
    books = ledger(sim)
    assert (books["accepted"], books["billed"], books["billed_units"]) == (1, 0, "0")


def test_account_settings(sim: Simulator) -> None:
    faults(sim, never=True)
    account(sim, query_by_external_id={"cometapi": False}, duplicate_external_id={"official": "refuse"})
    for dialect in DIALECTS:
        assert submit(sim, dialect=dialect, external_task_id="once").status_code == 200
    assert query(sim, "once").status_code == 200
    assert query(sim, "once", "cometapi").status_code == 404
    assert submit(sim, external_task_id="once").json()["code"] == 1201
    assert submit(sim, dialect="cometapi", external_task_id="once").json()["code"] == 0
    assert [one["external_task_id"] for one in ledger(sim)["tasks"]] == ["once"] * 3

    account(sim, retired_models="refused", echo_external_id=False, extra_models=["kling-v4"])
    assert submit(sim, model_name="kling-v1").json()["code"] == 1203
    assert submit(sim, model_name="kling-v4", external_task_id="x").json()["data"]["task_info"] == {}
    for wrong in (
        {"no": 1},
        {"slots": "many"},
        {"retired_models": "x"},
        {"duplicate_external_id": {"kapon": "refuse"}},
    ):
        assert requests.post(f"{sim.url}/_sim/account", json=wrong, timeout=5).status_code == 400


# The video


def test_the_video_is_made_of_the_picture(sim: Simulator) -> None:
    account(sim, render_size=320)
    url = finished(sim)["task_result"]["videos"][0]["url"]
    assert "Expires=" in url and "Signature=" in url
    answer = requests.get(url, timeout=10)
    assert answer.headers["Content-Type"] == "video/mp4"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert answer.content.find(b"moov") < answer.content.find(b"mdat")
    with av.open(io.BytesIO(answer.content)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (320, 180, 24)
        assert 5.0 <= file.duration / 1e6 <= 5.1
        frames = [samples(one) for one in file.decode(video=0)]
    with av.open(io.BytesIO(SAMPLE)) as file:
        original = samples(next(file.decode(video=0)))
    assert len(frames) == 121
    assert difference(frames[0], original) < 6
    assert difference(frames[-1], frames[0]) > 3 * difference(frames[1], frames[0])
    assert difference(frames[-1], frames[0]) > 3
    assert all(difference(one, other) < 6 for one, other in itertools.pairwise(frames))


def samples(frame: av.VideoFrame) -> bytes:
    """32 x 18 points of a frame, as RGB."""
    small = frame.reformat(32, 18, "rgb24", interpolation="AREA").planes[0]
    rows = bytes(small)
    return b"".join(rows[y * small.line_size : y * small.line_size + 96] for y in range(18))


def difference(one: bytes, other: bytes) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def test_sizes_and_lengths(sim: Simulator) -> None:
    account(sim, render_size=96)
    tall = {"model_name": "kling-v3", "prompt": "p", "duration": "3", "aspect_ratio": "9:16"}
    task = ended(sim, submit(sim, tall, kind="text2video").json()["data"]["task_id"], kind="text2video")
    assert task["task_result"]["videos"][0]["duration"] == "3.1"
    assert shape(task) == (54, 96, 73)
    pictures = {
        "prompt": "p",
        "aspect_ratio": "1:1",
        "image_list": [{"image": b64(SAMPLE)}, {"image": b64(picture(300, 400))}],
    }
    kind = "multi-image2video"
    assert shape(ended(sim, submit(sim, pictures, kind=kind).json()["data"]["task_id"], kind=kind)) == (96, 96, 121)
    assert shape(finished(sim, image=b64(picture(301, 403)))) == (72, 96, 121)


def shape(task: dict) -> tuple[int, int, int]:
    with av.open(io.BytesIO(requests.get(task["task_result"]["videos"][0]["url"], timeout=10).content)) as file:
        stream = file.streams.video[0]
        return stream.width, stream.height, stream.frames


def test_pictures_by_address(sim: Simulator, receiver: ThreadingHTTPServer) -> None:
    """A loopback picture is fetched; any other is never asked for, and drawn; a dead one fails the task."""
    inline, local = finished(sim), finished(sim, image=f"{receiver.url}/a.jpg")
    files = [requests.get(one["task_result"]["videos"][0]["url"], timeout=10).content for one in (inline, local)]
    assert files[0] == files[1]
    assert finished(sim, image="https://pictures.example.invalid/a.jpg")["task_status"] == "succeed"
    dead = finished(sim, image="http://127.0.0.1:9/a.jpg")
    assert (dead["task_status"], "download" in dead["task_status_msg"]) == ("failed", True)


def test_equal_renders_happen_once(sim: Simulator) -> None:
    account(sim, render_size=128)
    before = sim.life.studio.rendered
    urls = {finished(sim)["task_result"]["videos"][0]["url"] for _ in range(3)}
    assert len(urls) == 3 and sim.life.studio.rendered == before + 1


def test_download_range_and_head(sim: Simulator) -> None:
    url = finished(sim)["task_result"]["videos"][0]["url"]
    whole = requests.get(url, timeout=5)
    size = len(whole.content)
    for wanted, part in (
        ("bytes=0-99", slice(0, 100)),
        ("bytes=100-", slice(100, None)),
        ("bytes=-7", slice(-7, None)),
    ):
        answer = requests.get(url, headers={"Range": wanted, "If-Range": whole.headers["ETag"]}, timeout=5)
        assert answer.status_code == 206 and answer.content == whole.content[part]
        assert answer.headers["Content-Range"].endswith(f"/{size}")
    assert requests.get(url, headers={"Range": f"bytes={size}-"}, timeout=5).status_code == 416
    head = requests.head(url, timeout=5)
    assert (head.headers["Content-Length"], head.content) == (str(size), b"")
    assert requests.get(url.replace("Signature=", "Signature=0"), timeout=5).status_code == 403
    assert requests.get(url.split("?")[0], timeout=5).status_code == 403
    requests.get(url, headers=AUTH, timeout=5)
    flags = [one["authorization"] for one in ledger(sim)["tasks"][0]["downloads"]]
    assert flags[0] is False and flags[-1] is True


# Callbacks


def statuses(receiver: ThreadingHTTPServer) -> list[str]:
    return [json.loads(body)["task_status"] for _, _, body in receiver.got]


def test_callbacks_of_a_life(sim: Simulator, receiver: ThreadingHTTPServer) -> None:
    task = finished(sim, callback_url=f"{receiver.url}/hook?token=1", external_task_id="mine")
    until(lambda: len(receiver.got) == 3)
    assert statuses(receiver) == ["submitted", "processing", "succeed"]
    _, headers, body = receiver.got[-1]
    assert headers["User-Agent"].startswith("Apache-HttpClient/")
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert not [name for name in headers if name.lower().startswith(("webhook-", "authorization"))]
    sent = json.loads(body)
    order = ["task_id", "task_status", "task_info", "task_result", "task_status_msg", "created_at", "updated_at"]
    assert list(sent) == order
    assert sent["task_id"] == task["task_id"] and sent["task_info"] == {"external_task_id": "mine"}
    assert sent["task_result"] == {"images": [], "videos": task["task_result"]["videos"], "audios": []}
    entry = until(lambda: len((one := ledger(sim)["tasks"][0])["callbacks"]) == 3 and one)
    assert [(one["task_status"], one["result"]) for one in entry["callbacks"]] == [
        ("submitted", "200"), ("processing", "200"), ("succeed", "200"),
    ]  # fmt: skip


def test_callbacks_leave_only_for_this_machine(sim: Simulator) -> None:
    finished(sim, callback_url="https://hooks.example.invalid/x")
    finished(sim, callback_url="http://169.254.169.254/latest")
    books = until(lambda: (one := ledger(sim))["callbacks_refused"] == 6 and one)
    assert {one["result"] for task in books["tasks"] for one in task["callbacks"]} == {"refused"}


def test_lost_repeated_early_and_foreign_callbacks(sim: Simulator, receiver: ThreadingHTTPServer) -> None:
    faults(sim, callbacks={"value": "lost", "times": 1})
    finished(sim, callback_url=receiver.url)
    until(lambda: len(ledger(sim)["tasks"][0]["callbacks"]) == 3)
    assert receiver.got == []

    faults(sim, callbacks={"value": "repeated", "times": 1}, callback_foreign_id=1)
    task = finished(sim, callback_url=receiver.url)
    until(lambda: len(receiver.got) == 9)
    assert statuses(receiver).count("succeed") == 3
    named = {json.loads(body)["task_id"] for _, _, body in receiver.got}
    assert len(named) == 1 and task["task_id"] not in named

    receiver.got.clear()
    account(sim, render_seconds=5)
    faults(sim, callbacks={"value": "early", "times": 1})
    submit(sim, callback_url=receiver.url)
    answered = time.time()
    assert statuses(receiver) == ["submitted"] and receiver.got[0][0] <= answered


def test_signed_callbacks(sim: Simulator, receiver: ThreadingHTTPServer) -> None:
    secret = b"0123456789abcdef01234567"
    account(sim, webhook_secret="whsec_" + b64(secret))
    finished(sim, callback_url=receiver.url)
    _, headers, body = until(lambda: receiver.got)[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    assert headers["webhook-signature"] == "v1," + b64(hmac.new(secret, signed, hashlib.sha256).digest())


# Switches


def test_switches_are_counted_checked_and_cleared(sim: Simulator) -> None:
    shown = faults(sim, too_fast=2, slow_submit=1.5, fail={"value": "no", "times": 1}, wrapped=True)
    assert shown["too_fast"] == {"value": True, "times": 2}
    assert shown["slow_submit"] == {"value": 1.5, "times": None}
    assert shown["never"] is None
    faults(sim, slow_submit=None)
    assert [submit(sim).status_code for _ in range(3)] == [429, 429, 200]
    assert requests.get(f"{sim.url}/_sim/faults", timeout=5).json()["too_fast"] is None
    for wrong in ({"none": 1}, {"callbacks": "loud"}, {"slow_submit": "x"}, {"fail": {"times": 1.5}}, {"truncate": -1}):
        assert requests.post(f"{sim.url}/_sim/faults", json={"never": True, **wrong}, timeout=5).status_code == 400
    assert requests.get(f"{sim.url}/_sim/faults", timeout=5).json()["never"] is None
    requests.post(f"{sim.url}/_sim/reset", timeout=5)
    assert not any(requests.get(f"{sim.url}/_sim/faults", timeout=5).json().values())
    assert ledger(sim)["posts"] == []


@pytest.mark.parametrize(
    ("switch", "status", "code"),
    [
        ({"auth_error": 1}, 401, 1002),
        ({"too_fast": 1}, 429, 1302),
        ({"arrears": 1}, 429, 1101),
        ({"no_room": 1}, 429, 1303),
        ({"submit_5xx": {"times": 1}}, 500, 5000),
        ({"submit_5xx": {"value": 503, "times": 1}}, 503, 5001),
        ({"submit_5xx": {"value": 504, "times": 1}}, 504, 5002),
    ],
)
def test_refusing_switches(sim: Simulator, switch: dict, status: int, code: int) -> None:
    faults(sim, **switch)
    answer = submit(sim)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert ledger(sim)["accepted"] == 0
    assert submit(sim).status_code == 200
    books = ledger(sim)
    assert (books["accepted"], len(books["posts"])) == (1, 2)


def test_dropped_connections(sim: Simulator) -> None:
    faults(sim, drop_before=1)
    with pytest.raises(requests.ConnectionError):
        submit(sim, external_task_id="lost")
    assert ledger(sim)["tasks"] == [] and query(sim, "lost").status_code == 404

    faults(sim, drop_after=1)
    with pytest.raises(requests.ConnectionError):
        submit(sim, external_task_id="paid")
    (entry,) = ledger(sim)["tasks"]
    assert entry["billed"] is True and query(sim, "paid").json()["data"]["task_id"] == entry["task_id"]

    faults(sim, late_accept={"value": 0.4, "times": 1})
    with pytest.raises(requests.ConnectionError):
        submit(sim, external_task_id="late")
    assert query(sim, "late").status_code == 404
    until(lambda: query(sim, "late").status_code == 200)
    assert [one["outcome"] for one in ledger(sim)["posts"]] == ["dropped", "accepted", "accepted"]


def test_slow_and_garbled_submits_are_paid_for(sim: Simulator) -> None:
    faults(sim, slow_submit={"value": 0.6, "times": 1})
    with pytest.raises(requests.ReadTimeout):
        requests.post(f"{base(sim)}/image2video", json={"image": b64(SAMPLE)}, headers=AUTH, timeout=0.2)
    assert ledger(sim)["billed"] == 1
    for number, how in enumerate(("html", "truncated"), start=2):
        faults(sim, garbage_answer={"value": how, "times": 1})
        answer = submit(sim)
        assert answer.status_code == 200 and ledger(sim)["billed"] == number
        with pytest.raises(ValueError):
            answer.json()


def test_real_slots(sim: Simulator) -> None:
    account(sim, slots=2, render_seconds=0.5)
    answers = [submit(sim) for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert answers[2].json()["message"] == "parallel task over resource pack limit"
    ended(sim, answers[0].json()["data"]["task_id"])
    assert submit(sim).status_code == 200
    assert ledger(sim)["billed"] == 3


def test_switches_of_queries(sim: Simulator) -> None:
    done = finished(sim)
    task_id = done["task_id"]
    faults(sim, query_5xx={"value": 503, "times": 1})
    assert query(sim, task_id).status_code == 503
    faults(sim, query_slow={"value": 0.3, "times": 1})
    started = time.monotonic()
    query(sim, task_id)
    assert time.monotonic() - started >= 0.3
    faults(sim, query_unknown_status={"times": 1})
    assert query(sim, task_id).json()["data"]["task_status"] == "reviewing"
    faults(sim, no_url=1)
    data = query(sim, task_id).json()["data"]
    assert (data["task_status"], data["task_result"]) == ("succeed", {"videos": []})
    faults(sim, query_garbage={"times": 1})
    assert "html" in query(sim, task_id).headers["Content-Type"]
    faults(sim, wrapped=1)
    body = query(sim, task_id).json()
    assert (body["code"], body["data"]["status"], body["data"]["progress"]) == ("success", "SUCCESS", "100%")
    assert body["data"]["data"]["data"] == done
    for how, status in (("400/1201", 400), ("200/null", 200)):
        faults(sim, unknown_id=how)
        assert query(sim, "nobody").status_code == status
    assert query(sim, task_id).json()["data"] == done


def test_failing_and_endless_tasks(sim: Simulator) -> None:
    faults(sim, fail={"times": 1})
    task = finished(sim)
    assert (task["task_status"], task["task_status_msg"]) == ("failed", "Failure to pass the risk control system")
    faults(sim, never=1)
    task_id = submit(sim).json()["data"]["task_id"]
    time.sleep(0.6)
    assert query(sim, task_id).json()["data"]["task_status"] == "processing"
    books = ledger(sim)
    assert (books["accepted"], books["billed"], books["running"]) == (2, 1, 1)


def test_switches_of_downloads(sim: Simulator) -> None:
    task = finished(sim)
    url = task["task_result"]["videos"][0]["url"]
    size = len(requests.get(url, timeout=5).content)
    faults(sim, truncate={"value": 0.25, "times": 1})
    with requests.get(url, stream=True, timeout=5) as answer:
        assert int(answer.headers["Content-Length"]) == size
        with pytest.raises(requests.RequestException):
            _ = answer.content
    faults(sim, wrong_file=1)
    answer = requests.get(url, timeout=5)
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/html")
    faults(sim, expired_url=1)
    assert requests.get(url, timeout=5).status_code == 403
    fresh = query(sim, task["task_id"]).json()["data"]["task_result"]["videos"][0]["url"]
    assert fresh != url and len(requests.get(fresh, timeout=5).content) == size
    assert [one["bytes"] for one in ledger(sim)["tasks"][0]["downloads"][:2]] == [size, size // 4]


def test_addresses_expire_and_are_renewed(sim: Simulator) -> None:
    faults(sim, url_seconds={"value": 1, "times": 1})
    task = finished(sim)
    url = task["task_result"]["videos"][0]["url"]
    until(lambda: requests.get(url, timeout=5).status_code == 403)
    fresh = query(sim, task["task_id"]).json()["data"]["task_result"]["videos"][0]["url"]
    assert requests.get(fresh, timeout=5).status_code == 200
    assert query(sim, task["task_id"]).json()["data"]["task_result"]["videos"][0]["url"] == fresh


def test_render_switches(sim: Simulator) -> None:
    faults(sim, render_size={"value": 64, "times": 1}, render_seconds={"value": 1.2, "times": 1})
    task = finished(sim)
    assert shape(task)[:2] == (64, 36) and task["updated_at"] - task["created_at"] >= 1200
    assert shape(finished(sim))[:2] == (160, 90)


# Ledger and control


def test_ledger_and_progress(sim: Simulator) -> None:
    account(sim, render_seconds=1.0)
    encoded = b64(SAMPLE)
    task_id = submit(sim, external_task_id="mine", mode="pro", prompt="p").json()["data"]["task_id"]
    seen = [requests.get(f"{sim.url}/_sim/tasks/mine", timeout=5).json()["progress"]]
    query(sim, "mine")
    ended(sim, task_id)
    entry = requests.get(f"{sim.url}/_sim/tasks/{task_id}", timeout=5).json()
    assert 0 <= seen[0] < 0.9 and entry["progress"] == 1.0
    assert entry["request"]["image"] == {"sha256": hashlib.sha256(encoded.encode()).hexdigest(), "length": len(encoded)}
    assert entry["request"]["prompt"] == "p"
    expected = {"dialect": "official", "kind": "image2video", "external_task_id": "mine", "model_name": "kling-v2-6",
                "status": "succeed", "billed": True, "units": "2.5"}  # fmt: skip
    assert {name: entry[name] for name in expected} == expected
    assert entry["queries"] == len(entry["queried_at"]) >= 2 and entry["queried_by_external_id"] == 1
    assert requests.get(f"{sim.url}/_sim/tasks/nobody", timeout=5).status_code == 404
    assert requests.get(f"{sim.url}/_sim/else", timeout=5).status_code == 404


def test_answers_at_once_while_rendering(sim: Simulator) -> None:
    """Rendering must not hold up the API: two big renders run while it is asked."""
    account(sim, render_size=1280, render_seconds=0)
    for number in range(2):
        submit(sim, {"model_name": "kling-v2-6", "prompt": f"big {number}", "image": b64(picture(1280, 720, "navy"))},
               duration=("5", "10")[number])  # fmt: skip
    started = time.monotonic()
    for _ in range(10):
        ledger(sim)
    assert time.monotonic() - started < 2
    until(lambda: ledger(sim)["running"] == 0, 20)


def test_the_process_starts_and_ends(tmp_path: Path) -> None:
    """Ends at once on SIGTERM, ends by itself when its parent is killed, and leaves no file behind."""
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "local.simulator", "--port", "0", "--key", KEY, "--render-seconds", "60"]
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    url = json.loads(child.stdout.readline())["url"]
    assert url.startswith("http://127.0.0.1:")
    answer = requests.post(f"{url}/v1/videos/image2video", json={"image": b64(SAMPLE)}, headers=AUTH, timeout=5)
    assert answer.status_code == 200
    started = time.monotonic()
    child.send_signal(signal.SIGTERM)
    assert child.wait(5) == 0 and time.monotonic() - started < 1
    child.stdout.close()

    script = f"import subprocess, time; subprocess.Popen({command!r}); time.sleep(60)"
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    orphan = json.loads(parent.stdout.readline())
    parent.kill()
    parent.wait(5)
    with pytest.raises(requests.ConnectionError):
        until(lambda: requests.get(f"{orphan['url']}/_sim/faults", timeout=2) and time.sleep(0.1))
    parent.stdout.close()
    assert list((tmp_path / "tmp").iterdir()) == []
