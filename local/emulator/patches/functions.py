"""Correct Lambda: error names, importable packages, retries of asynchronous calls, concurrency."""

import os
import queue
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import eventbridge, lambda_svc
from ministack.services.cloudformation import provisioners

from local.emulator.patches.patching import UnexpectedMiniStackError, correction, replace_once, swap, wrap

ACCOUNT_WAIT = 25.0
"""Seconds that a call waits for a slot of the account's concurrency before it is throttled."""

AWS_RUNTIME_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")
"""The packages of Lambda's Python runtime besides the standard library."""


@correction
def errors_are_named_by_their_exception() -> None:
    """MiniStack calls every error Runtime.HandlerError. AWS: the class of the exception, or Runtime.ExitError."""
    lambda_runtime._PYTHON_WORKER_SCRIPT = replace_once(
        lambda_runtime._PYTHON_WORKER_SCRIPT,
        '{"status": "error", "error": str(e), "trace"',
        '{"status": "error", "error": str(e), "type": type(e).__name__, "trace"',
        "the Python worker",
    )
    swap(
        lambda_svc._execute_function_warm,
        (
            'error_type = "Runtime.HandlerError"\n',
            'error_type = result.get("type", "Runtime.HandlerError")\n'
            '            if error_msg == "Worker process died":\n'
            '                error_type = "Runtime.ExitError"\n',
        ),
    )


@correction
def functions_run_on_their_own_python() -> None:
    """MiniStack runs functions on its own Python. AWS: on the runtime's Python; emulator/runtime.py finds it."""
    swap(
        lambda_runtime._detect_runtime_binary,
        ("return sys.executable, ", "return _FUNCTION_PYTHON, "),
        _FUNCTION_PYTHON=os.environ.get("FUNCTION_PYTHON") or sys.executable,
    )


_END_OF_OUTPUT = "\x1e"
_OUTPUT_WAIT = 5.0  # seconds; reached only if a handler has redirected its own standard error


def _output_of(worker: Any) -> str:
    """Return the output of an invocation: all text that its worker prints before the mark, or until it is dead."""
    lines: list[str] = []
    deadline = time.monotonic() + _OUTPUT_WAIT
    while time.monotonic() < deadline:
        try:
            line = worker._stderr_queue.get(timeout=0.05)
        except queue.Empty:
            if not worker._stderr_thread.is_alive():
                break
            continue
        if line == _END_OF_OUTPUT:
            break
        lines.append(line)
    return "\n".join(lines)


@correction
def what_a_function_prints_is_logged_whole() -> None:
    """MiniStack waits 5 ms for the next line. On a busy machine the rest, and the metrics in it, arrive with the next
    invocation or never. An invocation that prints nothing takes 50 ms more. AWS: the log is complete."""
    end = 'traceback.format_exc()}) + "\\n")\n'
    lambda_runtime._PYTHON_WORKER_SCRIPT = replace_once(
        lambda_runtime._PYTHON_WORKER_SCRIPT,
        f"{end}        _real_stdout.flush()\n",
        f'{end}        print("{_END_OF_OUTPUT}", file=sys.stderr, flush=True)\n        _real_stdout.flush()\n',
        "the Python worker",
    )
    swap(
        lambda_runtime.Worker.invoke,
        ('response["log"] = self._drain_stderr_bounded()', 'response["log"] = _output_of(self)'),
        _output_of=_output_of,
    )


@correction
def dependencies_come_from_layers() -> None:
    """MiniStack's workers can import every package installed with it. AWS: layers first, then the function's code,
    boto3 with its dependencies, and the standard library."""
    runtime = Path(tempfile.mkdtemp(prefix="runtime-"))
    for name in AWS_RUNTIME_PACKAGES:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise UnexpectedMiniStackError(f"{name} is not installed")
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (runtime / source.name).symlink_to(source)
    swap(
        lambda_runtime.Worker._spawn,
        ("[binary, worker_path]", '[binary, *(["-S"] if runtime.startswith("python") else []), worker_path]'),
        ("    spawn_env = {**os.environ, **env_vars}\n", "    spawn_env = {**os.environ, **_RUNTIME, **env_vars}\n"),
        _RUNTIME={"PYTHONPATH": str(runtime)},
    )


@correction
def layers_are_unpacked_once() -> None:
    """MiniStack unpacks the layers for each worker, so that each one compiles all of it. AWS: they are in /opt."""
    swap(
        lambda_runtime.Worker._spawn,
        (
            "            if layer_data:\n",
            "            if layer_data:\n"
            '                layers_dirs.append(_unpacked(layer_data, "layer"))\n'
            "                continue\n",
        ),
        _unpacked=lambda_svc._docker_extracted_dir,
    )


@correction
def eventbridge_invokes_asynchronously() -> None:
    """MiniStack invokes a rule's function once and drops a failure. AWS: asynchronous, so two retries, then
    OnFailure."""
    swap(
        eventbridge._dispatch_to_lambda,
        (
            "    threading.Thread(\n"
            "        target=lambda_svc._execute_function_with_config_scope, args=(exec_record, event), daemon=True\n"
            "    ).start()\n",
            "    lambda_svc.invoke_async_with_retry(exec_record, event)\n",
        ),
    )


@correction
def throttled_asynchronous_calls_wait() -> None:
    """MiniStack counts a throttled attempt as failed. AWS keeps the event and retries until its maximum age."""
    swap(
        lambda_svc.invoke_async_with_retry,
        (
            "            last_result = _execute_function(func, event)\n",
            "            last_result = _execute_function(func, event)\n"
            '            while last_result.get("throttle") and time.time() - started < max_event_age:\n'
            "                time.sleep(0.5)\n"
            "                last_result = _execute_function(func, event)\n",
        ),
    )


@correction
def the_account_concurrency_queues() -> None:
    """MiniStack refuses calls above LAMBDA_ACCOUNT_CONCURRENCY. AWS allows 1000, so the laptop's limit must not show:
    calls wait for a slot. ReservedConcurrentExecutions throttles at once, as on AWS."""
    freed = threading.Condition()

    @wrap(lambda_svc, "_acquire_execution_slot", "ed3b38149e2e")
    def acquire(stock: Any, function: dict[str, Any], config: dict[str, Any]) -> Any:
        deadline = time.monotonic() + ACCOUNT_WAIT
        with freed:
            slot, limit = stock(function, config)
            while limit == "account" and freed.wait(max(0.0, deadline - time.monotonic())):
                slot, limit = stock(function, config)
        return slot, limit

    @wrap(lambda_svc, "_release_execution_slot", "b35708f638af")
    def release(stock: Any, key: str) -> None:
        with freed:
            stock(key)
            freed.notify_all()


@correction
def templates_can_reserve_concurrency() -> None:
    """MiniStack ignores ReservedConcurrentExecutions in a template."""
    handlers = provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"]
    create, update = handlers["create"], handlers["update"]

    def reserve(name: str, properties: dict[str, Any]) -> None:
        reserved = properties.get("ReservedConcurrentExecutions")
        lambda_svc._functions[name]["concurrency"] = None if reserved is None else int(reserved)

    def created(logical_id: str, properties: dict[str, Any], stack: str) -> Any:
        name, attributes = create(logical_id, properties, stack)
        reserve(name, properties)
        return name, attributes

    def updated(physical_id: str, old: dict[str, Any], new: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        name, attributes = update(physical_id, old, new, *args, **kwargs)
        reserve(name, new)
        return name, attributes

    handlers.update(create=created, update=updated)
