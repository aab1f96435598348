"""Correct Step Functions' task tokens: each attempt gets a new one, and a token takes one answer."""

import json
import threading
import time
from typing import Any

from ministack.core.responses import error_response_json
from ministack.services import stepfunctions as sfn
from ministack.services.cloudformation import provisioners

from local.emulator.patches.patching import correction, swap, wrap

CALLBACK = ".waitForTaskToken"
CALLBACK_INTEGRATIONS = tuple(
    f"arn:aws:states:::{integration}"
    for integration in (
        "apigateway:invoke",
        "aws-sdk:",
        "ecs:runTask",
        "events:putEvents",
        "lambda:invoke",
        "sns:publish",
        "sqs:sendMessage",
        "states:startExecution",
    )
)
NEVER = 99_999_999
"""Seconds that AWS waits for a task without TimeoutSeconds."""

_machines: dict[str, str] = {}
"""Token -> ARN of its state machine; kept after the token has ended."""


def machine_of(token: str) -> str | None:
    return _machines.get(token)


def has_ended(execution: dict[str, Any] | None) -> bool:
    return execution is not None and execution["status"] != "RUNNING"


def release_waiters(execution: dict[str, Any]) -> None:
    """Wake the tasks that wait for a token in an ended execution, so that their threads end."""
    for entry in list(sfn._task_tokens.values()):
        if entry.get("execution") is execution:
            entry["event"].set()


def _await_answer(
    resource: str, task_input: Any, token: str, state: dict[str, Any], execution: dict[str, Any] | None
) -> Any:
    """Call the integration with a task token, then wait for the one answer that the token takes."""
    deadline = time.monotonic() + state.get("TimeoutSeconds", NEVER)
    woken = threading.Event()
    entry: dict[str, Any] = {"event": woken, "result": None, "error": None, "heartbeat": None, "execution": execution}
    sfn._task_tokens[token] = entry
    _machines[token] = execution["stateMachineArn"] if execution else ""
    try:
        sfn._invoke_resource(resource.removesuffix(CALLBACK), task_input)
        # The first to fill "answer" decides: the timeout here, or the answer in `_take_answer`.
        if not woken.wait(max(0.0, deadline - time.monotonic())) and entry.setdefault("answer", "none") == "none":
            raise sfn._ExecutionError("States.Timeout", "No answer arrived for the task token")
        woken.wait()
    finally:
        sfn._task_tokens.pop(token, None)
    if has_ended(execution):
        raise SystemExit  # ends this thread only; no Catch applies to an execution that has ended
    if failure := entry["error"]:
        raise sfn._ExecutionError(failure["Error"], failure["Cause"])
    return json.loads(entry["result"])


@correction
def a_failing_integration_fails_its_callback_task() -> None:
    """MiniStack ignores a Lambda's error and waits; a stopped execution waits on. AWS: the error fails the task."""
    wrap(sfn, "_invoke_with_callback", "bbb38423156a")(lambda stock, *args: _await_answer(*args))
    swap(
        sfn._execute_task,
        ('ctx["Task"]["Token"], state_def)', 'ctx["Task"]["Token"], state_def, execution)'),
    )


@correction
def every_attempt_has_its_own_token() -> None:
    """MiniStack makes one token per state and keeps retrying in stopped executions. AWS: one token per attempt, and no
    more attempts after the execution has ended."""
    swap(
        sfn._execute_task,
        ('    if is_callback:\n        ctx["Task"] = {"Token": new_uuid()}\n', ""),
        (
            '        ctx["State"]["RetryCount"] = sum(retry_counts.values())\n',
            '        ctx["State"]["RetryCount"] = sum(retry_counts.values())\n'
            "        if _has_ended(execution):\n"
            "            raise SystemExit\n"
            "        if is_callback:\n"
            '            ctx["Task"] = {"Token": new_uuid()}\n',
        ),
        _has_ended=has_ended,
    )


def _take_answer(stock: Any, request: dict[str, Any]) -> Any:
    """Handle SendTaskSuccess or SendTaskFailure: accept the first answer to an open token."""
    try:
        json.loads(request.get("output", "null"))
    except ValueError:
        return error_response_json("InvalidOutput", "The output is not JSON", 400)
    entry = sfn._task_tokens.get(request["taskToken"])
    refusal = _refusal(request["taskToken"])
    if refusal is None and entry.setdefault("answer", request) is not request:
        refusal = _task_timed_out()
    return refusal or stock(request)


def _refusal(token: str) -> Any:
    entry = sfn._task_tokens.get(token)
    if entry is None and token not in _machines:
        return error_response_json("InvalidToken", "Invalid Token: 'Invalid token'", 400)
    if entry is None or has_ended(entry.get("execution")):
        return _task_timed_out()
    return None


def _task_timed_out() -> Any:
    return error_response_json("TaskTimedOut", "Task Timed Out: 'Provided task does not exist anymore'", 400)


@correction
def a_token_takes_one_answer() -> None:
    """MiniStack takes a second answer before the task wakes, and any text as output. Later it answers TaskDoesNotExist.
    AWS: TaskTimedOut for a used token or an ended task, InvalidToken for an unknown token, InvalidOutput."""
    wrap(sfn, "_send_task_success", "12eff48bce57")(_take_answer)
    wrap(sfn, "_send_task_failure", "c2a489b4ed33")(_take_answer)
    wrap(sfn, "_send_task_heartbeat", "56879a4655d1")(
        lambda stock, request: _refusal(request["taskToken"]) or stock(request)
    )


def _definition_problem(definition: str) -> str | None:
    """Return why AWS refuses a definition: invalid JSON, or a wait for a token with an integration that has none."""
    resources: list[str] = []

    def collect(member: dict[str, Any]) -> dict[str, Any]:
        resources.append(str(member.get("Resource", "")))
        return member

    try:
        json.loads(definition, object_hook=collect)
    except ValueError as error:
        return f"INVALID_JSON_DESCRIPTION: {error}"
    for resource in resources:
        if resource.endswith(CALLBACK) and not resource.startswith(CALLBACK_INTEGRATIONS):
            return f"SCHEMA_VALIDATION_FAILED: The resource provided {resource} is not recognized"
    return None


@correction
def only_some_integrations_offer_a_token() -> None:
    """MiniStack creates any state machine and waits for any integration. AWS refuses the definition."""

    @wrap(sfn, "_validate_definition_jsonata", "a5ec092b2c8d")
    def validate(stock: Any, definition: str) -> Any:
        return _definition_problem(str(definition)) or stock(definition)

    @wrap(provisioners, "_sfn_definition", "e29ae22959e7")
    def from_template(stock: Any, properties: dict[str, Any]) -> str:
        definition: str = stock(properties)
        if problem := _definition_problem(definition):
            raise ValueError(problem)
        return definition
