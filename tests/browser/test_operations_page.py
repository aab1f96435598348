"""Test the operations page in a real browser: `make browser`, skipped without a Chromium."""

import re
import subprocess
from pathlib import Path

from tests.browser.chromium import CHROMIUM, FLAGS, MARKS
from tests.browser.test_player import driver  # noqa: F401  (fixture)
from tests.workflow.driver import Driver

pytestmark = MARKS


def test_the_page_draws_graphs_alarms_and_widgets(driver: Driver, tmp_path: Path) -> None:  # noqa: F811
    driver.delivered(driver.post()["task_id"])
    shot = tmp_path / "operations.png"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1600,4200"]
    command += ["--virtual-time-budget=9000", f"--screenshot={shot}", "--dump-dom"]
    command.append(f"{driver.endpoint['api_url']}/operations")
    page = subprocess.run(command, capture_output=True, text=True, timeout=150, check=True).stdout
    assert "does not answer" not in page and int(re.findall(r'data-drawn="(\d+)"', page)[0]) >= 1
    assert page.count("<canvas") >= 15 and page.count('class="alarm ') >= 15
    assert re.search(r'id="name">[^<]+, version \d+\.\d+\.\d+<', page)
    assert "Are videos coming out?" in page and "<b" in page and shot.stat().st_size > 100_000
