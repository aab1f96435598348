"""Break one thing at a time in the modules that money and safety depend on, and report whether a test fails.

Run by `make mutate`. Pytest collects a module's tests once, and runs them once to find the lines that each test enters.
Then each mutant gets a forked process, in which the module's functions get its code. The process runs the tests that
enter the changed statement until one fails: the module's own file first, then the quickest. A mutant at import
(constants, tables, defaults) needs a new import of the package and the tests, and runs all of them.

survivors.json explains why the mutants that no test detects change nothing observable. A survivor that is missing
there, or an entry that no longer survives, is an error, so that the list stays as true as the code.
"""

import argparse
import ast
import gc
import importlib
import importlib.abc
import importlib.util
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "layers" / "relay")]

from tests.reliability.mutants import described, mutant  # noqa: E402

PACKAGE = ROOT / "layers" / "relay" / "kling_relay"
UNIT = ROOT / "tests" / "unit"
EXPLAINED = Path(__file__).with_name("survivors.json")
LIBRARIES = (
    "boto3 moto.dynamodb moto.s3 moto.secretsmanager moto.core.botocore_stubber hypothesis.stateful yaml requests"
)
LIBRARIES += " msgspec standardwebhooks aws_lambda_powertools.event_handler xdist pytest_timeout pytest_socket"
TESTS = {
    "task": "task client_view sizes submit advance handlers table delete spend_cap",
    "advance": "advance rendered callback submit promise sweep delete delete_during_copy spend_cap account_blocked "
    "spend_equation told_metrics",
    "callback": "callback signed_callbacks advance handlers told_metrics promise",
    "poll": "advance rendered promise account_blocked told_metrics spend_equation",
    "archive": "archive rendered advance copy_deadline delete_during_copy result_hosts handlers",
    "table": "table table_reads fair_queue idempotency actions delete delete_during_copy query sweep callback "
    "spend_cap deliver promise told_metrics",
    "task_row": "table table_reads spend_cap spend_equation task",
    "idempotency": "idempotency create handlers refused_again promise spend_cap spend_equation told_metrics",
    "submit": "submit promise account_blocked admission pause sweep callback",
    "confirm": "confirm promise submit parked callback rendered",
    "adopt": "confirm parked callback advance promise",
    "evidence": "evidence promise parked",
    "client": "answers client outcome_metrics hostile_servers account_blocked",
    "outcomes": "answers client outcome_metrics hostile_servers account_blocked",
    "admission": "admission promise account_blocked pause submit sweep",
    "dynamodb": "dynamodb table idempotency api_keys spend_cap query reconcile",
    "callback_tokens": "callback_tokens signed_callbacks",
    "standard_webhooks": "callback_tokens standard_webhooks signed_callbacks callback",
    "auth": "auth api_keys handlers",
    "fetch": "fetch fetch_bytes preflight",
    "pinned_connection": "fetch fetch_bytes tls preflight",
}
"""Module -> the tests that should notice: test_<name>.py or a folder <name> below tests/unit, its own first."""
LEAST = 0.85
_NEAREST = 20
OPTIONS = ["-q", "-x", "-p", "no:cacheprovider", "--timeout=60", "--hypothesis-seed=0"]
Tests = dict[str, tuple[float, list[int]]]  # name -> seconds, lines of the statements that it enters


def forked(work: Callable[[], Any], seconds: float) -> Any:
    """What `work` returns, in a process of its own; None where that dies, or does not come to an end."""
    with tempfile.TemporaryFile("w+") as told:
        if not (pid := os.fork()):
            try:
                told.write(json.dumps(work()))
                told.flush()
            finally:
                os._exit(0)
        end = time.monotonic() + seconds
        while not (ended := os.waitpid(pid, os.WNOHANG)[0]) and time.monotonic() < end:
            time.sleep(0.005)
        if not ended:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        told.seek(0)
        said = told.read()
        return json.loads(said) if said else None


class Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module of the package, and runs other code in its place."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        self.path = path_of(module)
        self.name = ".".join(("kling_relay", *self.path.relative_to(PACKAGE).with_suffix("").parts))
        self.code = compile(tree, str(self.path), "exec")

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def exec_module(self, module: Any) -> None:
        exec(self.code, module.__dict__)


class _NoWait:
    """Stands for the `time` of the module, whose mutants may pause for minutes: nobody waits for them."""

    sleep = staticmethod(lambda seconds: None)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class Trials:
    """A pytest plugin, in place of its loop over the tests: learns, then tries the mutants `numbers` of a module.
    `verdicts`: by number whether a test noticed it; None for those that cannot be put into what is loaded."""

    def __init__(self, module: str, numbers: Sequence[int]) -> None:
        self.path, self.source = str(path_of(module)), source_of(module)
        self.module, self.numbers = module, numbers
        self.tests: Tests = {}
        self.verdicts: dict[int, bool | None] = {}
        self.lines, self.failed = set[int](), False

    def pytest_runtestloop(self, session: Any) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        of_module = (one for one in gc.get_objects() if type(one) is FunctionType)
        self.functions = [one for one in of_module if one.__code__.co_filename == self.path]
        for function in self.functions:
            if function.__globals__.get("time") is time:
                function.__globals__["time"] = _NoWait()
        gc.freeze()  # so that the children share what they only read
        self.tests = forked(self._learn, 3600) or {}
        if self._noticed(ast.parse(self.source), list(self.tests)):
            self.tests = {}
        for number in self.numbers if self.tests else []:
            one = mutant(self.source, number)
            if not one.function or not self._put(one.module, dry=True):
                self.verdicts[number] = None
            else:
                chosen = [name for name, (_, lines) in self.tests.items() if one.line in lines]
                self.verdicts[number] = self._noticed(one.module, chosen)
        return True

    def _noticed(self, tree: ast.Module, names: list[str]) -> bool:
        """Whether one of those tests fails, or does not come to an end, when the module is `tree`."""
        seconds = 60 + 5 * sum(self.tests[name][0] for name in names)
        return (
            forked(lambda: self._put(tree) and self._pass(by_file(self.module, names, self.tests)), seconds) is not True
        )

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed = self.failed or report.failed

    def _pass(self, names: list[str], last: str | None = None) -> bool:
        """Whether all those tests pass. `last`: the one that comes after them."""
        for name, following in zip(names, [*names, last][1:], strict=True):
            self.failed = False
            item, nextitem = self.items[name], self.items.get(following or "")
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
            if self.failed:
                return False
        return True

    def _learn(self) -> Tests:
        """What the tests enter, of those that pass."""
        for function in self.functions:
            function.__globals__["_entered"] = self.lines.add
        self._put(telling(ast.parse(self.source)))
        tests: Tests = {}
        names = list(self.items)
        for name, following in zip(names, [*names, None][1:], strict=True):
            self.lines.clear()
            began = time.monotonic()
            if self._pass([name], following):
                tests[name] = (time.monotonic() - began, sorted(self.lines))
        return tests

    def _put(self, tree: ast.Module, *, dry: bool = False) -> bool:
        """Give the functions that are loaded the code of `tree`; whether they can take it."""
        codes = defaultdict(list)
        rest = [compile(tree, self.path, "exec")]
        while rest:
            code = rest.pop()
            codes[code.co_qualname, code.co_firstlineno].append(code)
            rest += [one for one in code.co_consts if isinstance(one, CodeType)]
        for function in self.functions:
            old = function.__code__
            new = codes[old.co_qualname, old.co_firstlineno]
            if len(new) != 1 or new[0].co_freevars != old.co_freevars:
                return False
            if not dry:
                function.__code__ = new[0]
        return True


def telling(tree: ast.Module) -> ast.Module:
    """`tree` whose functions tell `_entered` the line of each statement that they come to."""
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and not isinstance(node, ast.Module | ast.ClassDef):
                told = [(ast.parse(f"_entered({statement.lineno})").body[0], statement) for statement in block]
                setattr(node, field, [ast.copy_location(one, pair[1]) for pair in told for one in pair])
    return ast.fix_missing_locations(tree)


def by_file(module: str, names: Sequence[str], tests: Tests) -> list[str]:
    """`names` by file: the module's own first, then the quickest."""
    cost: Counter[str] = Counter()
    for name in names:
        cost[name.partition("::")[0]] += tests[name][0]

    def order(name: str) -> Any:
        file = name.partition("::")[0]
        return f"/test_{module}" not in file, cost[file], file, tests[name][0]

    return sorted(names, key=order)


def pytest_quietly(quick: bool, tests: Sequence[str], *plugins: Any) -> int:
    """Pytest's exit code, in a process that is to end with it. `quick`: worlds are in memory instead of in moto."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if quick:
        unit = importlib.import_module("tests.support.stack_fixtures")
        vars(unit).update(Cloud=importlib.import_module("tests.support.fake_cloud").MemoryCloud, mock_aws=nullcontext)
    return int(pytest.main([*OPTIONS, *tests], plugins=plugins))


def tried(module: str, numbers: Sequence[int], given: list[str], quick: bool) -> tuple[list[str], Tests, list[int]]:
    """All tests of `given`, those that pass without any mutant, and the `numbers` that none of them notices."""

    def loaded() -> Any:
        trials = Trials(module, numbers)
        pytest_quietly(quick, given, trials)
        return list(trials.items), trials.tests, list(trials.verdicts.items())

    def anew(tree: ast.Module) -> bool:
        sys.meta_path.insert(0, Instead(module, tree))
        return pytest_quietly(quick, by_file(module, list(tests), tests)) == 0

    every, tests, verdicts = forked(loaded, 24 * 3600)
    at_import = 120 + 5 * sum(seconds for seconds, _ in tests.values())
    alive = [number for number, noticed in verdicts if noticed is False]
    unfit = [number for number, noticed in verdicts if noticed is None]
    if not tests or (unfit and not forked(lambda: anew(ast.parse(source_of(module))), at_import)):
        sys.exit(f"the tests of {module} fail without any mutant")
    for number in unfit:
        if forked(lambda: anew(mutant(source_of(module), number).module), at_import) is True:  # noqa: B023
            alive.append(number)
    return every, tests, sorted(alive)


def path_of(module: str) -> Path:
    """The file of a module, whichever package has it."""
    (path,) = PACKAGE.rglob(f"{module}.py")
    return path


def source_of(module: str) -> str:
    return path_of(module).read_text()


def files(module: str) -> list[str]:
    """The test modules of a concept: one, or a folder of them."""
    found = {name: [*UNIT.rglob(f"test_{name}.py"), *UNIT.rglob(f"{name}/")] for name in TESTS[module].split()}
    missing = [name for name, paths in found.items() if not paths]
    assert not missing, f"no tests below {UNIT} have the names {missing}"
    return [str(path) for paths in found.values() for path in paths]


def nearest(tests: Tests, line: int) -> list[str]:
    """The quickest tests that enter `line`, or of all if none does, since it runs at import."""
    entering = [name for name, (_, lines) in tests.items() if line in lines] or list(tests)
    return sorted(entering, key=lambda name: tests[name][0])[:_NEAREST]


def survivors(module: str, sample: int, seed: int) -> tuple[int, list[dict[str, str]]]:
    """How many mutants were tried, and those that nobody noticed."""
    source = source_of(module)
    numbers: Sequence[int] = range(len(described(source)))
    if sample:
        numbers = sorted(random.Random(seed).sample(numbers, min(sample, len(numbers))))
    every, in_memory, left = tried(module, numbers, files(module), True)
    print(f"{module}: {len(in_memory)} tests in memory, {len(left)} mutants survive them", flush=True)
    if left:  # what does not pass in memory, or may only pass there because it lacks a trouble
        near = {name for number in left for name in nearest(in_memory, mutant(source, number).line)}
        near |= {name for name in every if Path(files(module)[0]).name in name}  # its own tests
        _, _, left = tried(module, left, [name for name in every if name in near or name not in in_memory], False)
    alive = [mutant(source, number) for number in left]
    for one in alive:
        print(f"  {module}.py:{one.line}  {one.function}: {one.change}", flush=True)
    return len(numbers), [{"in": one.function, "change": one.change} for one in alive]


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
        number, alive = survivors(module, given.sample, given.seed)
        known = [{key: one[key] for key in ("in", "change")} for one in explained.get(module, [])]
        new = [one for one in alive if one not in known]
        stale = [] if given.sample else [one for one in known if one not in alive]
        share = 1 - len(alive) / number
        print(
            f"{module:<10} {number} mutants, {share:.1%} killed, {len(alive)} survive ({len(new)} unexplained, "
            f"{len(stale)} explained ones do not any more), {time.monotonic() - began:.0f} s",
            flush=True,
        )
        for one in stale:
            print(f"  gone: {one['in']}: {one['change']}")
        bad += bool(new or stale or share < LEAST)
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
