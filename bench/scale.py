"""Measure whether a task costs more if there are many: tasks in flight on the local stack, and rows behind a list.

In flight: the calls to AWS per task, the written units, and the memory of the largest function, with 1,000 tasks at
once against 100. Lists: the items that DynamoDB reads for a page and for a query, with a million rows of the tenant
against ten. The index is simulated by the rules of its documentation, because no emulator holds a million rows in time
(`make scale` counts 100,000 of them on moto).
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import requests
from kling_relay.tasks.table import TaskTable
from kling_relay.tasks.task import Phase, Task
from kling_relay.tasks.task_row import new_item

from bench import usage
from bench.ratio import Ratio, counted
from kling_relay_cli.api_client import Client, ClientError
from local.emulator.process import Emulator
from local.stack.stack import Options, Stack

_IN_FLIGHT = (100, 300, 1000)
_SENDERS = 6
_WAIT_SECONDS = 900.0
_ROWS = (10, 10_000, 1_000_000)
_PAGE = 30
# This model is polled late (p5: 150 s), so callbacks come before polls. All tasks are recorded before the first ends.
_BODY = {"model_name": "kling-v2-master", "prompt": "one of many", "duration": "10"}
_RENDER_SECONDS = 140.0
_TRIES = 5


def measure() -> Iterator[Ratio]:
    few = _in_flight(_IN_FLIGHT[0])
    for number in _IN_FLIGHT[1:]:
        many = _in_flight(number)
        for what, unit in (("calls", "calls of AWS a task"), ("units", "write units a task"), ("memory", "MB")):
            yield counted(f"scale_{what}_{number}", many[what], few[what], unit)
    small = _read(_ROWS[0])
    for number in _ROWS[1:]:
        large = _read(number)
        for what in ("page", "query"):
            yield counted(f"scale_{what}_{number}", large[what], small[what], "items read")


def _in_flight(number: int) -> dict[str, float]:
    print(f"  {number} tasks at once", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as state:
        options = Options(port=0, render_seconds=_RENDER_SECONDS, render_size=64, state=Path(state))
        with Stack(options) as stack:
            emulator, table = _emulator(stack), stack.endpoint["task_table"]
            usage.watch_table(emulator, table)
            usage.stop_schedules(emulator)
            api = Client(stack.endpoint["api_url"], stack.endpoint["api_key"], direct=True)
            before = _calls(emulator)
            with ThreadPoolExecutor(_SENDERS) as senders:
                list(senders.map(partial(_send, api), range(number)))
            running = requests.get(f"{stack.endpoint['simulator_url']}/_sim/ledger", timeout=30).json()["running"]
            if running < number:
                print(f"  only {running} of {number} were in flight at once", file=sys.stderr)
            memory = _wait_for_all(emulator, table, number)
            calls = _calls(emulator) - before
            return {
                "calls": calls / number,
                "units": usage.units_written(emulator, table) / number,
                "memory": memory,
            }


def _send(api: Client, number: int) -> None:
    """Send one task, like a client that retries under the same id: a laptop may be too slow for so many."""
    for left in reversed(range(_TRIES)):
        try:
            api.send("text2video", {**_BODY, "external_task_id": f"many-{number}"})
            return
        except ClientError:
            if not left:
                raise
            time.sleep(5)


def _emulator(stack: Stack) -> Emulator:
    if stack.emulator is None:
        raise RuntimeError("the emulator is not running")
    return stack.emulator


def _calls(emulator: Emulator) -> int:
    return len(emulator.calls_path.read_text().splitlines())


def _wait_for_all(emulator: Emulator, table: str, number: int) -> float:
    """Wait until `number` tasks have succeeded and all notices are sent.

    Return the peak memory of any function in MB.
    """
    ends_at, memory = time.monotonic() + _WAIT_SECONDS, 0.0
    scan = {
        "TableName": table,
        "ProjectionExpression": "#phase, notices",
        "ExpressionAttributeNames": {"#phase": "phase"},
    }
    while True:
        memory = max(memory, _largest(emulator.pid))
        pages = emulator.client("dynamodb").get_paginator("scan").paginate(**scan)
        rows = [item for page in pages for item in page["Items"]]
        ended = [
            row for row in rows if row.get("phase", {}).get("S") == "succeeded" and not row.get("notices", {}).get("L")
        ]
        print(f"\r  {len(ended)} of {number} have ended ", end="", file=sys.stderr, flush=True)
        if len(ended) >= number:
            print(file=sys.stderr)
            return memory
        if time.monotonic() > ends_at:
            raise RuntimeError(f"only {ended} of {number} tasks ended")
        time.sleep(2)


def _largest(emulator: int) -> float:
    """Return the peak memory (MB) of the emulator's largest child process; its children are the functions."""
    peaks = [0]
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except OSError:
            continue
        if lines.get("PPid", "").strip() == str(emulator) and "VmHWM" in lines:
            peaks.append(int(lines["VmHWM"].split()[0]))
    return max(peaks) / 1024


def _read(number: int) -> dict[str, float]:
    """Return the items read for the first page of a list, and for one task by the client's id."""
    rows = Rows(number)
    table = TaskTable(rows, "tasks", 400)
    if len(table.page("acme", "text2video", skip=0, size=_PAGE)) != min(_PAGE, number):
        raise RuntimeError("the page is incomplete")
    page, rows.read = rows.read, 0
    if table.find("acme", rows.pk(0).removeprefix("task#")) is None:
        raise RuntimeError("the task is not found")
    return {"page": page / min(_PAGE, number), "query": rows.read}


class Rows:
    """Play a DynamoDB with `number` tasks of one tenant, generated on read; count the items read."""

    def __init__(self, number: int) -> None:
        self.number, self.read = number, 0

    def pk(self, number: int) -> str:
        return f"task#{number:032x}"

    def query(self, *, Limit: int, ExclusiveStartKey: Any = None, **_: Any) -> dict[str, Any]:
        """Query the index by owner, newest first: read up to Limit keys after the start key."""
        newest = (
            self.number if ExclusiveStartKey is None else int(ExclusiveStartKey["pk"]["S"].removeprefix("task#"), 16)
        )
        numbers = range(newest - 1, max(newest - 1 - Limit, -1), -1)
        self.read += len(numbers)
        items = [{"pk": {"S": self.pk(one)}} for one in numbers]
        more = {"LastEvaluatedKey": items[-1]} if items and numbers[-1] else {}
        return {"Items": items, "Count": len(items), **more}

    def batch_get_item(self, *, RequestItems: dict[str, Any]) -> dict[str, Any]:
        ((name, wanted),) = RequestItems.items()
        return {"Responses": {name: [self.get_item(Key=key)["Item"] for key in wanted["Keys"]]}}

    def get_item(self, *, Key: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.read += 1
        task_id = Key["pk"]["S"].removeprefix("task#")
        task = Task(task_id, "acme", "text2video", Phase.FAILED, {"prompt": "p"}, 1, 1, reason="no")
        return {"Item": new_item(task)}
