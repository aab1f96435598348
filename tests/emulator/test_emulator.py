"""Test the emulator as a process: it leaves nothing behind, binds to loopback only, and has a clean environment."""

import json
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from local.emulator.patches import patching
from local.emulator.process import REPOSITORY, Emulator, EmulatorError
from tests.emulator.aws import Aws

PARENT = """
import json, signal, sys, time
from pathlib import Path
from local.emulator.process import Emulator

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with Emulator(log_path=Path(sys.argv[1])) as emulator:
    print(json.dumps([emulator.pid, str(emulator._folder)]), flush=True)
    time.sleep(60)
"""


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def group_is_gone(group: int) -> bool:
    """No process of the group runs. Zombies do not count: if their parent was killed, they are left to init."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return not any(int(pgid) == group and state[0] != "Z" for pgid, state in map(str.split, listed.splitlines()))


def create_function(emulator: Emulator, name: str, body: str) -> None:
    aws = Aws(emulator)
    aws.create_role("any", {"Effect": "Allow", "Action": "*", "Resource": "*"})
    aws.create_function(name, f"import os, time\ndef handler(event, context): {body}", Timeout=30)


def test_stop_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    emulator = Emulator(log_path=tmp_path / "emulator.log").start()
    group, folder = emulator.pid, emulator._folder
    assert folder is not None
    create_function(emulator, "busy", "time.sleep(20)")
    emulator.client("lambda").invoke(FunctionName="busy", InvocationType="Event")
    until(lambda: any("busy" in path.name for path in folder.iterdir()))
    started = time.monotonic()
    emulator.stop()
    emulator.stop()
    assert time.monotonic() - started < 5
    assert not folder.exists()
    until(lambda: group_is_gone(group))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_parent(tmp_path: Path, end: signal.Signals) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "emulator.log")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        group, folder = json.loads(parent.stdout.readline())
        assert Path(folder).exists()
        parent.send_signal(end)
    until(lambda: group_is_gone(group) and not Path(folder).exists())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers on every 127.x.x.x address")
def test_it_listens_on_the_loopback_address_only(tmp_path: Path) -> None:
    with Emulator(log_path=tmp_path / "emulator.log") as emulator:
        socket.create_connection(("127.0.0.1", emulator.port)).close()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", emulator.port))


def test_functions_see_the_endpoint_and_nothing_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://elsewhere.invalid")
    monkeypatch.setenv("KLING_API_KEY", "secret")
    with Emulator(log_path=tmp_path / "emulator.log") as emulator:
        create_function(emulator, "environment", "return dict(os.environ)")
        seen = json.loads(emulator.client("lambda").invoke(FunctionName="environment")["Payload"].read())
        assert emulator.client("s3").list_buckets()["Buckets"] == []
    assert seen["AWS_ENDPOINT_URL"] == emulator.endpoint_url
    assert seen["AWS_REGION"] == "us-east-1"
    assert not {"AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "KLING_API_KEY"} & seen.keys()


def test_two_run_side_by_side(tmp_path: Path) -> None:
    with Emulator(log_path=tmp_path / "a.log") as one, Emulator(log_path=tmp_path / "b.log") as other:
        one.client("s3").create_bucket(Bucket="mine")
        assert other.client("s3").list_buckets()["Buckets"] == []


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(EmulatorError, match="not free"):
        Emulator(log_path=tmp_path / "emulator.log", port=taken.getsockname()[1]).start()


def test_an_emulator_that_dies_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.emulator.process.REPOSITORY", tmp_path)
    with pytest.raises(EmulatorError, match=r"exit code 1(?s:.*)No module named"):
        Emulator(log_path=tmp_path / "emulator.log").start()


def test_another_ministack_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patching, "MINISTACK_VERSION", "0.0.0")
    with pytest.raises(patching.UnexpectedMiniStackError, match=r"0\.0\.0"):
        patching.apply_all()


def test_changed_code_is_refused() -> None:
    with pytest.raises(patching.UnexpectedMiniStackError, match="once"):
        patching.swap(textwrap.dedent, ("no such fragment", ""))
    with pytest.raises(patching.UnexpectedMiniStackError, match="digest"):
        patching.wrap(textwrap, "dedent", "000000000000")
