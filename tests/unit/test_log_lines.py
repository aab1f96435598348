"""Test log lines: stable, documented keys; the task's id in each of its lines; no private data."""

import ast
import json
import re
from collections.abc import Iterator
from io import StringIO
from logging import StreamHandler
from typing import Any

import pytest
from kling_relay.observability import logger
from kling_relay.tasks import metrics
from kling_relay.tasks.task import Phase, Task
from kling_relay.transfer import fetch
from kling_relay.transfer.fetch import Receipt

from tests.reliability.life import PROFILES, SHORT
from tests.support.stack_in_memory import BODY, ROOT, Cloud, World

TABLE_IN_MEMORY = True
HOOK = "https://client.example/canary-path?canary-query"
OF_NO_TASK = {"sweep_completed", "queue_start_failed", "request_refused"}
DOCUMENT = ROOT / "docs" / "reference" / "log-events-and-metrics.md"


class Log(StringIO):
    def lines(self) -> list[dict[str, Any]]:
        """What has been logged since the last time."""
        out = self.getvalue()
        self.seek(0), self.truncate()
        assert "canary" not in out, re.findall(r".{60}canary.{20}", out)
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    handler = logger.registered_handler
    assert isinstance(handler, StreamHandler)
    told = Log()
    before = handler.setStream(told)
    yield told
    handler.setStream(before)


@pytest.fixture(autouse=True)
def _a_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "post", lambda *_, **__: Receipt(204, None))


@pytest.mark.parametrize("profile", PROFILES)
def test_every_line_of_a_task_carries_its_id(cloud: Cloud, profile: str, log: Log) -> None:
    """Of all functions, in the order in which they come: what Logs Insights shows for `filter task_id = ...`."""
    plays = PROFILES[profile]
    world = World(cloud, **{**SHORT, **plays.settings})
    world.provider.submit_faults, world.provider.query_faults = list(plays.posts), list(plays.queries)
    world.provider.end, world.copy_faults = plays.end, list(plays.copies)
    world.provider.words = "canary-words of the provider"
    world.post({**BODY, "callback_url": HOOK})
    (task,) = world.tasks()
    world.run_notifier()
    world.callback(task, {"task_id": "up-1", "task_status": "canary"})
    ended = world.until_closed(task.id)
    told = log.lines()
    astray = [line for line in told if line["message"] not in OF_NO_TASK and line.get("task_id") != task.id]
    assert not astray and len(told) > 5
    moves = [line for line in told if line["message"] == "task_moved"]
    assert moves[0]["phase"] == "accepted" and moves[-1]["phase"] == ended.phase
    assert [line["previous_phase"] for line in moves[1:]] == [line["phase"] for line in moves[:-1]], (
        "no step is left out"
    )
    assert [line["failure"] for line in moves if "failure" in line] == ([ended.failure] if ended.failure else [])
    assert sum(line.get("units", 0) for line in moves) == float(ended.units or 0)
    http("GET", world, task), http("DELETE", world, task)
    assert {line["task_id"] for line in log.lines() if line["message"] not in OF_NO_TASK} == {task.id}


def http(method: str, world: World, task: Task) -> None:
    path = f"/v1/videos/image2video/{task.id}"
    assert world.http(method, path, authorization=world.key())[0] == 200


def test_who_starts_another_task_names_that_one(world: World, log: Log) -> None:
    world.provider.slots = 1
    first, second = world.create(), world.create()
    world.clock.tick(61)
    log.lines()
    world.callback(first)
    replaced = [line for line in log.lines() if line["message"] == "workflow_replaced"]
    assert [line["task_id"] for line in replaced] == [second.id]


def test_a_foreign_task_is_in_nobodys_line(world: World, log: Log) -> None:
    task = world.create()
    log.lines()
    world.http("GET", f"/v1/videos/image2video/{task.id}", authorization=world.key("globex"))
    assert all("task_id" not in line for line in log.lines())


def test_a_rejected_callback_leaves_a_line_without_its_path(world: World, log: Log) -> None:
    task = world.create()
    log.lines()
    for task_id in (task.id, "canary/../x"):
        world.call("kling_callback", {"pathParameters": {"task_id": task_id, "token": "k1.canary"}})
    told = [(line["message"], line["reason"], line.get("task_id")) for line in log.lines()]
    assert told == [("callback_rejected", "token", task.id), ("callback_rejected", "token", None)]


def keys_in_code() -> set[str]:
    """The keys that are written out in calls of the logger."""
    found = set()
    for folder in ("layers/relay", "functions"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "logger.append_keys":
                    found |= {keyword.arg for keyword in node.keywords if keyword.arg}
                if not (isinstance(node, ast.keyword) and node.arg == "extra"):
                    continue
                for part in ast.walk(node.value):
                    if isinstance(part, ast.Dict):
                        found |= {key.value for key in part.keys if isinstance(key, ast.Constant)}
    return found


def keys_of_moves() -> set[str]:
    task = Task("t", "acme", "image2video", Phase.RENDERED, {"model_name": "m"}, 1, 2, claimed_at=1, rendered_at=2)
    expired = metrics.line(task, Task("t", "a", "image2video", Phase.EXPIRED, {}, 1, 2, failure="expired"))  # type: ignore[arg-type]
    late = Task(
        *("t", "acme", "image2video", Phase.SUCCEEDED, {"model_name": "m"}, 1, 2),
        **{"upstream_id": "u", "rendered_at": 2, "expired_at": 1, "units": "1"},
    )
    return {*(expired or {}), *(metrics.line(task, late) or {})}


def test_every_key_is_written_down() -> None:
    section = DOCUMENT.read_text().partition("\n### Keys\n")[2].partition("\n### ")[0]
    table = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    written = keys_in_code() | keys_of_moves()
    assert len(written) > 30 and written <= table, f"not in {DOCUMENT.name}: {sorted(written - table)}"
    assert table <= written, f"in no line any more: {sorted(table - written)}"
