"""README's Python samples run as printed, one after the other, against the local stack."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.driver import SAMPLE, Driver

README = (Path(__file__).parents[2] / "README.md").read_text()
SAMPLES = [
    text for text in re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL) if "API_URL" in text
]


@pytest.fixture
def at_a_desk(driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Driver:
    for name in ("cat.jpg", "large.jpg"):
        (tmp_path / name).write_bytes(SAMPLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("API_URL", driver.endpoint["api_url"])
    monkeypatch.setenv("API_KEY", driver.endpoint["api_key"])
    wait = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: wait(seconds / 50))
    return driver


def test_they_make_two_tasks(at_a_desk: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    assert len(SAMPLES) == 2
    for sample in SAMPLES:
        exec(sample, names)
    assert capsys.readouterr().out.startswith("http")
    assert len(at_a_desk.ledger()["posts"]) == 2


def test_a_refusal_is_read_as_one(at_a_desk: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "kr_wrong")
    with pytest.raises(SystemExit, match="code 1002, request "):
        exec(SAMPLES[0], {})
