"""Test the choice of the Python for the laptop's functions; scripts play interpreters."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.emulator import runtime
from local.emulator.runtime import Python

DEAD = "exit 127"  # what pyenv puts on PATH for a version that is not selected
OTHER = Python("/ours/python", "3.11")


def program(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def interpreter(path: Path) -> str:
    """A Python 3.13 whose `sys.executable` is `path`."""
    return program(path, f"echo {path}")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine without any Python 3.13."""
    monkeypatch.setattr(runtime, "HERE", OTHER)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    runtime.of_functions.cache_clear()
    yield tmp_path
    runtime.of_functions.cache_clear()


def test_ours_if_there_is_no_other(machine: Path) -> None:
    program(machine / "bin/python3.13", DEAD)
    program(machine / ".pyenv/versions/3.13.0/bin/python3.13", DEAD)
    assert runtime.of_functions() == OTHER


def test_ours_if_it_is_the_right_one(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Python("/ours/python", "3.13")
    monkeypatch.setattr(runtime, "HERE", ours)
    interpreter(machine / "bin/python3.13")
    assert runtime.of_functions() == ours


@pytest.mark.parametrize("place", [".pyenv/versions/3.13.7/bin/python3.13", "bin/python3.13"])
def test_the_one_that_starts(machine: Path, place: str) -> None:
    program(machine / "bin/python3.13", DEAD)
    program(machine / ".pyenv/versions/3.13.0/bin/python3.13", DEAD)
    assert runtime.of_functions.__wrapped__() == OTHER
    path = interpreter(machine / place)
    assert runtime.of_functions() == Python(path, "3.13")


def test_pyenv_may_lie_elsewhere(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = interpreter(machine / "elsewhere/versions/3.13.0/bin/python3.13")
    monkeypatch.setenv("PYENV_ROOT", str(machine / "elsewhere"))
    assert runtime.of_functions() == Python(path, "3.13")


def test_a_name_may_hide_another_version(machine: Path) -> None:
    """The real check, in this interpreter."""
    program(machine / "bin/python3.13", f'exec {sys.executable} "$@"')
    right = sys.version_info[:2] == (3, 13)
    assert runtime.of_functions() == (Python(sys.executable, "3.13") if right else OTHER)


@pytest.mark.parametrize(
    ("version", "found", "out", "err"),
    [
        ("3.11", True, "bin/python3.13\n", ""),
        ("3.11", False, "", "no Python 3.13 found: the tests on the functions' version are skipped\n"),
        ("3.13", True, "", "this Python is 3.13, the functions' version: the other tests have already run on it\n"),
    ],
)
def test_what_make_reads(
    version: str,
    found: bool,
    out: str,
    err: str,
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(runtime, "HERE", Python("/ours/python", version))
    if found:
        interpreter(machine / "bin/python3.13")
    runtime.main()
    assert capsys.readouterr() == (out and f"{machine}/{out}", err)


def test_the_functions_of_the_template_have_that_runtime() -> None:
    template = (Path(__file__).parents[3] / "template.yaml").read_text()
    assert f"Runtime: python{runtime.LAMBDA}\n" in template
