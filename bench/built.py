"""The functions and their layers as Lambda has them, with bytecode of the Python that measures."""

import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

from kling_relay_cli import REPOSITORY, STATE
from local.emulator import runtime
from local.stack import packaging

HERE = STATE / "bench"
SITE = Path(sysconfig.get_path("purelib"))  # where this Python's packages are, boto3 as it is published among them
_USUAL = REPOSITORY / ".venv/bench"  # what we are compared with: requirements/bench.in


@cache
def layers() -> list[Path]:
    """The folders that Lambda puts on the path, for this Python: the packages that we are compared with are its own."""
    made = {"dependencies": packaging.dependencies_folder(runtime.HERE), "relay": REPOSITORY / "layers/relay"}
    return [_copied(folder, HERE / name, "unchecked-hash") for name, folder in made.items()]


@cache
def function(name: str) -> Path:
    return _copied(REPOSITORY / "functions" / name, HERE / "functions" / name, "checked-hash")


@cache
def usual() -> list[Path]:
    """A function as it is usually written, and packages as pip leaves them in a layer: without bytecode."""
    packages = next(_USUAL.glob("lib/python*/site-packages"))
    return [_copied(Path(__file__).parent / "usual", HERE / "usual"), _copied(packages, HERE / "usual-packages")]


def _copied(source: Path, target: Path, bytecode: str | None = None) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        source, target, ignore=shutil.ignore_patterns("__pycache__", "awscli", "docutils", "pip", "setuptools")
    )
    if bytecode is not None:
        command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", bytecode, str(target)]
        subprocess.run(command, check=True)
    return target
