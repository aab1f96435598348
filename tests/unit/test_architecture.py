"""Test the rules that the import-linter contracts in pyproject.toml cannot express."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "layers" / "relay" / "kling_relay"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.stem != "__init__"
}
FUNCTIONS = {path.parent.name: path for path in sorted((ROOT / "functions").glob("*/app.py"))}
HOME = [path for folder in ("kling_relay_cli", "local", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> Iterator[str]:
    """Every dotted name that a file imports, wherever in it the import stands."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_import_the_package_and_never_each_other(name: str) -> None:
    tops = {one.split(".")[0] for one in imported(FUNCTIONS[name])}
    assert tops <= sys.stdlib_module_names | {"kling_relay", "aws_lambda_powertools", "boto3", "botocore"}


def test_only_one_module_makes_html() -> None:
    """A text that is taken for HTML anywhere else would reach a viewer's console unescaped."""
    makers = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Html"
    }
    assert makers == {"operations.safe_html"}


@pytest.mark.parametrize("path", [*MODULES.values(), *HOME], ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_have_at_most_300_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("name", FUNCTIONS)
def test_handlers_have_at_most_40_lines(name: str) -> None:
    assert len(FUNCTIONS[name].read_text().splitlines()) <= 40


def test_only_services_reads_the_environment() -> None:
    readers = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb")
    }
    assert readers == {"services"}
    module = tree(MODULES["services"])
    (reader,) = (node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "get_services")
    assert ast.unparse(module).count("environ") == ast.unparse(reader).count("environ") > 0


def test_importing_everything_reads_nothing_and_connects_nowhere() -> None:
    """In a process of its own, with an environment and sockets that refuse to be used by our code."""
    script = f"""
import os, socket, sys, traceback
sys.path.insert(0, {str(PACKAGE.parent)!r})
def ours():
    return [frame for frame in traceback.extract_stack()[-4:-2] if "kling_relay" in frame.filename]
class Watched(type(os.environ)):
    def __getitem__(self, key):
        assert not ours(), key
        return super().__getitem__(key)
os.environ.__class__ = Watched
def refuse(*_): raise AssertionError("connected at import time")
socket.socket.connect = refuse
for name in {sorted(MODULES)!r}:
    __import__("kling_relay." + name)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
