"""Measure cold starts: CPU seconds from a fresh interpreter to a function that is ready to answer, its clients created.

Each function also creates the objects of an ordinary call. The reference creates one client, ours create two to four.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import built, loopback
from bench.ratio import Ratio, compared, counted, in_turn

_ROUNDS = 15
_READY = {
    "task_api": "services.workflows; services.provider.load(); services.client('secretsmanager'); services.client('ssm')",  # noqa: E501
    "kling_callback": "services.workflows; services.provider.load(); services.client('secretsmanager')",
    "advance_task": "services.provider.load(); services.client('secretsmanager')",
    "archive_video": "services.archive_s3; services.provider",
}
_RELAY = "from kling_relay.services import get_services; services = get_services(); services.table"
_GET = "services.table.rows.get('nothing')"
_REFERENCE = "import boto3; boto3.client('dynamodb')"
_ENVIRONMENT = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",  # nosec B105
    "AWS_LAMBDA_FUNCTION_NAME": "function",
    "TASK_TABLE": "tasks",
}


def measure() -> Iterator[Ratio]:
    cases = {
        "reference": partial(start, [built.SITE], _REFERENCE),
        "usual": partial(start, built.usual(), "import app"),
        **{
            name: partial(start, [built.function(name), *built.layers()], "import app", _RELAY, ready)
            for name, ready in _READY.items()
        },
    }
    for case in cases.values():
        case()  # reads the files from the disk once
    given = in_turn({name: partial(_milliseconds, case) for name, case in cases.items()}, _ROUNDS)
    for name in _READY:
        yield compared(f"cold_start_{name}", given[name], given["reference"], "ms CPU")
    yield compared("cold_start_usual", given["usual"], given["task_api"], "ms CPU")
    yield _first_tls()
    compiled = sum(cases[name]()[1] for name in _READY)
    yield counted("cold_start_compiled", compiled, cases["usual"]()[1], "modules compiled")


def _first_tls() -> Ratio:
    """Compare the first call of DynamoDB, which opens a connection, with the second call on the same connection."""
    with tempfile.TemporaryDirectory() as folder:
        authority, certificate = loopback.certify(Path(folder))
        with loopback.serving("table", str(certificate)) as port:
            layers = built.layers()
            with (layers[0] / "botocore/cacert.pem").open("a") as roots:  # one root more than the layer has
                roots.write(authority.read_text())
            address = {"AWS_ENDPOINT_URL": f"https://127.0.0.1:{port}"}
            path = [built.function("task_api"), *layers]
            given = in_turn(
                {
                    "first": partial(_milliseconds, partial(start, path, _GET, before=_RELAY, **address)),
                    "second": partial(_milliseconds, partial(start, path, _GET, before=f"{_RELAY}; {_GET}", **address)),
                },
                _ROUNDS,
            )
    return compared("first_tls", given["first"], given["second"], "ms CPU")


def _milliseconds(case: Callable[[], tuple[float, int]]) -> float:
    return case()[0] * 1000


def start(path: Sequence[Path], *code: str, before: str = "", **variables: str) -> tuple[float, int]:
    """Return the CPU seconds of `code`, and the number of modules that it compiled from source."""
    script = str(Path(__file__).with_name("start.py"))
    environment = {
        **_ENVIRONMENT,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        **variables,
    }
    command = [sys.executable, "-S", "-B", script, before, *code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(code)}: {done.stderr}")
    seconds, compiled = done.stdout.split()[-2:]
    return float(seconds), int(compiled)
