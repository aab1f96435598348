"""Find the Python for the laptop's functions: Lambda's version if this machine has it, otherwise this one.

python -m local.emulator.runtime    print its path if it is another Python; otherwise the reason on standard error
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LAMBDA = "3.13"
"""The runtime of the functions in template.yaml."""


@dataclass(frozen=True, slots=True)
class Python:
    """Hold the `path` of an interpreter and its `version`, for example "3.13"."""

    path: str
    version: str


HERE = Python(sys.executable, f"{sys.version_info.major}.{sys.version_info.minor}")


@cache
def of_functions() -> Python:
    """Return the first Python 3.13 that starts: this one, the one on PATH, pyenv's; otherwise this one, of any version.

    The layers' makefiles search in the same order. For versions that are not selected, pyenv puts a script on PATH that
    starts nothing.
    """
    if HERE.version == LAMBDA:
        return HERE
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [f"python{LAMBDA}", *map(str, sorted(pyenv.glob(f"versions/{LAMBDA}*/bin/python{LAMBDA}")))]
    return next((Python(path, LAMBDA) for name in found if (path := _started(name))), HERE)


def _started(name: str) -> str:
    """Return the path of the interpreter behind `name`, or "" if it does not start or has another version."""
    script = f"import sys; print(sys.executable if sys.version.startswith('{LAMBDA}.') else '')"
    try:
        done = subprocess.run([name, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def main() -> None:
    if HERE.version == LAMBDA:
        print(
            f"this Python is {LAMBDA}, the functions' version: the other tests have already run on it", file=sys.stderr
        )
    elif of_functions() == HERE:
        print(f"no Python {LAMBDA} found: the tests on the functions' version are skipped", file=sys.stderr)
    else:
        print(of_functions().path)


if __name__ == "__main__":
    main()
