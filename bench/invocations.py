"""Measure warm invocations of one function against its network calls, in an interpreter with Lambda's packages.

Reads the invocations as JSON from standard input (see `warm.py`). Writes CPU seconds per invocation: ours, and the bare
calls before and after each block of ours. The bare calls are the same requests with prepared arguments.
"""

import base64
import copy
import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import boto3.session
import urllib3
from botocore import xform_name
from botocore.exceptions import ClientError

_BLOCK = 25  # invocations
_WARM_UP = 10


class Calls:
    """Record the calls of a session's clients, in order."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, dict[str, Any]]] = []
        self.session = boto3.session.Session()
        self.session.events.register("provide-client-params", self._note)

    def _note(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.made.append((model.service_model.service_name, xform_name(model.name), copy.deepcopy(params)))


def control(what: str, method: str = "POST") -> Any:
    asked = urllib.request.Request(f"{os.environ['AWS_ENDPOINT_URL']}/_replay/{what}", method=method)  # noqa: S310
    with urllib.request.urlopen(asked) as answer:  # noqa: S310 # nosec B310
        return json.load(answer)


def bare(services: Any, asked: list[dict[str, Any]], made: list[tuple[str, str, dict[str, Any]]]) -> Callable[[], None]:
    """Return a function that repeats the calls in `asked`.

    AWS is called through clients like ours, the provider over a kept connection.
    """
    pool = urllib3.PoolManager(retries=False)
    clients: dict[str, Any] = {}
    calls: list[Callable[[], Any]] = []
    for one in asked:
        if one["path"].startswith("/provider"):
            url, body = os.environ["AWS_ENDPOINT_URL"] + one["path"], base64.b64decode(one["body"])
            headers = {name: one["headers"][name] for name in one["headers"] if name not in ("Host", "Content-Length")}
            calls.append(partial(pool.request, one["method"], url, body=body or None, headers=headers))
        else:
            service, operation, params = made.pop(0)
            clients[service] = clients.get(service) or services.client(service)
            calls.append(partial(getattr(clients[service], operation), **params))

    def run() -> None:
        for call in calls:
            with suppress(ClientError):  # a condition that fails is an ordinary answer
                call()

    return run


def cpu(act: Callable[[], None]) -> float:
    """Return the seconds of one call in a block."""
    began = time.process_time()
    for _ in range(_BLOCK):
        act()
    return (time.process_time() - began) / _BLOCK


def main() -> None:
    given, output = json.load(sys.stdin), sys.stdout
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  (the log is discarded)
    app, get_services = import_module("app"), import_module("kling_relay.services").get_services
    services, calls = get_services(), Calls()
    services._session = calls.session
    context = SimpleNamespace(function_name="f", memory_limit_in_mb=512, invoked_function_arn="arn", aws_request_id="1")
    context.get_remaining_time_in_millis = lambda: 30_000

    def invoke(event: dict[str, Any]) -> None:
        answer = app.handler(copy.deepcopy(event), context)
        if answer["statusCode"] != 200:
            raise RuntimeError(f"answered {answer}")

    for event in given["warming"]:
        invoke(event)
    control("record")
    calls.made.clear()
    invoke(given["event"])
    asked, made = control("play"), list(calls.made)
    floor = bare(services, asked, made)
    ours = partial(invoke, given["event"])
    for _ in range(_WARM_UP):
        ours()
        floor()
    measured: list[tuple[float, float, float]] = []
    for _ in range(given["rounds"]):
        calls.made.clear()
        measured.append((cpu(floor), cpu(ours), cpu(floor)))
    played = control("played", "GET")
    if played != len(asked) * (2 * _WARM_UP + 3 * _BLOCK * given["rounds"]):
        raise RuntimeError(f"{played} calls: an invocation made other calls than the recorded one")
    json.dump({"calls": [one["path"] for one in asked], "measured": measured}, output)


if __name__ == "__main__":
    main()
