"""Run the relay's own code on moto, with a virtual clock, a provider with a ledger, and a small Step Functions.

Handlers are the real ones of functions/*/app.py. Their external effects are counted, so that a test can kill the
process before or after the n-th effect.
"""

import hashlib
import importlib.util
import itertools
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import yaml
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import ClientError
from kling_relay.clock import Clock
from kling_relay.lifecycle.archive import key as video_key
from kling_relay.observability import Metric
from kling_relay.security import auth, callback_tokens
from kling_relay.security.stored_secrets import Cached
from kling_relay.services import Services
from kling_relay.settings import Settings
from kling_relay.tasks import output_names
from kling_relay.tasks.table import TaskTable
from kling_relay.tasks.task import Phase, Task
from kling_relay.tasks.task_row import task_of as as_task

from tests.support.counted_effects import Crash, Effects, planned
from tests.support.fake_provider import LedgerProvider

ROOT = Path(__file__).resolve().parents[2]
START = 1_790_000_000_000
BASE_URL = "https://relay.example"
BODY = {"image": "https://images.example/cat.png", "prompt": "canary-prompt", "model_name": "kling-v2-5-turbo"}
CLOSED = {Phase.SUCCEEDED, Phase.FAILED, Phase.EXPIRED}
FUNCTIONS = (
    "task_api",
    "kling_callback",
    "advance_task",
    "archive_video",
    "sweep_tasks",
    "operate_tasks",
    "ops_widget",
    "notify_client",
    "image_upload",
)
_numbers = itertools.count(1)


class _Loader(yaml.SafeLoader):
    """Reduce CloudFormation's short forms (!Ref, !Sub ...) to their plain argument."""


def _argument(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return loader.construct_scalar(node)  # type: ignore[arg-type]


_Loader.add_multi_constructor("!", _argument)


@cache
def template() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((ROOT / "template.yaml").read_text(), _Loader)
    return loaded


@cache
def _sleep_parameters() -> dict[str, Any]:
    """Return the expressions with which AwaitCallback stores its token."""
    asl = yaml.safe_load((ROOT / "statemachine" / "task_lifecycle.asl.yaml").read_text())
    parameters: dict[str, Any] = asl["States"]["AwaitCallback"]["Parameters"]
    return parameters


def create_table(client: Any, name: str) -> None:
    """Create the table exactly as template.yaml's TaskTable defines it, in a new stack with the default parameters."""
    properties = template()["Resources"]["TaskTable"]["Properties"]
    given = {key: properties[key] for key in ("BillingMode", "KeySchema")}
    for key in ("AttributeDefinitions", "GlobalSecondaryIndexes"):  # [condition, what holds by default, otherwise]
        given[key] = [one[1] if isinstance(one, list) else one for one in properties[key]]
    client.create_table(TableName=name, **given)


def client_error(code: str, operation: str = "Any", **response: Any) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}, **response}, operation)


def load(function: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"app_{function}", ROOT / "functions" / function / "app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class VirtualClock(Clock):
    """Hold a virtual clock. `now` is the true time; `skew` (ms) is the clock error of the running function."""

    def __init__(self) -> None:
        self.now, self.skew = START, 0

    def now_ms(self) -> int:
        return self.now + self.skew

    def tick(self, seconds: float) -> None:
        self.now += int(seconds * 1000)

    sleep = tick


class FakeStepFunctions:
    """Play Step Functions: one execution per name, each driven by the answers of its steps.

    `transitions` counts the states that each task's executions enter, as they are billed: WhatNext after every other
    state and at the start, but not between AwaitCallback's timeout, or a failed copy, and Advance.
    """

    def __init__(self, world: "World") -> None:
        self.world = world
        self.executions: dict[str, SimpleNamespace] = {}
        self.transitions: Counter[str] = Counter()
        self.wait = _sleep_parameters()
        self.fail_starts = 0
        self._busy: set[str] = set()  # an execution is in one state at a time
        self._tokens = itertools.count(1)

    def start_execution(self, *, stateMachineArn: str, name: str, input: str) -> dict[str, str]:
        if self.fail_starts:
            self.fail_starts -= 1
            raise client_error("ThrottlingException")
        if name in self.executions:
            raise client_error("ExecutionAlreadyExists")
        one = SimpleNamespace(name=name, state=json.loads(input), token=None, wakes=0, open=True)
        self.executions[name] = one
        self._enter(one, "WhatNext")
        return {}

    def _enter(self, one: SimpleNamespace, *states: str) -> None:
        self.transitions[one.state["task_id"]] += len(states)

    def send_task_success(self, *, taskToken: str, output: str) -> dict[str, str]:
        for execution in self.executions.values():
            if execution.open and execution.token == taskToken:
                execution.token, execution.state = None, json.loads(output)
                self._enter(execution, "WhatNext")
                return {}
        raise client_error("TaskTimedOut")

    def run(self) -> None:
        """Run every execution until it sleeps or ends."""
        moved = True
        while moved:
            idle = [one for one in self.executions.values() if one.open and one.name not in self._busy]
            moved = any([self._step_alone(one) for one in idle])
            self.world.run_notifier()

    def _step_alone(self, one: SimpleNamespace) -> bool:
        self._busy.add(one.name)
        try:
            return one.open and self._step(one)
        finally:
            self._busy.discard(one.name)

    def _step(self, one: SimpleNamespace) -> bool:
        if one.token is not None:
            if self.world.clock.now < one.wakes:
                return False
            one.token = None
            one.state["next"] = "advance"
        following = one.state.get("next")
        event = {"task_id": one.state["task_id"], "execution": one.name}
        try:
            if following == "done":
                self._enter(one, "Done")
                one.open = False
            elif following == "wait":
                self._enter(one, "AwaitCallback")
                self._sleep(one)
            elif following == "archive":
                self._enter(one, "ArchiveVideo")
                one.state = self._archive(one, event)
            else:
                self._enter(one, "Advance", "WhatNext")
                one.state = self.world.call("advance_task", event)
        except (Exception, Crash) as exc:
            self.world.record_error(exc)
            one.open = False  # the execution has ended too: the sweeper must detect it
        return True

    def _archive(self, one: SimpleNamespace, event: dict[str, Any]) -> dict[str, Any]:
        try:
            state: dict[str, Any] = self.world.call("archive_video", event)
        except Exception as exc:
            self.world.record_error(exc)
            return {**event, "next": "advance"}
        self._enter(one, "WhatNext")
        return state

    def _sleep(self, one: SimpleNamespace) -> None:
        """Call DynamoDB like AwaitCallback. A failed condition leads to Advance, any other error to the end (Lost)."""
        token = f"token-{next(self._tokens)}"
        given = {"$$.Task.Token": token, "$$.Execution.Name": one.name}
        given |= {f"$.{name}": value for name, value in one.state.items()}
        values = {
            name: {kind.removesuffix(".$"): given[path] for kind, path in typed.items()}
            for name, typed in self.wait["ExpressionAttributeValues"].items()
        }
        place = {"TableName": self.world.table.rows.name, "Key": {"pk": {"S": f"task#{one.state['task_id']}"}}}
        try:
            self.world.table.rows.client.update_item(**{**self.wait, **place, "ExpressionAttributeValues": values})
        except ClientError as exc:
            if exc.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            one.state["next"] = "advance"
            return
        assert one.state["wait_seconds"] >= 1 and isinstance(one.state["wait_seconds"], int)
        one.token, one.wakes = token, self.world.clock.now + one.state["wait_seconds"] * 1000

    def kill(self) -> None:
        for one in self.executions.values():
            one.open = False


class Cloud:
    """Hold what all worlds of a test module share: moto's clients and buckets. Created inside `mock_aws`."""

    def __init__(self) -> None:
        self.session = Session(region_name="us-east-1")
        self.dynamodb = self.session.client("dynamodb")
        self.s3 = self.session.client("s3", config=Config(signature_version="s3v4"))
        for bucket in ("inputs", "videos"):
            self.s3.create_bucket(Bucket=bucket)
        self.s3.put_bucket_versioning(Bucket="inputs", VersioningConfiguration={"Status": "Enabled"})
        self.apps = {name: load(name) for name in FUNCTIONS}


class World:
    """Hold one relay: its table, its functions, its provider, its time."""

    def __init__(self, cloud: Cloud, *, profile: dict[str, Any] | None = None, **settings: Any) -> None:
        self.cloud, self.clock, self.effects = cloud, VirtualClock(), Effects()
        self.dynamodb = cloud.dynamodb
        name = f"tasks-{next(_numbers)}"
        create_table(cloud.dynamodb, name)
        given = {"input_bucket": "inputs", "video_bucket": "videos", "state_machine_arn": "arn", "provider": "kling"}
        given |= {"notify_function": "notify", "event_bus": "bus"}
        given |= {"intake_tenant": "inbox", "intake_queue_url": "queue", "intake_dead_letters_url": "dead"}
        given |= {"operate_function": "arn:aws:lambda:us-east-1:123456789012:function:operate"}
        self.services = Services(Settings(task_table=name, **{**given, **settings}), self.clock, cloud.session)
        self.table = self.services.table = TaskTable(
            self.effects.watch(cloud.dynamodb), name, on_move=self.services.report_move
        )
        self.s3 = self.services.s3 = self.effects.watch(cloud.s3)
        self.measured: Counter[str] = Counter()  # metric, or metric/reason -> the sum of the published values
        publish = self.services._emit
        self.services._emit = lambda values, reason=None: self._measure(publish, values, reason)  # type: ignore[method-assign]
        self.states = FakeStepFunctions(self)
        self.services.workflows = self.effects.watch(self.states)
        self.notifier_calls: list[str] = []  # ids of the tasks that notify_client was invoked for
        self.events: list[tuple[str, dict[str, Any]]] = []  # detail-type and detail of the events on the bus
        self.services.lambdas = SimpleNamespace(invoke=self._invoke)
        self.services.events = SimpleNamespace(put_events=self._put_events)
        true_time = SimpleNamespace(now_ms=lambda: self.clock.now)
        self.provider = LedgerProvider(true_time, self.effects, **(profile or {}))
        self.services.provider = self.provider  # type: ignore[assignment]
        self.services.secrets.relay = Cached(lambda: json.dumps({"k1": "canary-secret"}))
        self.services._base_url = Cached(lambda: BASE_URL)
        self.keys: dict[str, auth.IssuedKey] = {}
        self.copy_faults: list[str] = []
        self.unexpected_errors: list[BaseException] = []  # errors of functions that no planned fault caused
        self.effects.meanwhile = self.run_others
        self.skew: Callable[[], int] = lambda: 0  # the clock error of one call of a function (ms)
        for app in cloud.apps.values():
            app.get_services = lambda: self.services  # type: ignore[attr-defined]
        cloud.apps["archive_video"].copy_outputs = self._copy  # type: ignore[attr-defined]

    def _measure(self, publish: Callable[..., None], values: Mapping[Metric, float], reason: str | None) -> None:
        self.measured.update({f"{name}/{reason}" if reason else str(name): value for name, value in values.items()})
        publish(values, reason)

    # -- the functions

    def call(self, function: str, event: dict[str, Any], *, left_ms: int = 28_000) -> Any:
        context = SimpleNamespace(
            function_name=function,
            memory_limit_in_mb=512,
            invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:x",
            aws_request_id="request-1",
            get_remaining_time_in_millis=lambda: left_ms,
        )
        self.clock.skew = self.skew()
        try:
            return self.cloud.apps[function].handler(event, context)
        finally:
            self.clock.skew = 0

    def http(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """Send a request through API Gateway; return status and body."""
        sent = body if isinstance(body, str) or body is None else json.dumps(body)
        path, _, query = path.partition("?")
        event = {"httpMethod": method, "path": path, "body": sent, "headers": headers, "isBase64Encoded": False}
        event["queryStringParameters"] = dict(parse_qsl(query, keep_blank_values=True)) or None
        event["requestContext"] = {"requestId": "gateway-1"}
        answer = self.call("task_api", event)
        return answer["statusCode"], json.loads(answer["body"])

    def key(self, tenant: str = "acme") -> str:
        if tenant not in self.keys:
            self.keys[tenant] = auth.issue(self.services.keys, self.services.keyring, tenant, self.clock.now)
        return f"Bearer {self.keys[tenant].api_key}"

    def post(self, body: Any = None, *, tenant: str = "acme", **headers: str) -> tuple[int, dict[str, Any]]:
        return self.http(
            "POST", "/kling/v1/videos/image2video", body or BODY, authorization=self.key(tenant), **headers
        )

    def create(self, body: Any = None, **options: str) -> Task:
        status, answer = self.post(body, **options)
        assert status == 200, answer
        return self.task(answer["data"]["task_id"])

    def callback(self, task: Task, body: Any = None) -> int:
        token = callback_tokens.callback_url(BASE_URL, self.services.keyring, task.id).rpartition("/")[2]
        event = {"pathParameters": {"task_id": task.id, "token": token}, "body": json.dumps(body or {})}
        status: int = self.call("kling_callback", event)["statusCode"]
        return status

    def sweep(self) -> dict[str, int]:
        swept: dict[str, int] = self.call("sweep_tasks", {})
        return swept

    def archive(self, task: Task) -> None:
        """Call archive_video like the task's workflow: an error leads to another Advance."""
        with suppress(Exception):
            self.call("archive_video", {"task_id": task.id, "execution": task.execution})

    def run_notifier(self) -> None:
        """Run notify_client for each of its invocations, in a separate process each, which can die alone."""
        while self.notifier_calls:
            try:
                self.call("notify_client", {"task_id": self.notifier_calls.pop(0)}, left_ms=90_000)
            except (Exception, Crash) as exc:
                self.record_error(exc)

    def _invoke(self, *, FunctionName: str, InvocationType: str, Payload: str) -> None:
        assert (FunctionName, InvocationType) == ("notify", "Event")
        self.notifier_calls.append(json.loads(Payload)["task_id"])

    def _put_events(self, *, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        told = [(entry["DetailType"], json.loads(entry["Detail"])) for entry in Entries]
        self.effects.around("put_events", lambda: self.events.extend(told))
        return {"FailedEntryCount": 0, "Entries": [{} for _ in told]}

    def record_error(self, exc: BaseException) -> None:
        """Record a function's error: AWS retries it, or the sweeper does. Only a planned fault may cause one."""
        if not planned(exc):
            self.unexpected_errors.append(exc)

    def run_others(self) -> None:
        """Run the other functions during a late request: sweeper, notify_client, a paid task's callback, workflows."""
        self.clock.tick(5)
        self.sweep()
        self.run_notifier()
        for sold in list(self.provider.sold):
            if self.row(f"task#{sold.reference}"):
                self.callback(self.task(sold.reference), {"task_id": sold.upstream_id})
        self.states.run()

    # -- time

    def run(self, seconds: float, *, step: float = 60) -> None:
        """Advance the time: workflows wake when their wait ends, the sweeper runs once in `step` seconds."""
        ends, sweeps = self.clock.now + int(seconds * 1000), self.clock.now
        while True:
            self.states.run()
            sleepers = [one.wakes for one in self.states.executions.values() if one.open and one.token is not None]
            at = min([*sleepers, sweeps + int(step * 1000)])
            if at > ends:
                break
            self.clock.now = max(self.clock.now, at)
            if at >= sweeps + step * 1000:
                sweeps = at
                self.sweep()
        self.clock.now = ends

    def until_closed(self, task_id: str, *, maximum: float = 3600) -> Task:
        for _ in range(int(maximum // 60)):
            if self.task(task_id).phase in CLOSED:
                break
            self.run(60)
        return self.task(task_id)

    # -- inspection

    def task(self, task_id: str) -> Task:
        row = self.row(f"task#{task_id}")
        assert row, f"there is no task {task_id}"
        return self.sound(row)

    def tasks(self) -> list[Task]:
        rows = self.dynamodb.scan(TableName=self.table.rows.name, ConsistentRead=True)["Items"]
        return [self.sound(row) for row in rows if row["pk"]["S"].startswith("task#")]

    def row(self, pk: str) -> dict[str, Any]:
        row: dict[str, Any] = self.table.rows.get(pk) or {}
        return row

    def sound(self, row: dict[str, Any]) -> Task:
        """Return the task of a row, after checking the invariants of every row."""
        task = as_task(row)
        ended = task.phase in (Phase.SUCCEEDED, Phase.FAILED) or (task.phase is Phase.EXPIRED and task.due_at is None)
        assert ("due_at" in row) == ("queue" in row), row
        # A deleted row may stay due for a while: a copier may store an object after the removal.
        assert ("due_at" in row) != ended or task.deleted_at is not None, row
        assert ("expires_at" in row) == ended, row
        assert self.provider.billed(task.id) <= 1, f"{task.id} was billed twice"
        return task

    def _copy(self, services: Services, task: Task, *, seconds: float) -> list[dict[str, Any]]:
        from kling_relay.transfer.s3_copy import ArchiveError

        fault = self.copy_faults.pop(0) if self.copy_faults else ""
        if fault and fault != "second":
            raise ArchiveError(fault)
        copies: list[dict[str, Any]] = []
        for output, key in zip(task.outputs, video_keys(task), strict=True):
            if fault and copies:
                raise ArchiveError("source_expired")
            body = video_body(output)
            if not self.stored(key):  # like s3_copy.py: an existing copy is never overwritten
                self.s3.put_object(Bucket="videos", Key=key, Body=body)
            md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
            copies.append({"id": output["id"], "key": key, "duration": "5", "size": len(body), "md5": md5})
        return copies

    def stored(self, key: str) -> bool:
        try:
            self.cloud.s3.head_object(Bucket="videos", Key=key)
        except (KeyError, ClientError):
            return False
        return True


def video_body(output: dict[str, Any]) -> bytes:
    """Return the body at an output's address. The files of a list differ; their names begin with "file-"."""
    name = str(output["id"])
    return name.encode() if name.startswith("file-") else b"video"


def video_keys(task: Task) -> list[str]:
    """Return the keys of a task's videos, from its row or, before its copy, from the provider's list."""
    if task.videos:
        return [video["key"] for video in task.videos]
    return [video_key(task, name) for name in output_names.names(task.outputs)]


logging.getLogger("botocore").setLevel(logging.WARNING)
