"""Run the project's commands like a user, and inspect the remaining processes and ports."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kling_relay_cli import REPOSITORY

FAST = {"PORT": "0", "AWS_PORT": "0", "WAIT_SCALE": "0.05", "RENDER_SECONDS": "0.5"}
LISTEN = "0A"  # the state of a listening socket in /proc/net/tcp


def until(what: Callable[[], Any], seconds: float = 90.0) -> Any:
    ends_at = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < ends_at, f"not within {seconds} s"
        time.sleep(0.05)
    return value


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """As in a user's shell; `folder` takes the state and every temporary folder."""
    (folder / "tmp").mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    state = {"KLING_RELAY_STATE": str(folder / "state"), "TMPDIR": str(folder / "tmp")}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", **state, **FAST, **variables}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "local.stack.run", *arguments]


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; what it wrote is text."""
    return subprocess.run(
        command(*arguments), cwd=REPOSITORY, env=environment(folder, **variables), capture_output=True, text=True,
        timeout=90, check=False,
    )  # fmt: skip


class Running:
    """A command that goes on; `lines` is what it has written so far."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        self.out = folder / "out.txt"
        with self.out.open("w") as file:
            self.process = subprocess.Popen(
                command(*arguments), cwd=REPOSITORY, env=environment(folder, **variables), stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    def said(self, words: str) -> str:
        """The first line with `words`, waited for."""

        def look() -> str:
            assert self.process.poll() is None, self.out.read_text()
            return next((line for line in self.lines if words in line), "")

        return until(look)

    def family(self) -> set[int]:
        """Its process id and those of all its descendants."""
        children: dict[int, list[int]] = {}
        for pid, parent in _parents():
            children.setdefault(parent, []).append(pid)
        found, queue = set(), [self.process.pid]
        while queue:
            found.add(pid := queue.pop())
            queue += children.get(pid, [])
        return found


@contextmanager
def running(folder: Path, *arguments: str, **variables: str) -> Iterator[Running]:
    """A command that is killed at the latest here, with everything that it started."""
    started = Running(folder, *arguments, **variables)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.send_signal(signal.SIGTERM)
            try:
                started.process.wait(20)
            except subprocess.TimeoutExpired:
                for pid in started.family():
                    os.kill(pid, signal.SIGKILL)
        started.process.wait(20)


def _parents() -> list[tuple[int, int]]:
    """(process, its parent) of everything that runs; zombies do not."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in listed.splitlines())
    return [(int(pid), int(parent)) for pid, parent, state in rows if state[0] != "Z"]


def alive(pids: set[int]) -> set[int]:
    return pids & {pid for pid, _ in _parents()}


def listening(pids: set[int]) -> dict[int, str]:
    """Port -> address (hexadecimal, as the kernel writes it) of every TCP socket that these processes listen on."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
            except FileNotFoundError:
                continue  # closed meanwhile
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                found[int(port, 16)] = address
    return found
