"""Build the functions and their layers as on Lambda, with bytecode of the Python that measures."""

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
SITE = Path(sysconfig.get_path("purelib"))  # this Python's packages, with boto3 as published
_USUAL = REPOSITORY / ".venv/bench"  # the packages of the comparison: requirements/bench.in


@cache
def layers() -> list[Path]:
    """Return the folders that Lambda puts on the path, for this Python.

    The packages of the comparison are installed for it.
    """
    made = {"dependencies": packaging.dependencies_folder(runtime.HERE), "relay": REPOSITORY / "layers/relay"}
    return [_copied(folder, HERE / name, "unchecked-hash") for name, folder in made.items()]


@cache
def function(name: str) -> Path:
    return _copied(REPOSITORY / "functions" / name, HERE / "functions" / name, "checked-hash")


@cache
def usual() -> list[Path]:
    """Return a function in the usual style, and its packages as pip leaves them in a layer: without bytecode."""
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
