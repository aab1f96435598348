"""Test the sequences of tests/fixtures/inbox.json, step by step: the files below inbox/, and the results.

The file is self-made; each case has its `why`, and `certain`: false marks a proposal.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.s3_inbox import Queue, copy_onto_itself, drop, empty, results
from tests.support.stack_in_memory import Cloud, World

TABLE_IN_MEMORY = True
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
CASES = json.loads((FIXTURES / "inbox.json").read_text())


@pytest.fixture
def world(cloud: Cloud) -> World:
    world = World(cloud, default_model_image2video="kling-v2-6")
    empty(world)
    return world


def body(step: dict[str, Any]) -> bytes:
    if "json" in step:
        return json.dumps(step["json"]).encode()
    if "lines" in step:
        return "\n".join(map(json.dumps, step["lines"])).encode()
    return bytes.fromhex(step["body_hex"]) if "body_hex" in step else (FIXTURES / step["body"][1:]).read_bytes()


def told(world: World, key: str) -> dict[str, Any]:
    try:
        found = world.cloud.s3.get_object(Bucket="inputs", Key=key)
    except ClientError:
        return {}
    return dict(json.loads(found["Body"].read()))


def holds(world: World, expected: dict[str, Any]) -> bool:
    if "either" in expected:
        return any(holds(world, one) for one in expected["either"])
    messages = [told(world, key).get("task_status_msg") or "" for key in results(world)]
    checks = {"paid": lambda value: len(world.provider.sold) == value}
    checks["message_has"] = lambda value: any(value in message for message in messages)
    return all(
        checks[name](value) if name in checks else told(world, name).get("task_status") == value
        for name, value in expected.items()
    )


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_sequence_ends_as_expected(world: World, queue: Queue, case: dict[str, Any]) -> None:
    for step in case["steps"]:
        if "put" in step:
            queue.put(drop(world, f"inbox/{step['put']}", body(step)))
        elif "copy_onto_itself" in step:
            queue.put(copy_onto_itself(world, f"inbox/{step['copy_onto_itself']}", **step["metadata"]))
        else:
            world.run(step["wait_s"], step=1)
        queue.handle()
    queue.run()
    world.run(900)
    assert holds(world, case["expect"]), {key: told(world, key) for key in results(world)}
    if case["id"].startswith("what a Mac"):
        assert results(world) == set()
