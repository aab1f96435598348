"""Test a task's sizes: its row stays far below DynamoDB's 400 KB, its workflow's input below Step Functions' 256 KB."""

import json
from typing import Any

import pytest

from tests.support.stack_in_memory import World
from tests.unit.api.test_create import b64, png

LONG = "山" * 2500  # the longest prompt, in three bytes a character
IMAGE = b64(png(512, tail=bytes(3_000_000)))
POINTS = [{"x": 100_000, "y": -100_000}] * 77


def weight(row: dict[str, Any]) -> int:
    """Bytes as DynamoDB counts them: names and values in UTF-8."""
    return sum(len(name) + len(next(iter(value.values())).encode()) for name, value in row.items())


def test_an_inline_image_adds_less_than_a_kilobyte_to_the_row(world: World) -> None:
    by_url, inline = (world.create({"image": image}) for image in ("https://images.example/cat.png", IMAGE))
    assert weight(world.row(f"task#{inline.id}")) - weight(world.row(f"task#{by_url.id}")) < 1024


@pytest.mark.parametrize("masks", [0, 6])
def test_the_longest_prompts_fit_into_a_small_row(world: World, masks: int) -> None:
    long = {
        "prompt": LONG,
        "negative_prompt": LONG,
        "model_name": "kling-v1",
        "mode": "std",
        "external_task_id": "山" * 256,
    }
    shape = b64(png())
    painted = {"dynamic_masks": [{"mask": shape, "trajectories": POINTS}] * masks} if masks else {}
    task = world.create({"image": IMAGE if not masks else shape, **long, **painted})
    assert 15_000 < weight(world.row(f"task#{task.id}")) < 64 * 1024


def test_the_workflow_starts_with_next_to_nothing(world: World) -> None:
    started: list[str] = []
    real = world.states.start_execution

    def noted(**given: str) -> dict[str, str]:
        started.append(given["input"])
        return real(**given)

    world.states.start_execution = noted  # type: ignore[method-assign]
    world.create({"image": IMAGE, "prompt": LONG})
    (state,) = started
    assert len(state) < 1024 and set(json.loads(state)) == {"task_id", "next", "wait_seconds", "wake_seq", "due_at"}
