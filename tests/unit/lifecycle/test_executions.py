"""Test two executions of one task: the row's condition in AwaitCallback lets only the execution in the row sleep.

That an execution can be replaced between its read and its wait is from a document (Step Functions delays states under
load). The order here is chosen by hand.
"""

import pytest
from kling_relay.lifecycle import step_functions
from kling_relay.tasks.task import Phase

from tests.support.stack_in_memory import World


@pytest.fixture
def two(world: World) -> World:
    """A task whose first execution is about to sleep when a sweep gives the task to a second one, which sleeps."""
    task = world.create()
    first = world.states.executions[task.id]
    assert first.state["next"] == "wait" and first.token is None
    assert step_functions.replace(world.services, task)
    second = world.states.executions[f"{task.id}-r1"]
    for _ in range(2):
        world.states._step(second)
    assert second.token is not None
    return world


def test_a_replaced_execution_stores_no_token(two: World) -> None:
    first, second = two.states.executions.values()
    before = two.row(f"task#{first.name}")
    two.states._step(first)
    assert first.token is None and two.row(f"task#{first.name}") == before
    two.states.run()
    assert not first.open and second.open
    assert two.task(first.name).task_token == second.token


def test_a_callback_wakes_the_execution_that_owns_the_task(two: World) -> None:
    first, second = two.states.executions.values()
    two.states.run()
    two.clock.tick(two.provider.seconds + 1)
    assert two.callback(two.task(first.name)) == 200
    assert second.token is None and second.state["next"] == "archive"
    two.states.run()
    assert two.task(first.name).phase is Phase.SUCCEEDED and not second.open
