"""Code as zip files for the emulator: every function's folder, and both layers built for this machine's Python."""

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

REPOSITORY = Path(__file__).resolve().parent.parent
STATE = REPOSITORY / ".local"
_LOCK = REPOSITORY / "layers/dependencies/requirements.txt"


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


def dependencies_layer() -> bytes:
    """The pinned dependencies as wheels of this machine (AWS gets those of arm64); installed once per lock file."""
    mark = hashlib.sha256(_LOCK.read_bytes() + sys.version.encode()).hexdigest()[:16]
    cached = STATE / f"dependencies-{mark}.zip"
    with _alone():
        if not cached.exists():
            for old in STATE.glob("dependencies-*"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            folder = STATE / f"dependencies-{mark}"
            _install(folder)
            fresh = cached.with_suffix(".part")
            fresh.write_bytes(zip_folder(folder, "python/"))
            fresh.replace(cached)
        return cached.read_bytes()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One process at a time: several stacks may start together, as the tests' do."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def dependencies_folder() -> Path:
    """Where `dependencies_layer` has unpacked them."""
    dependencies_layer()
    return next(path for path in STATE.glob("dependencies-*") if path.is_dir())


def _install(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--requirement", str(_LOCK), "--target", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise PackagingError(
            f"The packages of layers/dependencies could not be installed: {said}\n"
            "They are downloaded once: check the connection to your package index, then try again."
        )
