"""Run the AWS emulator of the local stack: the corrected MiniStack as a child process that leaves nothing behind."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

import boto3
import botocore.session
from botocore.config import Config

from kling_relay_cli import REPOSITORY
from local.emulator import runtime

REGION = "us-east-1"
ACCOUNT_CONCURRENCY = 12
"""Concurrent Lambda invocations of all functions; further ones wait. Each is a process on the laptop."""
START_TIMEOUT = 60.0
"""Seconds until the start of an emulator that does not answer fails."""
PORT_ATTEMPTS = 5
"""Attempts, because another program may take a free port between the choice and the start."""

INHERITED = (
    *("PATH", "HOME", "LANG", "LC_ALL", "HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    "ALLOW_LOCAL_WEBHOOKS",  # 1: webhooks may go to receivers on this machine
)
"""The variables of the user's environment that the emulator, and so every Lambda, inherits to reach a real provider."""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}  # nosec B105
"""MiniStack's root credentials. They are no secret: `guard` refuses web pages, and local programs need no key."""


class EmulatorError(Exception):
    """The emulator did not start, or has ended unexpectedly; the message has the end of its log."""


class PortInUse(EmulatorError):
    """Another program listens on the requested port."""


class Emulator:
    """Run an emulator, as a context manager.

    `wait_scale` multiplies the workflow's Wait states and Retry intervals, not its timeouts. `port` 0 means any free
    port. The pages of the front on `front_port` may call the emulator; no other page may. `stock` leaves the
    corrections out, to show which of them are still needed.
    """

    endpoint_url: str
    """`http://localhost:PORT`; localhost, so that a custom domain of API Gateway can have the host 127.0.0.1."""

    def __init__(
        self,
        *,
        log_path: Path,
        wait_scale: float = 1.0,
        port: int = 0,
        front_port: int | None = None,
        stock: bool = False,
    ) -> None:
        self.log_path = log_path
        self.calls_path = log_path.with_suffix(".calls.jsonl")  # authorizations of roles: patches/access.py
        self.wait_scale = wait_scale
        self.port = port
        self.front_port = front_port
        self.stock = stock
        self.cloudwatch_ahead = 0.0
        """Seconds; see `put_cloudwatch_forward`."""
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._stopping = threading.RLock()
        self._session = _session()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Return the process id, also the process group, of the emulator and its Lambda workers."""
        if self._process is None:
            raise EmulatorError("The emulator is not running")
        return self._process.pid

    def start(self) -> Self:
        """Start the emulator and wait until it answers."""
        wanted = self.port
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self.port = _free_port(wanted)
            self.endpoint_url = f"http://localhost:{self.port}"
            try:
                self._launch()
                self._await_health()
                return self
            except EmulatorError:
                self.stop()
                if wanted or attempt == PORT_ATTEMPTS or "already in use" not in self._log_tail():
                    raise
            except BaseException:
                self.stop()
                raise
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """End the emulator and every Lambda worker, and delete its folder. Safe to repeat, and in a signal handler."""
        with self._stopping:
            process, self._process = self._process, None
            folder, self._folder = self._folder, None
        if process is not None:
            if process.poll() is None:
                self._reset()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def check(self) -> None:
        """Raise EmulatorError if the emulator has ended unexpectedly."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise EmulatorError(f"The emulator ended with exit code {code}. {self._log_tail()}")

    def client(self, service: str) -> Any:
        """Return a boto3 client on the emulator. It reads none of the user's AWS settings and never retries."""
        return self._session.client(
            service,
            endpoint_url=self.endpoint_url,
            config=Config(
                signature_version="s3v4" if service == "s3" else None,
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1},
                proxies={},
                inject_host_prefix=False,
            ),
        )

    def put_cloudwatch_forward(self, seconds: float) -> None:
        """Put CloudWatch's clock forward, and no other clock.

        Metrics emitted from now on have times that are that much later.
        """
        self.cloudwatch_ahead += seconds
        setting = json.dumps({"cloudwatch._ahead_seconds": self.cloudwatch_ahead}).encode()
        _request(f"{self.endpoint_url}/_ministack/config", method="POST", timeout=5, body=setting)

    def _launch(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="kling-relay-emulator-"))
        command = [sys.executable, "-m", "local.emulator.patches", "--end-with", str(os.getpid()), str(self._folder)]
        command += ["--stock"] if self.stock else []
        command += ["--front-port", str(self.front_port)] if self.front_port is not None else []
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.calls_path.write_bytes(b"")
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group: stop() reaches the Lambda workers, Ctrl-C does not
            )

    def _environment(self) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            **CREDENTIALS,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "GATEWAY_PORT": str(self.port),
            "BIND_HOST": "127.0.0.1",
            "AUTH": "true",  # calls are checked against the caller's policies
            "CALLS_FILE": str(self.calls_path),
            "FUNCTION_PYTHON": runtime.of_functions().path,
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "DOCKER_HOST": "unix:///nonexistent",  # with Docker, MiniStack would remove other containers
            "LAMBDA_ACCOUNT_CONCURRENCY": str(ACCOUNT_CONCURRENCY),
            "SFN_WAIT_SCALE": str(self.wait_scale),
            "TMPDIR": str(self._folder),
            "TZ": "UTC",
        }

    def _await_health(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(OSError):
                _request(f"{self.endpoint_url}/_ministack/health", timeout=5)
                self.check()
                return
            time.sleep(0.05)
        raise EmulatorError(f"The emulator does not answer within {START_TIMEOUT:g} s. {self._log_tail()}")

    def _reset(self) -> None:
        """Let the emulator end its Lambda workers: only their parent process can collect them when they exit."""
        with contextlib.suppress(OSError):
            _request(f"{self.endpoint_url}/_ministack/reset", method="POST", timeout=3)

    def _log_tail(self) -> str:
        tail = self.log_path.read_text(errors="replace").splitlines()[-20:]
        return "\n".join([f"The end of {self.log_path}:", *tail])


def _request(url: str, *, method: str = "GET", timeout: float, body: bytes | None = None) -> None:
    """Call the emulator without a proxy; raise OSError unless it answers 2xx within `timeout` seconds."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, data=body, method=method), timeout=timeout):  # noqa: S310
        pass


def _free_port(wanted: int) -> int:
    """Return `wanted`, or any free port if it is 0. Raise PortInUse if a program listens on it, at ::1 included."""
    with contextlib.suppress(OSError):
        if wanted:
            socket.create_connection(("localhost", wanted), timeout=1).close()
            raise PortInUse(f"Port {wanted} is not free: a program answers there")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise PortInUse(f"Port {wanted} is not free: {error.strerror}") from error
        return int(probe.getsockname()[1])


def _session() -> boto3.Session:
    """Return a session that reads neither AWS_PROFILE nor the user's AWS files."""
    variables = {
        "profile": (None, None, None, None),
        "config_file": (None, None, os.devnull, None),
        "credentials_file": (None, None, os.devnull, None),
    }
    return boto3.Session(
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
        botocore_session=botocore.session.Session(session_vars=variables),
    )
