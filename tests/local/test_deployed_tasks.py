"""The operator's hand on tasks: copies, dead letters, and what is exported."""

import csv
import json
from pathlib import Path

import pytest
import requests

from local import operating
from local.deployed_stack import DeployedStack
from local.stack import Stack
from tests.local.test_deployed import STAGE, aws, run, running  # noqa: F401  (two of them are fixtures)
from tests.local.test_deployed_money import client
from tests.workflow.driver import BODY, until

pytestmark = pytest.mark.xdist_group("deployed")
Out = pytest.CaptureFixture[str]


def faults(stack: Stack, **switches: object) -> None:
    assert requests.post(f"{stack.endpoint['simulator_url']}/_sim/faults", json=switches, timeout=5).ok


def test_a_copy_that_failed_is_begun_again(aws: Stack, capsys: Out) -> None:  # noqa: F811
    faults(aws, wrong_file=True)
    api = client(aws, "copied")
    task_id = api.send("image2video", BODY)["task_id"]
    stack = DeployedStack(STAGE)
    rows = {"TableName": stack.outputs["TaskTable"], "Key": {"pk": {"S": f"task#{task_id}"}}}
    until(lambda: int(stack.client("dynamodb").get_item(**rows)["Item"].get("copies", {"N": "0"})["N"]) >= 2)
    assert run("retry-archive", "--task", task_id) == 0
    faults(aws, wrong_file=None)
    said = capsys.readouterr().out
    assert f"the video of task {task_id} is copied again now" in said or "is under way just now" in said
    until(lambda: api.query("image2video", task_id)["task_status"] == "succeed")
    assert run("retry-archive", "--task", task_id) == 1
    assert f"task_id: {task_id} has no copy that failed; it is succeeded" in capsys.readouterr().err


def test_dead_letters_go_back(aws: Stack, capsys: Out) -> None:  # noqa: F811
    stack = DeployedStack(STAGE)
    assert run("redrive") == 0
    assert "0 messages go back from IntakeDeadLetters" in capsys.readouterr().out
    source = {"bucket": stack.outputs["InputBucket"], "key": "inbox/gone.png", "version": "none"}
    body = json.dumps({"source": source})
    stack.client("sqs").send_message(QueueUrl=stack.outputs["IntakeDeadLetters"], MessageBody=body)
    assert run("redrive", "--queue", "IntakeDeadLetters") == 0
    assert "1 message goes back" in capsys.readouterr().out
    assert run("redrive", "--queue", "IntakeQueue") == 1
    assert "queue: one of IntakeDeadLetters; sent: 'IntakeQueue'" in capsys.readouterr().err


@pytest.mark.parametrize("through_the_bucket", [False, True])
def test_tasks_are_exported(aws: Stack, capsys: Out, tmp_path: Path, through_the_bucket: bool) -> None:  # noqa: F811
    tenant = f"books-{through_the_bucket}".lower()
    api = client(aws, tenant)
    ids = [api.send("image2video", {**BODY, "external_task_id": f"order-{number}"})["task_id"] for number in range(2)]
    path = tmp_path / "tasks.csv"
    if through_the_bucket:
        answer = DeployedStack(STAGE).operate("export", tenant=tenant)
        where = {"Bucket": DeployedStack(STAGE).outputs["InputBucket"], "Key": "exports/test.csv"}
        DeployedStack(STAGE).client("s3").put_object(**where, Body=answer["csv"].encode())
        url = DeployedStack(STAGE).client("s3").generate_presigned_url("get_object", Params=where)
        operating._write(path, {"url": url})
    else:
        assert run("export", "--since", "2026-01-01", "--tenant", tenant, "--out", str(path)) == 0
        assert f"2 tasks: {path}" in capsys.readouterr().out
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["task_id"] for row in rows} == set(ids) and {row["tenant"] for row in rows} == {tenant}


def test_an_export_that_cannot_be_made_is_explained(aws: Stack, capsys: Out, tmp_path: Path) -> None:  # noqa: F811
    assert run("export", "--since", "yesterday") == 1
    assert "since: a date or time such as 2026-11-01 is expected" in capsys.readouterr().err
    assert run("export", "--out", str(tmp_path / "no" / "folder.csv")) == 1
    assert "choose another OUT" in capsys.readouterr().err
