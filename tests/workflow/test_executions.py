"""Test executions that die or are duplicated: the row's due_at triggers the sweeper, which starts the next one."""

import json

from tests.workflow.driver import Driver, states, until


def sleeping(driver: Driver, **extra: object) -> str:
    """A task whose workflow waits for a callback that will not come."""
    driver.faults(callbacks="lost")
    task_id: str = driver.post(**{"model_name": "kling-v2-master", **extra})["task_id"]
    until(lambda: "task_token" in driver.row(task_id))
    return task_id


def test_a_stopped_execution_is_replaced(driver: Driver) -> None:
    task_id = sleeping(driver)
    driver.workflows.stop_execution(executionArn=driver.execution_arn(task_id))
    assert driver.sweep()["overdue"] == 0  # not overdue yet: nobody knows that it is dead
    driver.write(f"task#{task_id}", due_at=1)
    assert driver.sweep() == {"overdue": 1, "waiting": 0, "late": 0, "notifications": 0}
    assert driver.sweep()["overdue"] == 0
    driver.delivered(task_id)
    assert driver.row(task_id)["execution"] == f"{task_id}-r1"
    assert driver.execution(task_id)["status"] == "ABORTED"
    assert states(driver.finished(f"{task_id}-r1"))[-1] == "Done"
    assert len(driver.posts(task_id)) == 1


def test_a_replacement_that_dies_is_replaced_too(driver: Driver) -> None:
    driver.faults(query_5xx=True)
    task_id = sleeping(driver)
    for name in (task_id, f"{task_id}-r1"):
        until(lambda: driver.execution(name)["status"] == "RUNNING")  # noqa: B023
        driver.workflows.stop_execution(executionArn=driver.execution_arn(name))
        driver.write(f"task#{task_id}", due_at=1)
        until(lambda: driver.sweep() and driver.row(task_id)["execution"] != name)  # noqa: B023
    driver.faults(query_5xx=None)
    driver.delivered(task_id)
    assert driver.row(task_id)["execution"] == f"{task_id}-r2"
    driver.paid(task_id)


def test_an_execution_that_was_replaced_ends_by_itself(driver: Driver) -> None:
    task_id = sleeping(driver)
    driver.write(f"task#{task_id}", due_at=1)  # its execution lives, but the sweeper cannot know that
    assert driver.sweep()["overdue"] == 1
    driver.delivered(task_id)
    assert states(driver.finished(f"{task_id}-r1"))[-1] == "Done"
    assert states(driver.finished(task_id)) == ["WhatNext", "AwaitCallback", "Advance", "WhatNext", "Done"]
    assert len(driver.paid(task_id)["downloads"]) == 1


def test_a_task_without_any_execution_is_found(driver: Driver) -> None:
    """As after a crash between the paid POST and the start of the workflow."""
    task_id = sleeping(driver)
    driver.workflows.stop_execution(executionArn=driver.execution_arn(task_id))
    driver.dynamodb.update_item(
        TableName=driver.endpoint["task_table"],
        Key={"pk": {"S": f"task#{task_id}"}},
        UpdateExpression="SET phase = :submitting, lease_until = :past, due_at = :past REMOVE upstream_id, task_token",
        ExpressionAttributeValues={":submitting": {"S": "submitting"}, ":past": {"N": "1"}},
    )
    space = driver.row(task_id)["account"].rpartition("#")[0]
    driver.dynamodb.delete_item(
        TableName=driver.endpoint["task_table"],
        Key={"pk": {"S": f"upstream#{space}#{driver.paid(task_id)['task_id']}"}},
    )
    assert driver.sweep()["overdue"] == 1
    driver.delivered(task_id)
    assert len(driver.posts(task_id)) == 1  # looked up by our reference, not sent again


def test_starting_a_workflow_twice_makes_no_second_task(driver: Driver) -> None:
    task_id = sleeping(driver)
    again = {"task_id": task_id, "next": "advance"}
    driver.workflows.start_execution(
        stateMachineArn=driver.endpoint["state_machine_arn"], name="by-hand", input=json.dumps(again)
    )
    assert states(driver.finished("by-hand")) == ["WhatNext", "Advance", "WhatNext", "Done"]  # not its owner
    driver.write(f"task#{task_id}", due_at=1)
    driver.sweep()
    driver.delivered(task_id)
    driver.paid(task_id)


def test_an_execution_of_an_unknown_task_ends(driver: Driver) -> None:
    name = "unknown-task"
    driver.workflows.start_execution(
        stateMachineArn=driver.endpoint["state_machine_arn"],
        name=name,
        input=json.dumps({"task_id": "0" * 32, "next": "advance"}),
    )
    assert states(driver.finished(name))[-1] == "Done"
