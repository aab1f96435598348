"""Code as zip files for the emulator: every function's folder, and both layers, built for the functions' Python."""

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
    """Something could not be packed; the text says what to do."""


def zip_folder(folder: Path, prefix: str = "") -> bytes:
    """Every file below `folder` but bytecode, under `prefix`, as a zip that is the same for the same files."""
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
    """The pinned dependencies as wheels of this machine (AWS gets those of arm64) for `python`, the functions' if None.

    The layer's own makefile makes them, so that what is left out on AWS is missing here too. They are installed once,
    until one of the recipe's files changes.
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
    """One process at a time: several stacks may start together, as the tests' do."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def dependencies_folder(python: Python | None = None) -> Path:
    """Where `dependencies_layer` has unpacked them."""
    python = python or runtime.of_functions()
    dependencies_layer(python)
    return next(path for path in STATE.glob(f"dependencies-{python.version}-*") if path.is_dir()) / "python"


def _install(folder: Path, python: Python) -> None:
    """With our own pip: another Python may have none. Wheels alone, because building needs the Python itself."""
    wheels = "" if python == runtime.HERE else f"--python-version {python.version} --only-binary=:all:"
    command = ["make", "-C", str(_RECIPE), "build-DependenciesLayer", f"ARTIFACTS_DIR={folder}"]
    command += [f"PYTHON={sys.executable}", f"WHEELS={wheels}", "BYTECODE="]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason was given"]
        said = next(
            (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1]
        )  # pip's, before make's own
        raise PackagingError(
            f"The packages of layers/dependencies could not be installed: {said}\n"
            "They are downloaded once: check the connection to your package index, then try again."
        )
