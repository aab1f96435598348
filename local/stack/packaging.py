"""Pack code as zip files for the emulator: every function's folder, and both layers, for the functions' Python."""

import contextlib
import fcntl
import hashlib
import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from kling_relay_cli import REPOSITORY, STATE
from local.emulator import runtime
from local.emulator.runtime import Python

_RECIPE = REPOSITORY / "layers/dependencies"


class PackagingError(Exception):
    """Packing failed; the text contains the remedy."""


def zip_folder(folder: Path, prefix: str = "") -> bytes:
    """Zip every file below `folder` except bytecode, under `prefix`; the same files give the same zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = f"{prefix}{path.relative_to(folder).as_posix()}"
                archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED, 1)
    return packed.getvalue()


def relay_layer() -> bytes:
    return zip_folder(REPOSITORY / "layers/relay/kling_relay", "python/kling_relay/")


def dependencies_layer(python: Python | None = None) -> bytes:
    """Zip the pinned dependencies for `python` (None: the functions'), as wheels of this machine.

    AWS gets those of arm64. The layer's own makefile builds them, so that packages left out on AWS are missing here
    too. They are installed once, until one of the recipe's files changes.
    """
    python = python or runtime.of_functions()
    recipe = b"".join(path.read_bytes() for path in sorted(_RECIPE.iterdir()) if path.is_file())
    mark = hashlib.sha256(recipe + sys.version.encode()).hexdigest()[:16]
    name = f"dependencies-{python.version}-"
    cached = STATE / f"{name}{mark}.zip"
    with _alone():
        if not cached.exists():
            for old in STATE.glob(f"{name}*"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            folder = STATE / f"{name}{mark}"
            _install(folder, python)
            fresh = cached.with_suffix(".part")
            fresh.write_bytes(zip_folder(folder))
            fresh.replace(cached)
        return cached.read_bytes()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Lock out other processes: several stacks may start at the same time, as in the tests."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def dependencies_folder(python: Python | None = None) -> Path:
    """Return the folder in which `dependencies_layer` has installed them."""
    python = python or runtime.of_functions()
    dependencies_layer(python)
    return next(path for path in STATE.glob(f"dependencies-{python.version}-*") if path.is_dir()) / "python"


def _install(folder: Path, python: Python) -> None:
    """Install with this Python's pip, because another Python may have none.

    Wheels only: a build needs the target Python.
    """
    wheels = "" if python == runtime.HERE else f"--python-version {python.version} --only-binary=:all:"
    command = ["make", "-C", str(_RECIPE), "build-DependenciesLayer", f"ARTIFACTS_DIR={folder}"]
    command += [f"PYTHON={sys.executable}", f"WHEELS={wheels}", "BYTECODE="]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason was given"]
        reason = next(
            (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1]
        )  # pip's, before make's own
        raise PackagingError(
            f"The packages of layers/dependencies could not be installed: {reason}\n"
            "Check the connection to your package index, then retry. They are downloaded only once."
        )
