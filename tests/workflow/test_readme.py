"""Test the code blocks of README.md and docs/, as printed, on the local stack. The others: tests/unit/test_docs.py."""

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.doc_blocks import BLOCKS
from tests.workflow.driver import SAMPLE, Driver, play

SAMPLES = [block.text for block in BLOCKS if block.info == "python"]
TUTORIAL = "docs/tutorials/first-video-on-your-laptop.md"
SHELL_PAGES = sorted({block.page for block in BLOCKS if block.info == "sh" and block.runs})


@pytest.fixture
def desk(driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Driver:
    """The folder of a user: some images, and the file of a running stack."""
    for name in ("cat.jpg", "large.jpg", "photo.jpg"):
        (tmp_path / name).write_bytes(SAMPLE)
    (tmp_path / ".local").mkdir()
    (tmp_path / ".local/endpoint.json").write_text(json.dumps(driver.endpoint))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("API_URL", driver.endpoint["api_url"])
    monkeypatch.setenv("API_KEY", driver.endpoint["api_key"])
    monkeypatch.setenv("SIMULATOR_URL", driver.endpoint["simulator_url"])
    return driver


def here(text: str, driver: Driver) -> str:
    """The block with the ports of this stack."""
    text = text.replace("http://127.0.0.1:8080", driver.endpoint["api_url"])
    return text.replace("http://localhost:4566", driver.endpoint["aws_endpoint_url"])


def test_there_are_blocks_to_run() -> None:
    assert len(SAMPLES) == 2 and SHELL_PAGES[:1] == ["README.md"] and len(SHELL_PAGES) >= 4


def test_the_python_samples_make_two_tasks(
    desk: Driver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wait = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: wait(seconds / 50))
    names: dict[str, Any] = {}
    for sample in SAMPLES:
        exec(sample, names)
    assert capsys.readouterr().out.startswith("http")
    assert len(desk.ledger()["posts"]) == 2


def test_a_python_sample_raises_for_a_refusal(desk: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "kr_wrong")
    with pytest.raises(SystemExit, match="code 1002, request "):
        exec(SAMPLES[0], {})


def run_page(desk: Driver, page: str) -> str:
    """Run the shell blocks of a page in order. Returns their output, in which no answer of the API is an error."""
    printed = ""
    for block in BLOCKS:
        if block.page == page and block.runs and block.info == "sh":
            script = f"set -euo pipefail\n{here(block.text, desk)}"
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, f"{page}:{block.line}: {done.stderr}"
            printed += done.stdout
    assert set(re.findall(r'"code": ?(\d+)', printed)) <= {"0"}, printed
    return printed


def test_the_readme_sends_a_task_and_lists_it(desk: Driver) -> None:
    printed = run_page(desk, "README.md")
    assert len(desk.ledger()["posts"]) == 1
    assert len(set(re.findall(r'"task_id": ?"(\w+)"', printed))) == 1 and printed.count('"task_id"') == 2


def test_the_tutorial_ends_with_a_video(desk: Driver) -> None:
    run_page(desk, TUTORIAL)
    assert play(Path("video.mp4").read_bytes())[2] > 100


@pytest.mark.parametrize("page", [page for page in SHELL_PAGES if page not in ("README.md", TUTORIAL)])
def test_the_shell_blocks_of_other_pages_run(desk: Driver, page: str) -> None:
    run_page(desk, page)


def test_a_block_that_fails_is_noticed(desk: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "kr_wrong")
    with pytest.raises(AssertionError, match="1002"):
        run_page(desk, "docs/how-to/connect-a-client.md")
    monkeypatch.setenv("API_URL", "http://127.0.0.1:9")
    with pytest.raises(AssertionError, match=r"connect-a-client\.md:\d+"):
        run_page(desk, "docs/how-to/connect-a-client.md")
