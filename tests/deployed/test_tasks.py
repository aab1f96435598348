"""Test the operator's commands for tasks: copies, dead letters and exports."""

import csv
import json
from pathlib import Path

import pytest
import requests

from kling_relay_cli.operators.stack import DeployedStack
from local.stack.stack import Stack
from tests.deployed.operator import STAGE, client, run
from tests.workflow.driver import BODY, until

Out = pytest.CaptureFixture[str]


def faults(stack: Stack, **switches: object) -> None:
    assert requests.post(f"{stack.endpoint['simulator_url']}/_sim/faults", json=switches, timeout=5).ok


def test_a_copy_that_failed_is_begun_again(aws: Stack, capsys: Out) -> None:
    faults(aws, wrong_file=True)
    api = client(aws, "copied")
    task_id = api.send("image2video", BODY)["task_id"]
    stack = DeployedStack(STAGE)
    rows = {"TableName": stack.outputs["TaskTable"], "Key": {"pk": {"S": f"task#{task_id}"}}}
    until(lambda: int(stack.client("dynamodb").get_item(**rows)["Item"].get("copies", {"N": "0"})["N"]) >= 2)
    assert run("retry-archive", "--task", task_id) == 0
    faults(aws, wrong_file=None)
    said = capsys.readouterr().out
    assert f"task {task_id}: a new copy of the video has started" in said or "is already running" in said
    until(lambda: api.query("image2video", task_id)["task_status"] == "succeed")
    assert run("retry-archive", "--task", task_id) == 1
    assert f"task_id: must have a failed copy (got {task_id}, which is succeeded)" in capsys.readouterr().err


def test_dead_letters_go_back(aws: Stack, capsys: Out) -> None:
    stack = DeployedStack(STAGE)
    assert run("redrive") == 0
    assert "0 messages moved back from IntakeDeadLetters" in capsys.readouterr().out
    source = {"bucket": stack.outputs["InputBucket"], "key": "inbox/gone.png", "version": "none"}
    body = json.dumps({"source": source})
    stack.client("sqs").send_message(QueueUrl=stack.outputs["IntakeDeadLetters"], MessageBody=body)
    assert run("redrive", "--queue", "IntakeDeadLetters") == 0
    assert "1 message moved back" in capsys.readouterr().out
    assert run("redrive", "--queue", "IntakeQueue") == 1
    assert "queue: must be one of IntakeDeadLetters (got 'IntakeQueue')" in capsys.readouterr().err


def exported(path: Path, *more: str) -> list[dict[str, str]]:
    assert run("export", "--since", "2026-01-01", "--out", str(path), *more) == 0
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tasks_are_exported_few_in_the_answer_and_many_through_the_bucket(
    aws: Stack,
    capsys: Out,
    tmp_path: Path,
) -> None:
    task_id = client(aws, "books").send("image2video", {**BODY, "external_task_id": "order-1"})["task_id"]
    stack, path = DeployedStack(STAGE), tmp_path / "tasks.csv"
    (row,) = exported(path, "--tenant", "books")
    assert (row["task_id"], row["tenant"], row["external_task_id"]) == (task_id, "books", "order-1")
    table, exports = stack.outputs["TaskTable"], {"Bucket": stack.outputs["InputBucket"], "Prefix": "exports/"}
    assert stack.client("s3").list_objects_v2(**exports)["KeyCount"] == 0
    item = stack.client("dynamodb").get_item(TableName=table, Key={"pk": {"S": f"task#{task_id}"}})["Item"]
    gone = {"queue", "standing", "notify"}  # of no index but that of lists: nobody works on them
    copy = {name: value for name, value in item.items() if name not in gone}
    puts = [{"PutRequest": {"Item": {**copy, "pk": {"S": f"task#{number:032x}"}}}} for number in range(1500)]
    for start in range(0, len(puts), 25):
        stack.client("dynamodb").batch_write_item(RequestItems={table: puts[start : start + 25]})
    rows = exported(path, "--tenant", "books")
    assert len({row["task_id"] for row in rows}) == len(rows) == 1501 and path.stat().st_size > 200_000
    assert f"1501 tasks: {path}" in capsys.readouterr().out
    assert stack.client("s3").list_objects_v2(**exports)["KeyCount"] == 1


def test_an_export_that_cannot_be_made_is_explained(aws: Stack, capsys: Out, tmp_path: Path) -> None:
    assert run("export", "--since", "yesterday") == 1
    assert "since: must be a date or time such as 2026-11-01" in capsys.readouterr().err
    assert run("export", "--out", str(tmp_path / "no" / "folder.csv")) == 1
    assert "choose another file with --out (make: OUT=)" in capsys.readouterr().err
