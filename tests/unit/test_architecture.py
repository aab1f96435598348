"""The floors of the house, read from the imports themselves."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "layers" / "relay" / "kling_relay"
MODULES = {path.stem: path for path in sorted(PACKAGE.glob("*.py")) if path.stem != "__init__"}
FUNCTIONS = {path.parent.name: path for path in sorted((ROOT / "functions").glob("*/app.py"))}
PURE = {
    "task",
    "source",
    "discrepancy",
    "request",
    "message",
    "schema",
    "rules",
    "wording",
    "spelling",
    "catalogue",
    "images",
    "errors",
    "snapshot",
    "escaping",
    "schedule",
    "facts",
    "keyring",
    "webhooks",
    "signed_urls",
    "mp4",
    "notices",
    "output_names",
    "failure",
    "markup",
    "widgets",
    "story",
}
IMPURE = {"boto3", "botocore", "requests", "urllib3", "http", "socket", "os", "subprocess", "threading"}
FLOORS = [
    {
        "advance",
        "auth",
        "submission",
        "confirm",
        "evidence",
        "steps",
        "accounts",
        "sweeper",
        "workflow",
        "copying",
        "delivery",
        "relay",
        "intake",
        "look",
        "gate",
        "creation",
        "listing",
        "removal",
        "uploads",
        "inbox",
        "lines",
        "versions",
        "results",
        "operations",
        "notifying",
        "reconcile",
        "dead_letters",
        "export",
        "dashboard",
    },
    {
        "request",
        "archive",
        "recording",
        "table",
        "controls",
        "outbox",
        "signing",
        "books",
        "keys",
        "backlog",
        "spending",
        "ended",
        "measures",
        "tally",
        "turns",
        "permits",
        "provider",
        "profiles",
        "rows",
    },
    {
        "catalogue",
        "schema",
        "rules",
        "wording",
        "spelling",
        "images",
        "message",
        "fetch",
        "wire",
        "address",
        "deadline",
        "credential",
        "task",
        "source",
        "discrepancy",
        "facts",
        "notices",
        "output_names",
        "webhooks",
        "signed_urls",
        "keyring",
        "snapshot",
        "escaping",
        "observability",
        "failure",
        "widgets",
        "story",
    },
    {"errors", "clock", "settings", "schedule", "mp4", "markup"},
]


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


def inside(path: Path) -> set[str]:
    """The modules of our own that a file imports."""
    names = (name.split(".") for name in imported(path))
    return {parts[1] for parts in names if parts[0] == "kling_relay" and len(parts) > 1} & set(MODULES)


def test_there_is_something_to_look_at() -> None:
    assert set(MODULES) >= PURE
    assert set(FUNCTIONS) >= {
        "task_api",
        "advance_task",
        "archive_video",
        "kling_callback",
        "sweep_tasks",
        "image_upload",
    }
    assert inside(MODULES["advance"]) >= {"task", "snapshot"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_import_the_package_and_never_each_other(name: str) -> None:
    tops = {one.split(".")[0] for one in imported(FUNCTIONS[name])}
    assert tops <= sys.stdlib_module_names | {"kling_relay", "aws_lambda_powertools", "boto3", "botocore"}


@pytest.mark.parametrize("name", MODULES)
def test_nothing_deployed_imports_local_or_tests(name: str) -> None:
    assert not {one.split(".")[0] for one in imported(MODULES[name])} & {"local", "tests", "functions"}


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_know_no_world(name: str) -> None:
    seen, queue = set(), [name]
    while queue:  # and nothing that they import does
        current = queue.pop()
        assert not {one.split(".")[0] for one in imported(MODULES[current])} & IMPURE, current
        seen.add(current)
        queue += inside(MODULES[current]) - seen


def test_only_one_module_makes_html() -> None:
    """A text that is taken for HTML anywhere else would reach a viewer's console unescaped."""
    makers = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Html"
    }
    assert makers == {"markup"}


def test_imports_make_no_circle() -> None:
    order = list(TopologicalSorter({name: inside(path) for name, path in MODULES.items()}).static_order())
    assert set(order) == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_imports_lead_down_or_stay_on_their_floor(name: str) -> None:
    floor = {module: level for level, modules in enumerate(FLOORS) for module in modules}
    assert not [other for other in inside(MODULES[name]) if floor.get(other, 0) < floor.get(name, 0)]


@pytest.mark.parametrize(
    "path", [*MODULES.values(), *FUNCTIONS.values()], ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_files_fit_into_a_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= (120 if path.name == "app.py" else 400)


def test_only_the_relay_reads_the_environment() -> None:
    readers = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb")
    }
    assert readers == {"relay"}
    current = next(
        node for node in tree(MODULES["relay"]).body if isinstance(node, ast.FunctionDef) and node.name == "current"
    )
    assert "os.environ" in ast.unparse(current)
    assert ast.unparse(tree(MODULES["relay"])).count("environ") == ast.unparse(current).count("environ")


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
