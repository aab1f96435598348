"""Least privilege, both ways: every action that a role may do is done here, and none that it may not.

The emulator checks each call against the policies that were deployed, in every test on the stack. Here the functions do
their whole work in short: a new function, action or right is driven here, too, or it is named as unused.
"""

import json
import re

import pytest

from tests.workflow.driver import BODY, SAMPLE, Driver, call, data_of, until
from tests.workflow.grants import Call, Grant, calls, granted, unused
from tests.workflow.test_inbox import drop, ended, result
from tests.workflow.test_uploads import ask, listed, uploaded
from tests.workflow.test_webhooks import Receiver, operate, receiver  # noqa: F401
from tests.workflow.test_widgets import Console

# What is granted and cannot be seen in use here: reason -> pattern of "role action resource". Five at most.
EXCEPTIONS = {
    "Lambda writes logs and traces beside the functions' own calls": (
        r"\w+FunctionRole arn:aws:iam::aws:policy/(service-role/AWSLambdaBasicExecutionRole|AWSXrayWriteOnlyAccess) "
    ),
    "Step Functions sets up its log's delivery by itself": r"TaskLifecycleRole logs:\w+ \*",
    "presigned URLs of videos, needed as long as no delivery key is stored": (
        r"(TaskApi|NotifyClient|OpsWidget)FunctionRole s3:GetObject arn:aws:s3:::[\w-]*videobucket[\w-]*/videos/\*"
    ),
    "S3 does not damage a copy on demand, nor does a DELETE meet a copier: either copy is then removed": (
        r"ArchiveVideoFunctionRole s3:(DeleteObject(Version)?|ListBucketVersions) "
        r"arn:aws:s3:::[\w-]*videobucket[\w-]*(/videos/\*)?"
    ),
    "a new task gives others their turn only if they began to wait while it was sent": (
        r"(TaskApi|ImageUpload)FunctionRole dynamodb:Query arn:aws:dynamodb:[\w-]+:\d+:table/[\w-]+/index/by_turn"
    ),
}


@pytest.mark.timeout(240)
def test_every_right_is_used_and_none_is_missing(driver: Driver, receiver: Receiver) -> None:  # noqa: F811
    clients(driver)
    notices(driver, receiver)
    waiting_for_room(driver)
    lost_answers(driver)
    dropped_files(driver)
    operators(driver)
    failed_copies(driver)
    widgets(driver, Console(driver))
    made = calls(driver)
    assert [one for one in made if not one.allowed] == []
    idle = {" ".join(grant) for grant in unused(granted(driver), made)}
    excused = {reason: {one for one in idle if re.fullmatch(known, one)} for reason, known in EXCEPTIONS.items()}
    unknown = idle - set().union(*excused.values())
    assert not unknown, "granted, and never used:\n" + "\n".join(sorted(unknown))
    assert [reason for reason, found in excused.items() if not found] == [], "no exception any more"
    assert len(EXCEPTIONS) <= 5


def clients(driver: Driver) -> None:
    """An upload, a task of it, a list, its end, and DELETE; one whose address had run out; the documentation."""
    image, _ = uploaded(driver)
    task_id = driver.post({**BODY, "image": image})["task_id"]
    driver.ended(task_id)
    assert listed(driver)
    assert ask(driver, "DELETE", f"/v1/videos/image2video/{task_id}").status_code == 200
    driver.faults(expired_url=1)
    driver.ended(driver.post(prompt="the address has expired")["task_id"])
    assert call("GET", f"{driver.endpoint['api_url']}/docs/openapi.json").status_code == 200


def notices(driver: Driver, receiver: Receiver) -> None:  # noqa: F811
    """A webhook that has to be repeated, by the sweeper and by an operator."""
    receiver.statuses = [503]
    task_id = driver.post(callback_url=receiver.url, prompt="told")["task_id"]
    driver.ended(task_id)
    until(lambda: len(receiver.times()) == 3)
    until(lambda: driver.write(f"task#{task_id}", notify_at=0) or driver.sweep()["telling"])
    assert operate(driver, action="replay_notice", task_id=task_id)["webhooks"] == 3


def waiting_for_room(driver: Driver) -> None:
    """Waiting tasks are started by the sweeper, by a callback, and by a workflow that had to ask."""
    driver.faults(no_room=1)
    crowd = [driver.post(prompt=text)["task_id"] for text in ("refused", "behind it")]
    driver.open_gate()
    assert driver.sweep()["waiting"] == 1
    for task_id in crowd:
        driver.ended(task_id)
    assert operate(driver, action="pause", reason="so that two wait")["paused"]
    ids = [driver.post(prompt=f"number {n}")["task_id"] for n in (1, 2)]
    assert operate(driver, action="resume")["resumed"]
    driver.write(driver.admission, crowded=0, not_before=0)  # as if nobody had waited: the next one is sent at once
    driver.account(render_seconds=3)
    driver.post(prompt="number 3")  # its callback starts the first of those who wait
    driver.account(render_seconds=0.3)
    driver.faults(callbacks={"value": "lost", "times": 1})  # whose own never come: its workflow starts the second
    for task_id in ids:
        driver.ended(task_id)


def lost_answers(driver: Driver) -> None:
    """The answer to a POST is lost, and a callback names the provider's task."""
    driver.account(query_by_external_id={"cometapi": False}, echo_external_id={"cometapi": False})
    driver.faults(drop_after=1)
    driver.ended(driver.post(prompt="lost")["task_id"])
    driver.account(query_by_external_id={"cometapi": True}, echo_external_id={"cometapi": True})


def dropped_files(driver: Driver) -> None:
    """An image that waits for its sidecar, a list of requests, and DELETE of a task that was dropped."""
    driver.write(driver.admission, crowded=1)
    drop(driver, "inbox/a/settings.json", b'{"require_sidecar": true, "duration": "5"}')
    version = drop(driver, "inbox/a/cat.jpg", SAMPLE)
    until(lambda: result(driver, "inbox/a/cat.jpg", version))
    drop(driver, "inbox/a/cat.json", b'{"prompt": "the cat looks up"}')
    lines = b'{"kind": "text2video", "prompt": "one"}\n{"kind": "image2video", "image": "cat.jpg"}'
    listing = drop(driver, "inbox/a/night.tasks.jsonl", lines)
    task_id = ended(driver, "inbox/a/cat.jpg", version)["task_id"]
    until(lambda: (told := result(driver, "inbox/a/night.tasks.jsonl", listing)) and told["finished"])
    newer = drop(driver, "inbox/a/cat.jpg", SAMPLE)
    until(lambda: result(driver, "inbox/a/cat.jpg", newer))  # the place is no longer the first version's
    driver.endpoint["inbox_key"] = operate(driver, action="create_key", tenant="inbox")["api_key"]
    data_of(ask(driver, "DELETE", f"/v1/videos/image2video/{task_id}", key="inbox_key"))


def operators(driver: Driver) -> None:
    """Every action once."""
    for event in (
        {"action": "list_keys", "tenant": "inbox"},
        {"action": "set_cap", "tenant": "inbox", "units": 500},
        {"action": "spend", "tenant": "inbox"},
        {"action": "signing_secret", "tenant": "inbox", "change": True},
        {"action": "probe_path"},
        {"action": "accounts"},
        {"action": "reconcile"},
    ):
        assert "errorType" not in operate(driver, **event), event
    table = {"TableName": driver.endpoint["task_table"]}
    task_id = driver.post(prompt="many times")["task_id"]
    row = driver.dynamodb.get_item(**table, Key={"pk": {"S": f"task#{task_id}"}})["Item"]
    for number in range(80):  # more than an answer holds: it goes through the bucket
        same = {**row, "pk": {"S": f"task#{number:032x}"}, "external_task_id": {"S": "x" * 3000}}
        driver.dynamodb.put_item(
            **table, Item={name: same[name] for name in same if name not in ("queue", "standing", "notify")}
        )
    exported = str(operate(driver, action="export")["url"])
    assert call("GET", exported).text.count("x" * 3000) == 80


def failed_copies(driver: Driver) -> None:
    """A copy that failed is begun again by an operator: while its workflow sleeps, and where nobody is at it."""
    driver.faults(wrong_file=True)
    task_id = driver.post(prompt="no video")["task_id"]
    until(lambda: operate(driver, action="retry_archive", task_id=task_id).get("begun"))
    name = driver.row(task_id)["execution"]
    driver.workflows.stop_execution(executionArn=driver.execution_arn(name))

    def begun_anew() -> bool:
        driver.write(f"task#{task_id}", due_at=1)  # each time: the copy that was under way has still said how it went
        return bool(operate(driver, action="retry_archive", task_id=task_id)["begun"])

    until(begun_anew)
    driver.faults(wrong_file=None)
    driver.phase(task_id, "succeeded")


def widgets(driver: Driver, console: Console) -> None:
    """Every view once, and what lies in the dead-letter queue sent back."""
    queues = driver.emulator.client("sqs")
    (dead,) = [url for url in queues.list_queues()["QueueUrls"] if "IntakeDeadLetters" in url]
    detail = {
        "bucket": {"name": driver.endpoint["input_bucket"]},
        "object": {"key": "inbox/none.png", "version-id": "1"},
    }
    queues.send_message(QueueUrl=dead, MessageBody=json.dumps({"detail": detail}))
    for view in ("open_tasks", "failures", "account", "dead_letters"):
        console.show(view)
    (poster, *_) = console.show("videos").links
    assert call("GET", poster).status_code == 200
    console.show("task", task=driver.post(prompt="its story")["task_id"])
    assert operate(driver, action="redrive", queue="IntakeDeadLetters")["moved"] == 1


@pytest.mark.parametrize(
    ("grant", "covered"),
    [
        (Grant("R", "s3:GetObject", "arn:aws:s3:::b/videos/*"), True),
        (Grant("R", "s3:Get*", "arn:aws:s3:::b/*"), True),
        (Grant("R", "S3:getobject", "arn:aws:s3:::b/videos/?.mp4"), True),
        (Grant("Other", "s3:GetObject", "arn:aws:s3:::b/videos/*"), False),
        (Grant("R", "s3:PutObject", "arn:aws:s3:::b/videos/*"), False),
        (Grant("R", "s3:GetObject", "arn:aws:s3:::b/Videos/*"), False),
        (Grant("R", "s3:GetObject", "arn:aws:s3:::b"), False),
    ],
)
def test_a_grant_covers_calls_as_iam_compares(grant: Grant, covered: bool) -> None:
    made = Call("R", "s3:GetObject", "arn:aws:s3:::b/videos/1.mp4", allowed=True)
    assert unused([grant], [made]) == (set() if covered else {grant})
