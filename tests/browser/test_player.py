"""Test the delivered address in a real browser, on another origin's page: `make browser`, skipped without a
Chromium."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from local.stack.cloudfront import Answer, Edge
from local.stack.stack import Options, Stack
from tests.browser.chromium import CHROMIUM, FLAGS, MARKS, pages
from tests.workflow.driver import Driver

pytestmark = MARKS


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    fast = {"port": 0, "wait_scale": 0.05, "render_seconds": 0.3, "render_size": 640}
    with Stack(Options(**fast, state=tmp_path)) as stack:
        yield Driver(stack)


def test_a_player_plays_the_delivered_address(driver: Driver, tmp_path: Path) -> None:
    task_id = driver.post()["task_id"]
    size = len(driver.delivered(task_id))
    url = driver.ended(task_id)["task_result"]["videos"][0]["url"]
    asked = watched(driver)
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]
    with pages() as server:
        server.files["*"] = ("text/html", Path(__file__).with_name("player.html").read_bytes())
        browser = subprocess.Popen(
            [*command, f"{server.origin}/?url={quote(url, safe='')}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            report = server.reports.get(timeout=150)
        finally:
            browser.terminate()
            browser.wait(20)
    assert "error" not in report, report
    video, fetched = report["video"], report["fetched"]
    assert (video["width"], video["height"]) == (640, 360) and video["duration"] > 4
    assert video["played"] >= 0.4 and video["sought"] > video["duration"] - 0.5 and video["colours"] > 20
    assert fetched == {
        **{"status": 206, "text": "ftyp", "range": f"bytes 4-7/{size}", "length": "4", "redirected": False},
    }
    assert report["tampered"] == 403
    assert any(one.get("Range", "").startswith("bytes=") and "Authorization" not in one for _, _, one in asked)
    stray = [(method, status) for method, status, sent in asked if sent.get("Authorization") == "Bearer stray"]
    preflights = [status for method, status, _ in asked if method == "OPTIONS"]
    assert stray == [("GET", 206)] and preflights == [200]


def watched(driver: Driver) -> list[tuple[str, int, dict[str, str]]]:
    """Method, status and headers of every request to the edge from now on."""
    front, asked = driver.stack._front, []
    assert front is not None and front.edge is not None

    class Watched(Edge):
        def answer(self, method: str, target: str, headers: Any) -> Answer:
            given = super().answer(method, target, headers)
            asked.append((method, given.status, {name.title(): value for name, value in headers.items()}))
            return given

    old = front.edge
    front.edge = Watched(old.url, old.s3, old.bucket, old.public_key, old.headers)
    return asked
