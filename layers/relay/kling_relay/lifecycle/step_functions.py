"""Start, wake and replace the Step Functions execution of a task."""

import json
from typing import Any

from botocore.exceptions import ClientError

from kling_relay.dynamodb import ConflictError
from kling_relay.lifecycle.polling import GRACE_SECONDS
from kling_relay.lifecycle.step import Step
from kling_relay.observability import logger
from kling_relay.services import Services
from kling_relay.tasks.task import Task

# The wait is over already: its end makes the workflow read the row, which we wrote first.
_NOBODY_WAITS = {"TaskTimedOut", "TaskDoesNotExist", "InvalidToken"}


def start(services: Services, step: Step) -> None:
    """Start the task's workflow under the name in its row. A running one is accepted."""
    _start(services, step.task, json.dumps(step.as_state()))


def wake(services: Services, step: Step) -> None:
    """Send `step` to the waiting workflow. Without one, the row's `due_at` triggers the sweeper."""
    _wake(services, step.task, step.as_state())


def rouse(services: Services, task: Task) -> bool:
    """Make the task's waiting workflow read the row now. Return False if it does not wait."""
    return _wake(services, task, {"task_id": task.id, "next": "advance"})


def _wake(services: Services, task: Task, state: dict[str, Any]) -> bool:
    if task.task_token is None:
        return False
    try:
        services.workflows.send_task_success(taskToken=task.task_token, output=json.dumps(state))
    except ClientError as exc:
        if exc.response["Error"]["Code"] not in _NOBODY_WAITS:
            raise
        return False
    return True


def replace(services: Services, task: Task) -> bool:
    """Move the task to a new execution, which reads the row first. Return False if another writer just did."""
    run = int(task.execution.rpartition("-r")[2]) + 1 if "-r" in task.execution else 1
    due_at = services.clock.now_ms() + int(GRACE_SECONDS * 1000)
    try:
        task = services.table.take_over(task, f"{task.id}-r{run}", due_at)
    except ConflictError:
        return False
    _start(services, task, json.dumps({"task_id": task.id, "next": "advance"}))
    return True


def _start(services: Services, task: Task, state: str) -> None:
    arn = services.settings.need("state_machine_arn")
    try:
        services.workflows.start_execution(stateMachineArn=arn, name=task.execution, input=state)
    except ClientError as exc:
        if exc.response["Error"]["Code"] != "ExecutionAlreadyExists":
            raise
        logger.info("workflow_already_started", extra={"task_id": task.id, "execution": task.execution})
