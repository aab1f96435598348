"""Count the use of AWS of one video, and of one sweep of an idle stack, on the local stack, for `bench/costs.py`.

States, invocations and calls are counted as they happen. DynamoDB's write units are derived from the old and the new
image of each written row, as the table's stream reports them.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from math import ceil
from typing import Any

from kling_relay_cli import REPOSITORY, image_file
from kling_relay_cli.api_client import Client
from local.emulator.process import Emulator
from local.stack import deploy_template
from local.stack.stack import Stack

_READS = {"dynamodb:GetItem": 1, "dynamodb:BatchGetItem": 3, "dynamodb:Query": 1}  # units: our rows have less than 4 KB
_LOG_OVERHEAD = 26  # bytes that CloudWatch adds to an event
_SETTLED_SECONDS = 2.0  # after this time a video causes no more calls
_WAIT_SECONDS = 60.0

Image = dict[str, Any] | None
Index = tuple[tuple[str, ...], tuple[str, ...]]
"""The keys of an index, and the columns that it projects besides the table's own key."""


def measure(stack: Stack, queries: int) -> dict[str, dict[str, Any]]:
    """Count a `video` whose client queries `queries` times, and a `sweep` that finds nothing.

    The first of each only warms up the functions. From here on no schedule runs on this stack.
    """
    if stack.emulator is None:
        raise deploy_template.DeploymentError("the emulator is not running")
    emulator, table = stack.emulator, stack.endpoint["task_table"]
    watch_table(emulator, table)
    stop_schedules(emulator)
    api = Client(stack.endpoint["api_url"], stack.endpoint["api_key"], direct=True)
    sweeper = deploy_template.physical_id(emulator, "SweepTasksFunction")
    for _ in range(2):
        video = _counted(emulator, lambda: _one_video(emulator, table, api, queries))
    for _ in range(2):
        sweep = _counted(emulator, lambda: emulator.client("lambda").invoke(FunctionName=sweeper, Payload=b"{}"))
    video["transitions"] = _transitions(emulator, stack.endpoint["state_machine_arn"])
    video["write_units"] = units_written(emulator, table) / 2  # of two videos
    return {"video": video, "sweep": sweep}


def watch_table(emulator: Emulator, table: str) -> None:
    """Switch on the table's stream, which reports all later writes."""
    specification = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    emulator.client("dynamodb").update_table(TableName=table, StreamSpecification=specification)


def stop_schedules(emulator: Emulator) -> None:
    for rule in emulator.client("events").list_rules()["Rules"]:
        if "ScheduleExpression" in rule:
            emulator.client("events").disable_rule(Name=rule["Name"])


def _one_video(emulator: Emulator, table: str, api: Client, queries: int) -> None:
    body = {"image": image_file.as_base64(REPOSITORY / "local/stack/sample.jpg"), "prompt": "what does it cost?"}
    task = api.send("image2video", {**body, "model_name": "kling-v2-master", "duration": "10"})  # polled late
    key = {"pk": {"S": f"task#{task['task_id']}"}}
    ends_at = time.monotonic() + _WAIT_SECONDS
    while emulator.client("dynamodb").get_item(TableName=table, Key=key)["Item"]["phase"]["S"] != "succeeded":
        if time.monotonic() > ends_at:
            raise deploy_template.DeploymentError(f"no video within {_WAIT_SECONDS} s: measure again")
        time.sleep(0.2)
    for _ in range(queries):
        api.query("image2video", task["task_id"])
    time.sleep(_SETTLED_SECONDS)


def _counted(emulator: Emulator, act: Callable[[], Any]) -> dict[str, Any]:
    """Return the calls that the functions make during `act`."""
    began, known = int(time.time() * 1000), len(emulator.calls_path.read_text().splitlines())
    act()
    lines = [json.loads(line) for line in emulator.calls_path.read_text().splitlines()[known:]]
    calls = Counter(line["action"] for line in lines)
    invocations, log_bytes = _logs(emulator, began)
    return {
        "invocations": invocations,
        "read_units": sum(units * calls[action] for action, units in _READS.items()),
        "s3_writes": calls["s3:PutObject"],
        "s3_reads": calls["s3:GetObject"],
        "events": calls["events:PutEvents"],
        "log_bytes": log_bytes,
    }


def _logs(emulator: Emulator, since: int) -> tuple[dict[str, int], int]:
    """Return the invocations by function, from the lines that Lambda itself writes, and the bytes of all lines."""
    logs, invocations, size = emulator.client("logs"), Counter[str](), 0
    for group in logs.describe_log_groups()["logGroups"]:
        name = group["logGroupName"]
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=name, startTime=since):
            for event in page["events"]:
                size += len(event["message"].encode()) + _LOG_OVERHEAD
                if event["message"].startswith("START RequestId"):
                    invocations[re.sub(r".*/(\w+)Logs.*", r"\1Function", name)] += 1
    return dict(sorted(invocations.items())), size


def _transitions(emulator: Emulator, machine: str) -> int:
    """Return the number of states that the newest execution has entered."""
    workflows = emulator.client("stepfunctions")
    executions = workflows.list_executions(stateMachineArn=machine)["executions"]
    newest = max(executions, key=lambda one: one["startDate"])["executionArn"]
    history = workflows.get_execution_history(executionArn=newest, maxResults=1000)["events"]
    return sum("stateEnteredEventDetails" in event for event in history)


def units_written(emulator: Emulator, table: str) -> int:
    """Return the write units of all writes to the table since `watch_table`."""
    described = emulator.client("dynamodb").describe_table(TableName=table)["Table"]
    indexes = [
        (
            tuple(key["AttributeName"] for key in index["KeySchema"]),
            tuple(index["Projection"].get("NonKeyAttributes", [])),
        )
        for index in described["GlobalSecondaryIndexes"]
    ]
    streams = emulator.client("dynamodbstreams")
    arn, units = described["LatestStreamArn"], 0
    for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
        at = streams.get_shard_iterator(StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
        iterator = at["ShardIterator"]
        while iterator and (found := streams.get_records(ShardIterator=iterator))["Records"]:
            for record in found["Records"]:
                images = record["dynamodb"]
                units += write_units(images.get("OldImage"), images.get("NewImage"), indexes)
            iterator = found.get("NextShardIterator")
    return units


def write_units(old: Image, new: Image, indexes: list[Index]) -> int:
    """Return the write units of one write.

    The base is the larger of both images in KB. A new row counts twice, because ours are created in transactions. Each
    index entry that is written or removed costs one unit.
    """
    row = ceil(max(len(json.dumps(image or {})) for image in (old, new)) / 1024)
    return row * (2 if old is None else 1) + sum(_index_units(old or {}, new or {}, index) for index in indexes)


def _index_units(old: dict[str, Any], new: dict[str, Any], index: Index) -> int:
    keys, projected = index
    before, after = ({name: row.get(name) for name in keys + projected} for row in (old, new))
    was, is_now = (all(entry[name] is not None for name in keys) for entry in (before, after))
    if before == after or not (was or is_now):
        return 0
    moved = was and is_now and any(before[name] != after[name] for name in keys)
    return 2 if moved else 1
