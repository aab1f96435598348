"""Count the state transitions of waiting for one video on the local stack, with and without the provider's callback.

The reference is a workflow that waits ten seconds, queries and chooses, three states per loop, for 200 seconds. It has
a start and an end. Each loop has a Lambda invocation, a query and a read of the row. The row is written four times.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import requests

from bench import usage
from bench.ratio import Ratio, counted
from local.stack.stack import Options, Stack

_RENDER = 200  # seconds; more than the p5 of the model used
_SCALE = 0.05
_TURNS = _RENDER // 10
_LOOP = {"transitions": 2 + 3 * _TURNS, "invocations": _TURNS, "queries": _TURNS, "units": _TURNS + 4}
_WORKFLOW = ("AdvanceTaskFunction", "ArchiveVideoFunction")
_UNITS = {
    "transitions": "states",
    "invocations": "of the workflow",
    "queries": "of the provider",
    "units": "of DynamoDB",
}


def measure() -> Iterator[Ratio]:
    for name, callbacks in (("", "on"), ("_without_callback", "lost")):
        used = _used(callbacks)
        for what, number in used.items():
            yield counted(f"{what}{name}", number, _LOOP[what], _UNITS[what])


def _used(callbacks: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as state:
        options = Options(
            port=0, wait_scale=_SCALE, render_seconds=_RENDER * _SCALE, render_size=160, state=Path(state)
        )
        with Stack(options) as stack:
            simulator = f"{stack.endpoint['simulator_url']}/_sim"
            requests.post(f"{simulator}/faults", json={"callbacks": callbacks}, timeout=10)
            video = usage.measure(stack, queries=0)["video"]
            sold = requests.get(f"{simulator}/ledger", timeout=10).json()["tasks"]
    return {
        "transitions": video["transitions"],
        "invocations": sum(video["invocations"].get(name, 0) for name in _WORKFLOW),
        "queries": sold[-1]["queries"],
        "units": video["write_units"] + video["read_units"],
    }
