"""Correct Step Functions: starts, ends, timeouts and retries of executions.

`SFN_WAIT_SCALE` multiplies Wait states and Retry intervals. Timeouts (of a state or of the machine) are real seconds
and may be fractions, because the project's own code scales the waits that it passes in `TimeoutSecondsPath`.
"""

import json
import re
from secrets import SystemRandom
from typing import Any

from ministack import app
from ministack.core.responses import error_response_json, json_response, now_iso
from ministack.services import stepfunctions as sfn

from local.emulator.patches.patching import correction, swap, wrap
from local.emulator.patches.task_tokens import has_ended, release_waiters


@correction
def stopping_an_execution_ends_its_tasks() -> None:
    """MiniStack lets a stopped execution wait on, and a later failure turns ABORTED into FAILED. AWS: it has ended."""

    @wrap(sfn, "_stop_execution", "44d2d84ccd5c")
    def stop(stock: Any, request: dict[str, Any]) -> Any:
        response = stock(request)
        if response[0] == 200:
            release_waiters(sfn._executions[request["executionArn"]])
        return response

    @wrap(sfn, "_fail_execution", "e6da895fa0b7")
    def fail(stock: Any, execution: dict[str, Any], error: str, cause: str) -> None:
        if not has_ended(execution):
            stock(execution, error, cause)


def _with_timeout(state: dict[str, Any], raw_input: Any, ctx: dict[str, Any]) -> dict[str, Any]:
    """Return the state with the number at its TimeoutSecondsPath.

    AWS takes whole seconds, this any number above zero.
    """
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
    """Return the seconds before the next attempt; `attempt` is the number of retries so far."""
    delay = retrier.get("IntervalSeconds", 1) * retrier.get("BackoffRate", 2.0) ** attempt
    delay = min(delay, retrier.get("MaxDelaySeconds", delay))
    return SystemRandom().uniform(0, delay) if retrier.get("JitterStrategy") == "FULL" else delay


@correction
def retries_are_capped_and_jittered() -> None:
    """MiniStack caps every retry at 60 s and has no jitter. AWS: MaxDelaySeconds, JitterStrategy."""
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
    if has_ended(execution):
        return
    execution["status"] = "TIMED_OUT"
    execution["stopDate"] = now_iso()
    sfn._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {"error": "States.Timeout"}})
    sfn._emit_execution_status_event(execution)
    release_waiters(execution)


NAME = re.compile(r'[^\s<>{}\[\]?*"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]{1,80}')
"""An execution name that AWS takes."""


@correction
def executions_are_started_as_on_aws() -> None:
    """MiniStack takes any name and input, refuses a repeated start and ignores the machine's TimeoutSeconds. AWS:
    InvalidName, InvalidExecutionInput; a repeated start returns the running execution; TIMED_OUT."""

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
            if running and not has_ended(running) and running["input"] == request.get("input", "{}"):
                return json_response({"executionArn": arn, "startDate": running["startDate"]})
        response = stock(request)
        seconds = json.loads(sfn._state_machines[machine_arn]["definition"]).get("TimeoutSeconds")
        if response[0] == 200 and seconds is not None:
            execution = sfn._executions[json.loads(response[2])["executionArn"]]
            app._MAIN_LOOP.call_soon_threadsafe(app._MAIN_LOOP.call_later, seconds, _time_out, execution)
        return response
