"""Test the layers' makefiles, which `sam build` calls: the bytecode depends neither on file times nor on sources."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.template.rules import REPOSITORY

LOAD_ONLY = """
import sys
from importlib.machinery import SourceFileLoader

def refuse(*_, **__):
    raise SystemExit("compiled from source")

SourceFileLoader.source_to_code = refuse
sys.dont_write_bytecode = True
import kling_relay.tasks.task
print(kling_relay.tasks.task.Phase("accepted"))
"""
DEAD = "#!/bin/sh\nexit 127\n"  # what pyenv puts on PATH for a version that is not selected


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def build(tmp_path: Path) -> tuple[Path, str]:
    """The relay layer as `sam build` makes it, with `python3.13` as the test put it; the folder, and what was said."""
    home, first = tmp_path / "home", tmp_path / "bin"
    environment = {"PATH": f"{first}:/usr/bin:/bin", "HOME": str(home), "ARTIFACTS_DIR": str(tmp_path / "built")}
    command = ["make", "-C", str(REPOSITORY / "layers/relay"), "build-RelayLayer"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return tmp_path / "built/python", done.stdout + done.stderr


def flags(folder: Path) -> list[int]:
    """The field of each .pyc that says how it is kept valid: 1: by hash, never compared with a source."""
    return [struct.unpack("<I", path.read_bytes()[4:8])[0] for path in folder.rglob("*.pyc")]


@pytest.mark.parametrize("place", ["bin/python3.13", "home/.pyenv/versions/3.13.9/bin/python3.13"])
def test_bytecode_is_made_where_a_python_is_at_hand(tmp_path: Path, place: str) -> None:
    """This Python stands in for 3.13: what matters is that it is found, and how it is asked to compile."""
    program(tmp_path / "bin/python3.13", DEAD)
    program(tmp_path / place, f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    built, _ = build(tmp_path)
    assert set(flags(built)) == {1}
    assert len(flags(built)) == len(list(built.rglob("*.py")))
    for source in built.rglob("*.py"):
        os.utime(source, (0, 0))  # as in a zip
    command = [sys.executable, "-c", LOAD_ONLY]
    loaded = subprocess.run(command, cwd=built, capture_output=True, text=True, check=False)
    assert (loaded.stdout.strip(), loaded.stderr) == ("accepted", "")


def test_ordinary_bytecode_would_be_compiled_again(tmp_path: Path) -> None:
    """What the test above has to catch."""
    program(tmp_path / "bin/python3.13", DEAD)
    built, _ = build(tmp_path)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(built)], check=True)
    assert set(flags(built)) == {0}
    for source in built.rglob("*.py"):
        os.utime(source, (0, 0))
    loaded = subprocess.run([sys.executable, "-c", LOAD_ONLY], cwd=built, capture_output=True, text=True, check=False)
    assert "compiled from source" in loaded.stderr


def test_without_one_the_layer_is_whole_and_says_so(tmp_path: Path) -> None:
    program(tmp_path / "bin/python3.13", DEAD)
    built, said = build(tmp_path)
    assert flags(built) == []
    assert "no Python 3.13 here" in said
    package = REPOSITORY / "layers/relay/kling_relay"
    sources = {path.relative_to(package) for path in package.rglob("*.*") if path.suffix != ".pyc"}
    assert {path.relative_to(built / "kling_relay") for path in (built / "kling_relay").rglob("*.*")} == sources


def test_functions_get_bytecode_that_is_compared_with_its_source(tmp_path: Path) -> None:
    """They are packed from the folder that they are edited in: an edit must not be answered by what it was before."""
    program(tmp_path / "bin/python3.13", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    app = tmp_path / "functions/one/app.py"
    program(app, "print('first')")
    program(app.parent / "__pycache__/left.pyc", "of another Python")
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}
    command = ["make", "-C", str(REPOSITORY / "layers/relay"), "bytecode", f"FOLDERS={app.parent}"]
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert flags(app.parent) == [3]  # by hash, compared
    os.utime(app, (0, 0))
    load = [
        sys.executable,
        "-c",
        LOAD_ONLY.replace("import kling_relay.tasks.task", "import app").partition("print(")[0],
    ]
    done = subprocess.run(load, cwd=app.parent, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("first\n", "")
    app.write_text("print('other')")
    done = subprocess.run(load, cwd=app.parent, capture_output=True, text=True, check=False)
    assert "compiled from source" in done.stderr


def test_both_layers_look_for_it_in_the_same_way() -> None:
    layers = [(REPOSITORY / f"layers/{name}/Makefile").read_text() for name in ("relay", "dependencies")]
    search = [text[text.index("BYTECODE :=") : text.index("done)")] for text in layers]
    assert search[0] == search[1]
    compiling = [[line for line in text.splitlines() if "unchecked-hash" in line] for text in layers]
    assert compiling[0] == compiling[1]
    assert "compileall -q --invalidation-mode unchecked-hash" in compiling[0][0]


def test_sam_build_needs_no_pip_of_the_systems_python(tmp_path: Path) -> None:
    """sam calls the makefiles in a folder elsewhere, with its own environment. Belief (seen, Debian and Ubuntu): with
    python3 and python3-venv alone, new environments have pip, and the system's Python has none."""
    program(tmp_path / "bin/python3", '#!/bin/sh\necho "No module named pip" >&2; exit 1\n')
    program(tmp_path / "venv/sam/bin/python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program(tmp_path / "venv/sam/bin/sam", '#!/bin/sh\ncd / && exec "${PYTHON:-python3}" -m pip --version\n')
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}
    dry = ["make", "-n", "build", f"VENV={os.path.relpath(tmp_path / 'venv', REPOSITORY)}"]
    told = subprocess.run(dry, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    sam_build = told.stdout.splitlines()[-1]
    assert sam_build.endswith("sam build")
    done = subprocess.run(["sh", "-c", sam_build], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
