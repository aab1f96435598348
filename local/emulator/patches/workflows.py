"""Step Functions: task tokens, retries, time-outs and execution names.

`SFN_WAIT_SCALE` multiplies Wait states and Retry intervals. Time-outs (of a state or of the machine) are real seconds
and may be fractions: the project's own code scales the waits that it hands over in `TimeoutSecondsPath`.
"""

import json
import re
import threading
import time
from secrets import SystemRandom
from typing import Any

from ministack import app
from ministack.core.responses import error_response_json, json_response, now_iso
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
"""Token -> ARN of the state machine that it belongs to; kept when the token has ended."""


def machine_of(token: str) -> str | None:
    return _machines.get(token)


def _ended(execution: dict[str, Any] | None) -> bool:
    return execution is not None and execution["status"] != "RUNNING"


def _release_waiters(execution: dict[str, Any]) -> None:
    """Wake the tasks that wait for a token in an execution that has ended, so that their threads end."""
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
        # Whoever is first to fill "answer" decides: the time-out here, or the answer in `_take_answer`.
        if not woken.wait(max(0.0, deadline - time.monotonic())) and entry.setdefault("answer", "none") == "none":
            raise sfn._ExecutionError("States.Timeout", "No answer arrived for the task token")
        woken.wait()
    finally:
        sfn._task_tokens.pop(token, None)
    if _ended(execution):
        raise SystemExit  # ends this thread only; no Catch applies to an execution that has ended
    if failure := entry["error"]:
        raise sfn._ExecutionError(failure["Error"], failure["Cause"])
    return json.loads(entry["result"])


@correction
def a_failing_integration_fails_its_callback_task() -> None:
    """MiniStack swallows a Lambda's error and waits; a stopped execution waits on. AWS: the error fails the task."""
    wrap(sfn, "_invoke_with_callback", "bbb38423156a")(lambda stock, *args: _await_answer(*args))
    swap(
        sfn._execute_task,
        ('ctx["Task"]["Token"], state_def)', 'ctx["Task"]["Token"], state_def, execution)'),
    )


@correction
def every_attempt_has_its_own_token() -> None:
    """MiniStack makes one token a state and keeps retrying in stopped executions. AWS: one token an attempt, no more
    attempts once the execution has ended."""
    swap(
        sfn._execute_task,
        ('    if is_callback:\n        ctx["Task"] = {"Token": new_uuid()}\n', ""),
        (
            '        ctx["State"]["RetryCount"] = sum(retry_counts.values())\n',
            '        ctx["State"]["RetryCount"] = sum(retry_counts.values())\n'
            "        if _ended(execution):\n"
            "            raise SystemExit\n"
            "        if is_callback:\n"
            '            ctx["Task"] = {"Token": new_uuid()}\n',
        ),
        _ended=_ended,
    )


def _take_answer(stock: Any, request: dict[str, Any]) -> Any:
    """SendTaskSuccess or SendTaskFailure: the first answer to an open token is taken."""
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
    if entry is None or _ended(entry.get("execution")):
        return _task_timed_out()
    return None


def _task_timed_out() -> Any:
    return error_response_json("TaskTimedOut", "Task Timed Out: 'Provided task does not exist anymore'", 400)


@correction
def a_token_takes_one_answer() -> None:
    """MiniStack takes a second answer before the task wakes, and any text as output; else TaskDoesNotExist. AWS:
    TaskTimedOut for a token that was used or whose task has ended, InvalidToken for an unknown one, InvalidOutput."""
    wrap(sfn, "_send_task_success", "12eff48bce57")(_take_answer)
    wrap(sfn, "_send_task_failure", "c2a489b4ed33")(_take_answer)
    wrap(sfn, "_send_task_heartbeat", "56879a4655d1")(
        lambda stock, request: _refusal(request["taskToken"]) or stock(request)
    )


@correction
def stopping_an_execution_ends_its_tasks() -> None:
    """MiniStack lets a stopped execution wait on, and a later failure turns ABORTED into FAILED. AWS: it has ended."""

    @wrap(sfn, "_stop_execution", "44d2d84ccd5c")
    def stop(stock: Any, request: dict[str, Any]) -> Any:
        response = stock(request)
        if response[0] == 200:
            _release_waiters(sfn._executions[request["executionArn"]])
        return response

    @wrap(sfn, "_fail_execution", "e6da895fa0b7")
    def fail(stock: Any, execution: dict[str, Any], error: str, cause: str) -> None:
        if not _ended(execution):
            stock(execution, error, cause)


def _with_timeout(state: dict[str, Any], raw_input: Any, ctx: dict[str, Any]) -> dict[str, Any]:
    """The state with the number that its TimeoutSecondsPath points to. AWS takes whole seconds, this any above zero."""
    path = state.get("TimeoutSecondsPath")
    if path is None:
        return state
    seconds = sfn._resolve_path_or_ctx(path, sfn._apply_input_path(state, raw_input, ctx), ctx)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds <= 0:
        raise sfn._ExecutionError("States.Runtime", f"TimeoutSecondsPath {path} is not a positive number: {seconds!r}")
    return {**state, "TimeoutSeconds": seconds}


@correction
def timeout_seconds_path_is_resolved() -> None:
    """MiniStack ignores TimeoutSecondsPath. AWS: seconds from the state's input."""
    swap(
        sfn._execute_task,
        (
            '    resource = state_def.get("Resource", "")\n',
            '    state_def = _with_timeout(state_def, raw_input, ctx)\n    resource = state_def.get("Resource", "")\n',
        ),
        _with_timeout=_with_timeout,
    )


def _retry_delay(retrier: dict[str, Any], attempt: int) -> float:
    """Seconds before the next attempt, of which `attempt` counts the retries so far."""
    delay = retrier.get("IntervalSeconds", 1) * retrier.get("BackoffRate", 2.0) ** attempt
    delay = min(delay, retrier.get("MaxDelaySeconds", delay))
    return SystemRandom().uniform(0, delay) if retrier.get("JitterStrategy") == "FULL" else delay


@correction
def retries_are_capped_and_jittered() -> None:
    """MiniStack caps every retry at 60 s and knows no jitter. AWS: MaxDelaySeconds, JitterStrategy."""
    swap(
        sfn._execute_task,
        (
            '                interval = retrier.get("IntervalSeconds", 1)\n'
            '                backoff = retrier.get("BackoffRate", 2.0)\n'
            "                sleep_sec = interval * (backoff ** count)\n"
            "                _scaled_sleep(min(sleep_sec, 60))\n",
            "                _scaled_sleep(_retry_delay(retrier, count))\n",
        ),
        _retry_delay=_retry_delay,
    )
    swap(
        sfn._with_retry_and_catch,
        (
            '                interval = retrier.get("IntervalSeconds", 1)\n'
            '                _scaled_sleep(min(interval * (retrier.get("BackoffRate", 2.0) ** count), 60))\n',
            "                _scaled_sleep(_retry_delay(retrier, count))\n",
        ),
    )


@correction
def a_throttled_lambda_can_be_retried_by_name() -> None:
    """MiniStack fails the task with Lambda.Unknown. AWS: Lambda.TooManyRequestsException."""
    swap(
        sfn._call_lambda,
        (
            '    if result.get("error"):\n',
            '    if result.get("throttle"):\n'
            '        raise _ExecutionError("Lambda.TooManyRequestsException", json.dumps(result["body"]))\n'
            '    if result.get("error"):\n',
        ),
    )


def _time_out(execution: dict[str, Any]) -> None:
    if _ended(execution):
        return
    execution["status"] = "TIMED_OUT"
    execution["stopDate"] = now_iso()
    sfn._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {"error": "States.Timeout"}})
    sfn._emit_execution_status_event(execution)
    _release_waiters(execution)


NAME = re.compile(r'[^\s<>{}\[\]?*"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]{1,80}')
"""An execution name that AWS takes."""


@correction
def executions_are_started_as_on_aws() -> None:
    """MiniStack takes any name and input, refuses a repeated start and ignores the machine's TimeoutSeconds.
    AWS: InvalidName, InvalidExecutionInput; the same start again answers the running execution; TIMED_OUT."""

    @wrap(sfn, "_start_execution", "9923282fc76c")
    def start(stock: Any, request: dict[str, Any]) -> Any:
        if "name" in request and not NAME.fullmatch(request["name"]):
            return error_response_json("InvalidName", f"Invalid Name: '{request['name']}'", 400)
        try:
            json.loads(request.get("input", "{}"))
        except ValueError as error:
            return error_response_json("InvalidExecutionInput", f"Invalid State Machine Execution Input: {error}", 400)
        machine_arn = sfn._resolve_state_machine_arn(request.get("stateMachineArn", ""))
        if machine_arn is None:
            return stock(request)
        if "name" in request:
            arn = f"{machine_arn.replace(':stateMachine:', ':execution:')}:{request['name']}"
            running = sfn._executions.get(arn)
            if running and not _ended(running) and running["input"] == request.get("input", "{}"):
                return json_response({"executionArn": arn, "startDate": running["startDate"]})
        response = stock(request)
        seconds = json.loads(sfn._state_machines[machine_arn]["definition"]).get("TimeoutSeconds")
        if response[0] == 200 and seconds is not None:
            execution = sfn._executions[json.loads(response[2])["executionArn"]]
            app._MAIN_LOOP.call_soon_threadsafe(app._MAIN_LOOP.call_later, seconds, _time_out, execution)
        return response


def _definition_problem(definition: str) -> str | None:
    """Why AWS refuses a state machine: not JSON, or a wait for a token where the integration offers none."""
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
