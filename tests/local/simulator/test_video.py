"""Test the Kling simulator's rendered video, its addresses, the ledger, and the simulator as a process."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
import requests
from kling_relay.media.mp4 import BoxWalk

from local.simulator import Simulator
from tests.support.simulator_client import (
    AUTH,
    KEY,
    ROOT,
    SAMPLE,
    CallbackReceiver,
    account,
    b64,
    difference,
    ended,
    finished,
    ledger,
    picture,
    query,
    samples,
    shape,
    submit,
    until,
)


def test_the_video_is_made_of_the_picture(sim: Simulator) -> None:
    account(sim, render_size=320)
    url = finished(sim)["task_result"]["videos"][0]["url"]
    assert "Expires=" in url and "Signature=" in url
    answer = requests.get(url, timeout=10)
    assert answer.headers["Content-Type"] == "video/mp4"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert answer.content.find(b"moov") < answer.content.find(b"mdat")
    walk = BoxWalk(len(answer.content))
    walk.feed(answer.content)
    walk.finish()
    assert walk.has_video_track  # as FFmpeg writes it
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


def test_a_watermarked_second_video(sim: Simulator) -> None:
    """Only where it is asked for, as long and as large as the first, and marked in its lower right corner alone."""
    account(sim, render_size=320)
    (plain,) = finished(sim, watermark_info={"enabled": False})["task_result"]["videos"]
    assert "watermark_url" not in plain
    task = finished(sim, watermark_info={"enabled": True})
    (video,) = task["task_result"]["videos"]
    assert query(sim, task["task_id"]).json()["data"]["task_result"] == task["task_result"]  # the same addresses again
    frames = []
    for name in ("url", "watermark_url"):
        with av.open(io.BytesIO(requests.get(video[name], timeout=10).content)) as file:
            frames.append([samples(one) for one in file.decode(video=0)])
    clean, marked = frames
    assert len(clean) == len(marked) == 121
    for before, after in zip(clean[::40], marked[::40], strict=True):
        rows = [(before[at : at + 96], after[at : at + 96]) for at in range(0, len(before), 96)]
        assert all(difference(one, other) < 3 for one, other in rows[:13])
        corner = [(one[66:93], other[66:93]) for one, other in rows[16:17]]
        assert all(difference(one, other) > 20 for one, other in corner)
        assert all(difference(one[:60], other[:60]) < 3 for one, other in rows)
    assert [one["marked"] for one in ledger(sim)["tasks"][-1]["downloads"]] == [False, True]


def test_sizes_and_lengths(sim: Simulator) -> None:
    account(sim, render_size=96)
    tall = {"model_name": "kling-v3", "prompt": "p", "duration": "3", "aspect_ratio": "9:16"}
    task = ended(sim, submit(sim, tall, kind="text2video").json()["data"]["task_id"], kind="text2video")
    assert task["task_result"]["videos"][0]["duration"] == "3.1"
    assert shape(task) == (54, 96, 73)
    pictures = {
        "model_name": "kling-v3",
        "prompt": "p",
        "aspect_ratio": "1:1",
        "image_list": [{"image": b64(SAMPLE)}, {"image": b64(picture(300, 400))}],
    }
    kind = "multi-image2video"
    assert shape(ended(sim, submit(sim, pictures, kind=kind).json()["data"]["task_id"], kind=kind)) == (96, 96, 121)
    assert shape(finished(sim, image=b64(picture(301, 403)))) == (72, 96, 121)


def test_pictures_by_address(sim: Simulator, receiver: CallbackReceiver) -> None:
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
    answer = requests.post(
        f"{url}/v1/videos/image2video", json={"model_name": "kling-v3", "image": b64(SAMPLE)}, headers=AUTH, timeout=5
    )
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
