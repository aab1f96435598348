"""Drive the whole local stack from a test: as a client, as the provider's owner, and as an operator.

The simulator's ledger has the payments. The table and the execution histories show their course.
"""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import av
import requests

from kling_relay_cli import REPOSITORY
from local.stack.stack import Stack

SAMPLE = (REPOSITORY / "local/stack/sample.jpg").read_bytes()
IMAGE = base64.b64encode(SAMPLE).decode()
BODY = {"image": IMAGE, "prompt": "canary-prompt: the sun goes down", "model_name": "kling-v2-5-turbo", "duration": "5"}
"""kling-v2-5-turbo is the model that is asked for soonest where no callback comes."""

QUIET = {"model_name": "kling-v2-master", "duration": "10"}
"""Not asked for within seven seconds by the workflow itself: what happens before is a callback's doing."""

ENDS = ("succeed", "failed")
WAIT = 90.0
"""Seconds after which something that should have happened is given up."""


def until(what: Callable[[], Any], seconds: float = WAIT) -> Any:
    """What `what` returns as soon as that is true."""
    ends_at = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < ends_at, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return value


def call(method: str, url: str, **options: Any) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, timeout=60, **options)


def play(video: bytes) -> tuple[int, int, int]:
    """Width, height and number of decoded frames of a whole MP4."""
    with av.open(io.BytesIO(video)) as container:
        frames = list(container.decode(video=0))
    return frames[0].width, frames[0].height, len(frames)


def data_of(response: requests.Response) -> dict[str, Any]:
    """The task object of a good answer, checked against what existing clients break on."""
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["code"] == 0 and type(answer["code"]) is int
    assert isinstance(answer["message"], str) and answer["request_id"] and isinstance(answer["request_id"], str)
    data: dict[str, Any] = answer["data"]
    assert isinstance(data["task_id"], str) and data["task_id"] and ":" not in data["task_id"]
    assert data["task_status"] in ("submitted", "processing", "succeed", "failed")
    assert isinstance(data["task_status_msg"], str) and isinstance(data["task_info"], dict)
    assert type(data["created_at"]) is type(data["updated_at"]) is int
    assert abs(data["created_at"] / 1000 - time.time()) < 300 and data["updated_at"] >= data["created_at"]
    for video in data.get("task_result", {}).get("videos", []):
        assert all(isinstance(video[name], str) and video[name] for name in ("id", "url", "duration"))
    return data


def refusal_of(response: requests.Response) -> tuple[int, int, str]:
    """HTTP status, code and message of a refusal in Kling's envelope."""
    answer = response.json()
    assert type(answer["code"]) is int and answer["code"] != 0 and answer.get("data") is None
    assert isinstance(answer["message"], str) and answer["message"]
    assert isinstance(answer["request_id"], str) and answer["request_id"]
    return response.status_code, answer["code"], answer["message"]


class Driver:
    """One stack in the hands of a test."""

    def __init__(self, stack: Stack) -> None:
        assert stack.emulator is not None
        self.stack, self.emulator, self.endpoint = stack, stack.emulator, stack.endpoint
        self.dynamodb, self.s3, self.lambdas, self.workflows, self.cloudwatch = (
            self.emulator.client(name) for name in ("dynamodb", "s3", "lambda", "stepfunctions", "logs")
        )
        self._began = int(time.time() * 1000)
        self.may_be_denied: list[str] = []
        self._calls_before = self.emulator.calls_path.stat().st_size
        names = [one["FunctionName"] for one in self.lambdas.list_functions()["Functions"]]
        (self._sweeper,) = [name for name in names if "SweepTasks" in name]

    # -- as a client

    def post(self, body: Any = None, *, kind: str = "image2video", key: str = "api_key", **extra: Any) -> dict:
        """Submit and return the task object."""
        return data_of(self.send({**(BODY if body is None else body), **extra}, kind=kind, key=key))

    def send(
        self, body: Any, *, kind: str = "image2video", key: str = "api_key", headers: dict[str, str] | None = None
    ) -> requests.Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        auth = {"Authorization": f"Bearer {self.endpoint[key]}", "Content-Type": "application/json"}
        url = f"{self.endpoint['api_url']}/kling/v1/videos/{kind}"
        return call("POST", url, data=data, headers={**auth, **(headers or {})})

    def get(self, reference: str, *, kind: str = "image2video", key: str = "api_key") -> requests.Response:
        url = f"{self.endpoint['api_url']}/v1/videos/{kind}/{reference}"
        return call("GET", url, headers={"Authorization": f"Bearer {self.endpoint[key]}"})

    def ended(self, task_id: str, *, key: str = "api_key", seconds: float = WAIT) -> dict[str, Any]:
        """The task object at its end, by polling as a client does."""

        def look() -> dict[str, Any] | None:
            data = data_of(self.get(task_id, key=key))
            return data if data["task_status"] in ENDS else None

        found: dict[str, Any] = until(look, seconds)
        return found

    def delivered(self, task_id: str, *, key: str = "api_key", seconds: float = WAIT) -> bytes:
        """The video of a task that has to succeed, downloaded as a client does, and the same in the bucket."""
        task = self.ended(task_id, key=key, seconds=seconds)
        assert task["task_status"] == "succeed", task
        (video,) = task["task_result"]["videos"]
        stray = {"Authorization": f"Bearer {self.endpoint[key]}"}  # some clients send their key to the video, too
        answer = call("GET", video["url"], headers=stray, allow_redirects=False)
        assert answer.status_code == 200, answer.text
        assert play(answer.content)[2] > 100
        (name,) = self.objects("video_bucket", task_id)
        stored = self.s3.get_object(Bucket=self.endpoint["video_bucket"], Key=name)["Body"].read()
        assert stored == answer.content
        return answer.content

    # -- as the provider's owner

    def faults(self, **switches: Any) -> None:
        self._control("faults", switches)

    def account(self, **settings: Any) -> None:
        self._control("account", settings)

    def _control(self, name: str, settings: dict[str, Any]) -> None:
        answer = call("POST", f"{self.endpoint['simulator_url']}/_sim/{name}", json=settings)
        assert answer.status_code == 200, answer.text

    def ledger(self) -> dict[str, Any]:
        books: dict[str, Any] = call("GET", f"{self.endpoint['simulator_url']}/_sim/ledger").json()
        return books

    def paid(self, task_id: str) -> dict[str, Any]:
        """The one entry that the provider's books have for a task of ours: paid once, never twice."""
        entries = [entry for entry in self.ledger()["tasks"] if entry["external_task_id"] == task_id]
        assert len(entries) == 1, entries
        return entries[0]

    def posts(self, task_id: str) -> list[str]:
        """What became of each submission of a task that reached the provider."""
        return [line["outcome"] for line in self.ledger()["posts"] if line["external_task_id"] == task_id]

    # -- as an operator

    def row(self, task_id: str) -> dict[str, Any]:
        item = self.dynamodb.get_item(
            TableName=self.endpoint["task_table"], Key={"pk": {"S": f"task#{task_id}"}}, ConsistentRead=True
        )["Item"]
        return {name: int(value["N"]) if "N" in value else value["S"] for name, value in item.items()}

    def phase(self, task_id: str, phase: str, seconds: float = WAIT) -> dict[str, Any]:
        """The row once it is in `phase`."""
        return until(lambda: (row := self.row(task_id))["phase"] == phase and row, seconds)

    def write(self, pk: str, **fields: int) -> None:
        """Write numbers into a row, past every rule: what time alone would bring about otherwise."""
        self.dynamodb.update_item(
            TableName=self.endpoint["task_table"],
            Key={"pk": {"S": pk}},
            UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in fields),
            ExpressionAttributeNames={f"#{name}": name for name in fields},
            ExpressionAttributeValues={f":{name}": {"N": str(value)} for name, value in fields.items()},
        )

    def keys(self) -> set[str]:
        """The key of every row but those of API keys."""
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.endpoint["task_table"])
        found = {item["pk"]["S"] for page in pages for item in page["Items"]}
        return {pk for pk in found if not pk.startswith("key#")}

    def objects(self, bucket: str, part: str = "") -> list[str]:
        """Keys of the objects whose key contains `part`."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.endpoint[bucket])
        return [one["Key"] for page in pages for one in page.get("Contents", []) if part in one["Key"]]

    def sweep(self) -> dict[str, int]:
        """What EventBridge does every minute."""
        answer = self.lambdas.invoke(FunctionName=self._sweeper, Payload=b"{}")
        assert "FunctionError" not in answer, answer["Payload"].read()
        swept: dict[str, int] = json.loads(answer["Payload"].read())
        return swept

    def logs(self) -> list[str]:
        """Everything that the functions have printed for this driver."""
        groups = [group["logGroupName"] for group in self.cloudwatch.describe_log_groups()["logGroups"]]
        pages = self.cloudwatch.get_paginator("filter_log_events")
        told = (pages.paginate(logGroupName=name, startTime=self._began) for name in groups)
        return [event["message"] for group in told for page in group for event in page["events"]]

    def denied(self) -> list[str]:
        """What a role has asked for in vain, for this driver: lines of the emulator's record. `may_be_denied` has the
        ends of resources that a test has made it ask for."""
        with self.emulator.calls_path.open() as calls:
            calls.seek(self._calls_before)
            refused = [line for line in calls if not json.loads(line)["allowed"]]
        return [line for line in refused if not json.loads(line)["resource"].endswith(tuple(self.may_be_denied))]

    def open_gate(self) -> None:
        """Let the pause after a refusal for want of room, or for trouble with the account, be over."""
        self.write(self.admission, not_before=0)

    @property
    def admission(self) -> str:
        """The key of the row of the account's gate."""
        return f"gate#{self.stack.options.provider}@{self.endpoint['simulator_url']}#1"

    def execution_arn(self, name: str) -> str:
        machine: str = self.endpoint["state_machine_arn"]
        return f"{machine.replace(':stateMachine:', ':execution:')}:{name}"

    def execution(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.workflows.describe_execution(executionArn=self.execution_arn(name))
        return found

    def finished(self, name: str) -> list[dict[str, Any]]:
        """The whole history of an execution, once it has succeeded."""
        until(lambda: self.execution(name)["status"] != "RUNNING")
        assert self.execution(name)["status"] == "SUCCEEDED"
        history: list[dict[str, Any]] = self.workflows.get_execution_history(
            executionArn=self.execution_arn(name), maxResults=1000
        )["events"]
        return history

    def clear(self) -> None:
        """Forget every task, here and at the provider, and every upload."""
        self._control("reset", {})
        arn = self.endpoint["state_machine_arn"]
        for one in self.workflows.list_executions(stateMachineArn=arn, statusFilter="RUNNING")["executions"]:
            with suppress(self.workflows.exceptions.ValidationException):  # it has ended meanwhile
                self.workflows.stop_execution(executionArn=one["executionArn"])
        for pk in self.keys():
            self.dynamodb.delete_item(TableName=self.endpoint["task_table"], Key={"pk": {"S": pk}})
        bucket = self.endpoint["input_bucket"]
        versions = self.s3.list_object_versions(Bucket=bucket, Prefix="uploads/")
        for one in [*versions.get("Versions", []), *versions.get("DeleteMarkers", [])]:
            self.s3.delete_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])


def states(history: list[dict[str, Any]]) -> list[str]:
    """The states that an execution entered, in their order: what Step Functions bills."""
    entered = (event.get("stateEnteredEventDetails") for event in history)
    return [details["name"] for details in entered if details]


def lambda_calls(history: list[dict[str, Any]]) -> int:
    """How many Lambda invocations an execution made, repeated ones included."""
    scheduled = (event.get("taskScheduledEventDetails") for event in history)
    return sum(details["resourceType"] == "lambda" for details in scheduled if details)


@contextmanager
def picture_server(picture: bytes = SAMPLE) -> Iterator[tuple[str, list[str]]]:
    """A loopback address that serves `picture`, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(picture)))
            self.end_headers()
            self.wfile.write(picture)

        def log_message(self, *_: Any) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
