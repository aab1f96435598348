"""Measure copies of a video: throughput, CPU and memory, against bare sockets and against `curl | aws s3 cp`.

Throughput uses wall-clock time. The source and the sink run on the same machine, so CPU time is measured as well. The
pipeline is measured as a whole command. Our copy is then a whole command too: both start an interpreter and load their
packages.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import built, loopback
from bench.ratio import Ratio, compared, in_turn
from kling_relay_cli import REPOSITORY

_MB = 1_000_000
_SMALL, _USUAL, _LARGE = 5 * _MB, 500 * _MB, 2000 * _MB
_OTHERS = {"archive_raw_5mb": (_SMALL, 25), "archive_raw_50mb": (50 * _MB, 15), "archive_raw_2gb": (_LARGE, 3)}
_ROUNDS, _COMMAND_ROUNDS, _MEMORY_ROUNDS = 9, 7, 2
_WAYS = ("relay", "pump", "checked")  # of copier.py
_ALLOWED = 8.0  # MB: a copy of 2 GB may use this much more memory than one of 5 MB
_PYTHON = REPOSITORY / ".venv/bench/bin/python"
# The CLI signs the whole body only over plain HTTP. AWS never receives plain HTTP, so this is switched off.
_CLI_CONFIG = "[default]\ns3 =\n  payload_signing_enabled = false\n"


@dataclass(frozen=True, slots=True)
class _Spent:
    """Hold the wall-clock and CPU seconds of one copy, and the peak memory (MB) if it was a whole command."""

    seconds: float
    cpu: float
    peak: float = 0.0


_Copy = Callable[[str, int], _Spent]  # arguments: implementation, number of bytes


@dataclass(frozen=True, slots=True)
class _Ends:
    """Hold the source and the sink of the copies. `environment` is that of the copying process."""

    authority: str
    source: int
    sink: int
    environment: dict[str, str]

    def ours(self, *once: str) -> list[str]:
        script = str(Path(__file__).with_name("copier.py"))
        return [sys.executable, "-S", "-B", script, self.authority, str(self.source), str(self.sink), *once]

    def pipeline(self, size: int) -> list[list[str]]:
        get = ["curl", "--silent", "--show-error", "--fail", "--cacert", self.authority]
        put = [str(_PYTHON), "-m", "awscli", "s3", "cp", "--only-show-errors", "-", f"s3://videos/{size}.mp4"]
        return [[*get, f"https://127.0.0.1:{self.source}/{size}.mp4"], put]

    def with_layers(self) -> dict[str, str]:
        return self.environment | {"PYTHONPATH": os.pathsep.join(map(str, built.layers()))}


def measure() -> Iterator[Ratio]:
    with tempfile.TemporaryDirectory() as folder, _ends(Path(folder)) as ends:
        with _copier(ends) as copy:
            yield from _against_sockets(copy)
        yield from _against_the_pipeline(ends)


@contextmanager
def _ends(folder: Path) -> Iterator[_Ends]:
    known = {size: loopback.md5(size) for size in {_USUAL, *(size for size, _ in _OTHERS.values())}}
    authority, certificate = loopback.certify(folder)
    settings = folder / "config"
    settings.write_text(_CLI_CONFIG)
    with loopback.serving("source", str(certificate)) as source, loopback.serving("sink", json.dumps(known)) as sink:
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_CONFIG_FILE": str(settings),
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",  # nosec B105
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{sink}",
        }
        yield _Ends(str(authority), source, sink, environment)


@contextmanager
def _copier(ends: _Ends) -> Iterator[_Copy]:
    """Run all implementations in one process, which is warm like a function."""
    with subprocess.Popen(
        ends.ours(), env=ends.with_layers(), text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:

        def copy(way: str, size: int) -> _Spent:
            print(way, size, file=process.stdin)
            return _Spent(*map(float, process.stdout.readline().split()))  # type: ignore[union-attr]

        try:
            for way in _WAYS:
                copy(way, _SMALL)
            yield copy
        finally:
            process.kill()


def _against_sockets(copy: _Copy) -> Iterator[Ratio]:
    speed, cpu = _rounds(copy, _WAYS, _USUAL, _ROUNDS)
    yield compared("archive_raw", speed["relay"], speed["pump"], "MB/s")
    yield compared("archive_checked", speed["relay"], speed["checked"], "MB/s")
    yield compared("archive_cpu", cpu["relay"], cpu["pump"], "s CPU/GB")
    yield compared("archive_checked_cpu", cpu["relay"], cpu["checked"], "s CPU/GB")
    for name, (size, rounds) in _OTHERS.items():
        speed, _ = _rounds(copy, ("relay", "pump"), size, rounds)
        yield compared(name, speed["relay"], speed["pump"], "MB/s")


def _rounds(
    copy: _Copy, ways: tuple[str, ...], size: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return MB/s and CPU seconds per GB."""
    _say(f"{size // _MB} MB, {rounds} rounds of {', '.join(ways)}")
    cpu: dict[str, list[float]] = {way: [] for way in ways}

    def speed(way: str) -> float:
        spent = copy(way, size)
        cpu[way].append(spent.cpu / size * 1e9)
        return size / _MB / spent.seconds

    return in_turn({way: partial(speed, way) for way in ways}, rounds), cpu


def _against_the_pipeline(ends: _Ends) -> Iterator[Ratio]:
    def copy(way: str, size: int) -> _Spent:
        if way == "ours":
            return _timed([ends.ours("relay", str(size))], ends.with_layers())
        return _timed(ends.pipeline(size), ends.environment)

    def growth(way: str) -> float:
        return copy(way, _LARGE).peak - copy(way, _SMALL).peak

    ways: tuple[str, ...] = ("ours", "pipeline")
    if not (shutil.which("curl") and _PYTHON.exists()):
        ways = ("ours",)
        _say("archive_curl_aws is left out: it needs curl, and the AWS CLI that `make bench` puts into .venv/bench")
    for way in ways:
        copy(way, _SMALL)
    if "pipeline" in ways:
        speed, cpu = _rounds(copy, ways, _USUAL, _COMMAND_ROUNDS)
        yield compared("archive_curl_aws", speed["ours"], speed["pipeline"], "MB/s")
        yield compared("archive_curl_aws_cpu", cpu["ours"], cpu["pipeline"], "s CPU/GB")
    _say(f"peak of memory at {_LARGE // _MB} MB against {_SMALL // _MB}, {_MEMORY_ROUNDS} rounds of {', '.join(ways)}")
    grown = in_turn({way: partial(growth, way) for way in ways}, _MEMORY_ROUNDS)
    yield compared("archive_memory", grown["ours"], grown.get("pipeline", [_ALLOWED] * _MEMORY_ROUNDS), "MB grown")


def _timed(commands: list[list[str]], environment: dict[str, str]) -> _Spent:
    command = [sys.executable, "-S", str(Path(__file__).with_name("timed.py")), json.dumps(commands)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return _Spent(*map(float, done.stdout.split()))


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
