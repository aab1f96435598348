"""Test `make run` and `make serve` as a user runs them: separate processes, real ports, real files."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

import av
import pytest
import requests

from kling_relay_cli import REPOSITORY
from tests.e2e.processes import alive, listening, run, running, until

KEYS = {
    "api_url", "api_key", "access_key", "secret_key", "second_api_key", "input_bucket", "video_bucket", "task_table",
    "state_machine_arn", "aws_endpoint_url", "region", "simulator_url", "pid",
}  # fmt: skip


def picture(path: Path, width: int, height: int, codec: str = "mjpeg", kind: str = "mandelbrot") -> Path:
    """A file with one picture in the format of `codec`."""
    graph = av.filter.Graph()
    start, end = graph.add(kind, f"s={width}x{height}"), graph.add("buffersink")
    start.link_to(end)
    graph.configure()
    encoder = av.CodecContext.create(codec, "w")
    formats = {"mjpeg": "yuvj420p", "png": "rgb24", "bmp": "bgr24"}
    encoder.width, encoder.height, encoder.pix_fmt = width, height, formats[codec]
    encoder.time_base, encoder.options = Fraction(1, 1), {"qmin": "1", "qmax": "1"} if codec == "mjpeg" else {}
    frame = end.pull().reformat(format=formats[codec])
    frame.pts = None
    path.write_bytes(b"".join(bytes(one) for one in [*encoder.encode(frame), *encoder.encode(None)]))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_serve_lives_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, "--serve") as serve:
        serve.said("serving until Ctrl-C")
        path = tmp_path / "state" / "endpoint.json"
        endpoint = json.loads(path.read_text())
        assert endpoint.keys() == KEYS and all(endpoint.values())
        assert endpoint["pid"] == serve.process.pid and stat.S_IMODE(path.stat().st_mode) == 0o600
        assert serve.said("ready:").endswith(f"{endpoint['api_url']}  (keys and names: {path})")
        url = f"{endpoint['api_url']}/v1/videos/image2video/none"
        answer = requests.get(url, headers={"Authorization": f"Bearer {endpoint['api_key']}"}, timeout=20)
        assert (answer.status_code, answer.json()["code"]) == (404, 1203)

        family = serve.family()
        assert len(family) >= 4  # itself, emulator, simulator, a Lambda worker
        ports = listening(family)
        for name in ("api_url", "aws_endpoint_url", "simulator_url"):
            assert urlsplit(endpoint[name]).port in ports
        assert set(ports.values()) == {"0100007F"}  # 127.0.0.1
        assert [one.name for one in (tmp_path / "tmp").iterdir() if one.name.startswith("kling-relay-emulator-")]

        os.kill(endpoint["pid"], signal.SIGTERM)
        assert serve.process.wait(20) == 0
        until(lambda: not alive(family))
        until(lambda: not list((tmp_path / "tmp").iterdir()))
        assert not path.exists()
        assert "Traceback" not in "\n".join(serve.lines)


def test_ctrl_c_ends_it_while_it_starts(tmp_path: Path) -> None:
    with running(tmp_path, "--serve") as serve:
        serve.said("deploying")
        family = serve.family()
        for _ in range(3):  # an impatient user
            os.killpg(serve.process.pid, signal.SIGINT)
        assert serve.process.wait(20) == 0
        until(lambda: not alive(family))
        until(lambda: not list((tmp_path / "tmp").iterdir()))
        assert not (tmp_path / "state" / "endpoint.json").exists() and "Traceback" not in "\n".join(serve.lines)


def test_run_shows_each_step_and_commands_that_work(tmp_path: Path) -> None:
    with running(tmp_path, RENDER_SECONDS="3") as sample:
        sample.said("serving until Ctrl-C")
        text = "\n".join(sample.lines)
        steps = re.findall(r"^ +\d+\.\d s  (accepted|submitted|processing|rendered|copied|succeed) ", text, re.M)
        assert steps == ["accepted", "submitted", "processing", "rendered", "copied", "succeed"]
        video = Path(sample.said("video: ").removeprefix("video: "))
        assert video.parent == tmp_path / "state" / "videos"
        commands = [line for line in sample.lines if "curl -s" in line]
        assert len(commands) == 3
        answers = []
        for line in commands:
            done = subprocess.run(
                ["sh", "-c", line], cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=True
            )
            answers.append(json.loads(done.stdout))
        assert [answer["code"] for answer in answers] == [0, 0, 0], answers
        assert [answer["data"]["task_status"] for answer in answers] == ["succeed", "submitted", "submitted"]
        assert answers[0]["data"]["task_id"] == video.stem
        sample.process.send_signal(signal.SIGINT)
        assert sample.process.wait(20) == 0
    assert sample.lines[-1].endswith("stopped") and "Traceback" not in "\n".join(sample.lines)


@pytest.mark.parametrize(
    ("name", "codec", "size"),
    [("big photo.jpg", "mjpeg", (4000, 3000)), ("large.png", "png", (2400, 1800)), ("other.bmp", "bmp", (640, 480))],
)
def test_once_with_a_picture_of_ones_own(tmp_path: Path, name: str, codec: str, size: tuple[int, int]) -> None:
    image = picture(tmp_path / name, *size, codec)
    done = run(tmp_path, ONCE="1", IMAGE=str(image), PROMPT='it\'s "moving"')
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("video: ")]
    with av.open(line.removeprefix("video: ")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) > 100 and abs(frames[0].width / frames[0].height - 4 / 3) < 0.02
    assert done.stderr == "" and "curl" not in done.stdout  # nobody answers any more
    assert list((tmp_path / "tmp").iterdir()) == [] and not (tmp_path / "state" / "endpoint.json").exists()


def test_a_picture_that_the_api_refuses(tmp_path: Path) -> None:
    small = picture(tmp_path / "small.png", 200, 200, "png")
    done = run(tmp_path, ONCE="1", IMAGE=str(small))
    assert done.returncode == 1
    assert "1201" in done.stderr and "300 px" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"KLING_BASE_URL": "https://api.example"}, "KLING_API_KEY"),
        ({"KLING_BASE_URL": "https://api.example/path", "KLING_API_KEY": "k"}, "no path"),
        ({"KLING_BASE_URL": "http://api.example", "KLING_API_KEY": "k"}, "https"),
        ({"PROVIDER": "nobody"}, "cometapi"),
        ({"PORT": "http"}, "PORT: must be a whole number"),
        ({"PORT": "70000"}, "65535"),
        ({"AWS_PORT": "http"}, "AWS_PORT: must be a whole number"),
        ({"WAIT_SCALE": "2"}, "WAIT_SCALE"),
        ({"WAIT_SCALE": "fast"}, "WAIT_SCALE"),
        ({"RENDER_SECONDS": "-1"}, "RENDER_SECONDS"),
        ({"IMAGE": "/nowhere/cat.jpg"}, "image: file not found (got /nowhere/cat.jpg)"),
        ({"IMAGE": "/"}, "directory"),
        ({"IMAGE": "Makefile"}, "not a readable image"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, variables: dict[str, str], words: str) -> None:
    done = run(tmp_path, ONCE="1", **variables)
    assert done.returncode == 1 and words in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert "starting" not in done.stdout  # told before anything is started
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_port_in_use_is_told_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(tmp_path, "--serve", PORT=str(port))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"Port {port} is in use" in done.stderr and "PORT=" in done.stderr
    assert "starting" not in done.stdout and list((tmp_path / "tmp").iterdir()) == []
