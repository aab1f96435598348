"""`make mutate`: break one thing at a time in the modules that money and safety hang on; does a test notice?

One forked process a mutant: libraries are imported once, our package and the tests anew, with the mutated module put in
by an import hook. A mutant runs only the tests that enter its function, learned in a first run, quickest file first.
survivors.json tells why those that no test notices change nothing that anybody could see; one that is not there, or
not alive any more, is an error, so that the list stays as true as the code.
"""

import argparse
import ast
import importlib
import importlib.abc
import importlib.util
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "layers" / "relay")]

from tests.reliability.mutants import described, mutant  # noqa: E402

PACKAGE = ROOT / "layers" / "relay" / "kling_relay"
EXPLAINED = Path(__file__).with_name("survivors.json")
LIBRARIES = (
    "boto3 moto.dynamodb moto.s3 moto.secretsmanager moto.core.botocore_stubber hypothesis.stateful yaml requests"
)
LIBRARIES += " msgspec standardwebhooks aws_lambda_powertools.event_handler xdist pytest_timeout pytest_socket"
TESTS = {
    "task": "client_view sizes submission advance handlers table delete spending",
    "advance": "advance callback submission sweeper delete spending account_trouble",
    "table": "table intake handlers delete listing sweeper callback refused_again spending money keys",
    "rows": "rows table keys spending listing reconcile",
    "webhooks": "webhooks callback",
    "auth": "auth keys handlers",
    "fetch": "fetch look",
}
LEAST = 0.85
Tests = dict[str, tuple[float, list[str]]]  # name -> seconds, functions that it enters


class Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module of the package, and runs other code in its place."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        self.path, self.name = PACKAGE / f"{module}.py", f"kling_relay.{module}"
        self.code = compile(tree, str(self.path), "exec")

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def exec_module(self, module: Any) -> None:
        exec(self.code, module.__dict__)


class Entered:
    """A pytest plugin: which functions of a file each test that passes enters, and its seconds of the processor."""

    def __init__(self, path: Path) -> None:
        self.path, self.functions, self.tests = str(path), set[str](), dict[str, tuple[float, list[str]]]()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        self.functions, self.failed, began = set(), False, time.process_time()
        sys.setprofile(self._note)
        threading.setprofile(self._note)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            if not self.failed:
                self.tests[item.nodeid] = (time.process_time() - began, sorted(self.functions))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed = self.failed or report.failed

    def _note(self, frame: Any, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_filename == self.path:
            self.functions.add(frame.f_code.co_name)


def run(module: str, tree: ast.Module, tests: list[str], options: list[str], quick: bool, *plugins: Any) -> int:
    """Pytest's exit code, in a process that is to end with it. `quick`: worlds are in memory instead of in moto."""
    sys.meta_path.insert(0, Instead(module, tree))
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if quick:
        unit = importlib.import_module("tests.unit.cloud")
        vars(unit).update(Cloud=importlib.import_module("tests.reliability.memory").Memory, mock_aws=nullcontext)
    options = [*options, "-q", "-p", "no:cacheprovider", "--timeout=300", "--hypothesis-seed=0"]
    return int(pytest.main([*options, *tests], plugins=plugins))


def learn(module: str, quick: bool, tests: list[str]) -> Tests:
    """What the tests enter, of those that pass."""
    with tempfile.NamedTemporaryFile() as told:
        if not (pid := os.fork()):
            entered = Entered(PACKAGE / f"{module}.py")
            run(module, ast.parse(source_of(module)), tests, [], quick, entered)
            Path(told.name).write_text(json.dumps(entered.tests))
            os._exit(0)
        os.waitpid(pid, 0)
        learned: Tests = json.loads(Path(told.name).read_text())
        return learned


def source_of(module: str) -> str:
    return (PACKAGE / f"{module}.py").read_text()


def chosen(tests: Tests, function: str) -> list[str]:
    """The tests that enter `function` ("": all), by file, the quickest file first."""
    those = {name: seconds for name, (seconds, entered) in tests.items() if function in ["", *entered]}
    cost: Counter[str] = Counter()
    for name, seconds in those.items():
        cost[name.partition("::")[0]] += seconds
    return sorted(those, key=lambda name: (cost[name.partition("::")[0]], name.partition("::")[0], those[name]))


def killed(module: str, tree: ast.Module, tests: list[str], seconds: float, quick: bool) -> bool:
    """Whether a test fails, or the mutant does not come to an end."""
    if not tests:
        return False
    if not (pid := os.fork()):
        os._exit(run(module, tree, tests, ["-x"], quick))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.02)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return True


def survivors(module: str, sample: int, seed: int) -> tuple[int, list[dict[str, str]]]:
    """How many mutants were tried, and those that nobody noticed."""
    source, files = source_of(module), [f"tests/unit/test_{name}.py" for name in TESTS[module].split()]
    in_memory = learn(module, True, files)
    in_moto = learn(module, False, files)  # also those that pass in memory: some only do because it lacks a trouble
    if not in_memory | in_moto or killed(module, ast.parse(source), chosen(in_memory, ""), 900, True):
        sys.exit(f"the tests of {module} fail without any mutant")
    print(f"{module}: {len(in_memory)} tests in memory, {len(in_moto)} in moto", flush=True)
    numbers: Sequence[int] = range(len(described(source)))
    if sample:
        numbers = sorted(random.Random(seed).sample(numbers, min(sample, len(numbers))))
    alive = []
    for number in numbers:
        one = mutant(source, number)
        for tests, quick in ((in_memory, True), (in_moto, False)):
            mine = chosen(tests, one.function)
            if killed(module, one.module, mine, 30 + 10 * sum(tests[name][0] for name in mine), quick):
                break
        else:
            alive.append({"in": one.function, "change": one.change})
            print(f"  {module}.py:{one.line}  {one.function}: {one.change}", flush=True)
    return len(numbers), alive


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--module", choices=TESTS)
    parser.add_argument("--sample", type=int, default=0, help="so many mutants a module; 0: all")
    parser.add_argument("--seed", type=int, default=20_260_901)
    given = parser.parse_args()
    os.chdir(ROOT)
    for name in LIBRARIES.split():
        importlib.import_module(name)
    explained, bad = json.loads(EXPLAINED.read_text()), 0
    for module in [given.module] if given.module else TESTS:
        began = time.monotonic()
        tried, alive = survivors(module, given.sample, given.seed)
        known = [{key: one[key] for key in ("in", "change")} for one in explained.get(module, [])]
        new = [one for one in alive if one not in known]
        stale = [] if given.sample else [one for one in known if one not in alive]
        share = 1 - len(alive) / tried
        print(
            f"{module:<10} {tried} mutants, {share:.1%} killed, {len(alive)} survive ({len(new)} unexplained, "
            f"{len(stale)} explained ones do not any more), {time.monotonic() - began:.0f} s",
            flush=True,
        )
        for one in stale:
            print(f"  gone: {one['in']}: {one['change']}")
        bad += bool(new or stale or share < LEAST)
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
