"""Test that the project's files name only existing paths, make targets, Python versions and licences."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from local.stack.deploy_template import load_template

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
OLDEST = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
STEPS = re.findall(r"^\d+\. (.+(?:\n {2,}.+)*)", CONTRIBUTING, re.MULTILINE)


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def is_path(name: str) -> bool:
    return bool(re.fullmatch(r"[\w./-]+\.\w+|[\w.-]+/[\w./-]*", name))


@pytest.mark.parametrize("step", STEPS)
def test_each_step_names_files_that_exist_and_names_in_them(step: str) -> None:
    paths = [ROOT / name for name in quoted(step) if is_path(name)]
    assert [path for path in paths if not path.exists()] == []
    text = "\n".join(path.read_text() for path in paths)
    names = [name for name in quoted(step) if re.fullmatch(r"[A-Za-z_]\w+", name)]
    assert [name for name in names if name not in text] == []


def test_there_are_steps_for_a_provider_a_model_a_kind_an_alarm_and_a_release() -> None:
    headings = re.findall(r"^## (.+)", CONTRIBUTING, re.MULTILINE)
    assert {"Add a provider", "Add a model", "Add a kind", "Add an alarm", "Release a version"} <= set(headings)
    assert len(STEPS) > 30


def test_suites_are_those_of_the_tests_folder() -> None:
    listed = set(re.findall(r"^\| `(tests/\w+)` \|", CONTRIBUTING, re.MULTILINE))
    assert listed == {f"tests/{path.parent.name}" for path in ROOT.glob("tests/*/test_*.py")}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "NOTICE"])
def test_make_targets_exist(name: str) -> None:
    named = set(re.findall(r"`make ([a-z-]+)", (ROOT / name).read_text()))
    assert named
    assert named <= TARGETS


def test_hooks_run_make_targets_and_download_nothing() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook for repository in repositories for hook in repository["hooks"]]
    assert [repository["repo"] for repository in repositories] == ["local"]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert {hook["entry"] for hook in hooks} <= {f"make {target}" for target in TARGETS}


def test_continuous_integration_runs_the_gate_on_the_oldest_python_and_on_lambdas() -> None:
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    lambdas = load_template()["Globals"]["Function"]["Runtime"].removeprefix("python")
    assert job["strategy"]["matrix"]["python"] == [OLDEST, lambdas]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    actions = [step["uses"] for step in job["steps"] if "uses" in step]
    assert [one for one in actions if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", one)] == []


def test_the_python_of_the_checkout_is_the_oldest_supported() -> None:
    assert (ROOT / ".python-version").read_text().strip() == OLDEST


def test_the_notice_names_every_licence_file() -> None:
    notice = (ROOT / "NOTICE").read_text()
    files = [path for folder in ("functions", "layers", "local") for path in (ROOT / folder).rglob("*")]
    of_others = {str(path.relative_to(ROOT)) for path in files if re.search("LICENSE|NOTICE", path.name)}
    assert of_others
    assert of_others <= set(re.findall(r"[\w./-]+\.txt", notice))
    assert "Apache License" in (ROOT / "LICENSE").read_text()
