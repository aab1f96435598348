"""Test that each alarm of the template rings: for a provider fault (test_fault_profiles.py), or for an event here."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from local.stack.deploy_template import load_template
from tests.workflow.alarm_watch import AlarmWatch
from tests.workflow.driver import QUIET, SAMPLE, call, until
from tests.workflow.test_fault_profiles import TABLE

CAUSES: dict[str, tuple[Callable[[AlarmWatch], None], tuple[str, ...]]] = {}


def rings(*alarms: str) -> Callable[[Callable[[AlarmWatch], None]], None]:
    """Decorator: the cause rings exactly these alarms."""

    def register(cause: Callable[[AlarmWatch], None]) -> None:
        CAUSES[cause.__name__] = cause, alarms

    return register


@pytest.mark.parametrize("cause", CAUSES)
def test_a_cause_rings_its_alarms_and_no_others(watch: AlarmWatch, cause: str) -> None:
    happens, alarms = CAUSES[cause]
    happens(watch)
    watch.rung(*alarms)


def test_every_alarm_of_the_template_has_a_cause_that_rings_it() -> None:
    kinds = ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")
    alarms = {name for name, one in load_template()["Resources"].items() if one["Type"] in kinds}
    assert {name for rung in [*TABLE.values(), *(rung for _, rung in CAUSES.values())] for name in rung} == alarms


def invoke(watch: AlarmWatch, name: str, event: Any) -> dict[str, Any]:
    answer: dict[str, Any] = watch.driver.lambdas.invoke(FunctionName=function(watch, name), Payload=json.dumps(event))
    return answer


def function(watch: AlarmWatch, name: str) -> str:
    names = [one["FunctionName"] for one in watch.driver.lambdas.list_functions()["Functions"]]
    (found,) = [one for one in names if name in one]
    return str(found)


@contextlib.contextmanager
def settings(watch: AlarmWatch, name: str, **changed: Any) -> Iterator[None]:
    """A function as somebody has set it by hand."""
    lambdas, called = watch.driver.lambdas, function(watch, name)
    before = lambdas.get_function_configuration(FunctionName=called)
    lambdas.update_function_configuration(FunctionName=called, **changed)
    try:
        yield
    finally:
        lambdas.update_function_configuration(
            FunctionName=called, Environment=before["Environment"], Timeout=before["Timeout"]
        )


def without_table(watch: AlarmWatch, name: str) -> contextlib.AbstractContextManager[None]:
    called = function(watch, name)
    watch.driver.may_be_denied.append("table/gone")
    variables = watch.driver.lambdas.get_function_configuration(FunctionName=called)["Environment"]["Variables"]
    return settings(watch, name, Environment={"Variables": {**variables, "TASK_TABLE": "gone"}})


@rings()
def a_quiet_day(watch: AlarmWatch) -> None:
    bucket = watch.driver.endpoint["input_bucket"]
    with receiver(200) as (url, got):
        watch.driver.s3.put_object(Bucket=bucket, Key="inbox/cat.jpg", Body=SAMPLE, Metadata={"duration": "5"})
        tasks = [*watch.load(2), *watch.load(1, callback_url=url)]
        refused = watch.driver.send({"prompt": "without an image"})
        assert refused.status_code == 400 and watch.driver.get("nobody").status_code == 404
        assert call("GET", f"{watch.driver.endpoint['api_url']}/docs").status_code == 200
        watch.each(tasks, lambda row: row["phase"] == "succeeded")
        until(lambda: len(got) >= 3)
        until(lambda: watch.driver.objects("input_bucket", "results/inbox/cat.jpg"))
        until(lambda: len(watch.driver.ledger()["tasks"]) == 4)
        watch.minutes_pass(6)


@rings("HeartbeatMissingAlarm")
def nobody_sweeps(watch: AlarmWatch) -> None:
    watch.driver.emulator.put_cloudwatch_forward(4 * 60)
    watch.rung()
    watch.driver.emulator.put_cloudwatch_forward(4 * 60)


@rings("ApiErrorsAlarm")
def the_api_has_lost_its_table(watch: AlarmWatch) -> None:
    with without_table(watch, "TaskApi"):
        assert {watch.driver.get("any").status_code for _ in range(6)} == {503}


@rings("FunctionErrorsAlarm")
def a_function_raises(watch: AlarmWatch) -> None:
    assert "FunctionError" in invoke(watch, "OperateTasks", {"action": "unheard of"})


@rings("WorkflowFailedAlarm", "FunctionErrorsAlarm")
def the_workflow_has_lost_its_table(watch: AlarmWatch) -> None:
    watch.driver.faults(callbacks="lost")
    with without_table(watch, "AdvanceTask"):
        (task_id,) = watch.load(1)
        until(lambda: watch.driver.execution(task_id)["status"] == "FAILED")


@rings("SpendAlarm")
def a_day_is_expensive(watch: AlarmWatch) -> None:
    watch.driver.account(states_units={"cometapi": True})
    tasks = watch.load(3, mode="pro", duration="10")
    watch.each(tasks, lambda row: row["phase"] == "succeeded")


@rings("OldestTaskAlarm", "VideosNotComingAlarm")
def a_task_is_forgotten(watch: AlarmWatch) -> None:
    """Others come out. Its execution is dead, and so far away is the time at which the sweeper would look after it."""
    watch.each(watch.load(1), lambda row: row["phase"] == "succeeded")
    watch.driver.faults(never=True, callbacks="lost")
    (task_id,) = watch.load(1, **QUIET)
    until(lambda: "task_token" in watch.driver.row(task_id))
    watch.driver.workflows.stop_execution(executionArn=watch.driver.execution_arn(task_id))
    watch.driver.write(f"task#{task_id}", due_at=9_999_999_999_999)
    watch.age(task_id, 25)
    watch.minutes_pass(5)


@rings("FunctionNearTimeoutAlarm")
def a_function_stands_still(watch: AlarmWatch) -> None:
    """Somebody has given it more time, else it would be killed before it is near; its process is frozen meanwhile."""
    url = f"{watch.driver.endpoint['api_url']}/docs"
    with settings(watch, "ApiDocs", Timeout=25):
        assert call("GET", url).status_code == 200
        listed = subprocess.run(
            ["ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=True
        ).stdout
        folder = f"ministack-lambda-{function(watch, 'ApiDocs')}"
        pids = [int(line.split()[0]) for line in listed.splitlines() if folder in line]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        asking = threading.Thread(target=call, args=("GET", url))
        asking.start()
        time.sleep(9.5)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        asking.join()
    assert watch.value("AWS/Lambda", "Duration", "Maximum", FunctionName=function(watch, "ApiDocs")) > 9000


@rings("UploadsNotHandledAlarm")
def a_message_fails_three_times(watch: AlarmWatch) -> None:
    sqs, queue = watch.driver.emulator.client("sqs"), intake_queue(watch)
    patient = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["VisibilityTimeout"])["Attributes"]
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "0"})
    try:
        sqs.send_message(QueueUrl=queue, MessageBody='{"no": "event of S3"}')
        counts = ["ApproximateNumberOfMessages"]
        dead = next(url for url in sqs.list_queues()["QueueUrls"] if "IntakeDeadLetters" in url)
        until(lambda: sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=counts)["Attributes"][counts[0]] == "1")
        watch.rung("UploadsNotHandledAlarm")
    finally:
        sqs.set_queue_attributes(QueueUrl=queue, Attributes=patient)
        sqs.purge_queue(QueueUrl=dead)


@rings("UploadsWaitingAlarm")
def nobody_takes_uploads_up(watch: AlarmWatch) -> None:
    sqs, queue = watch.driver.emulator.client("sqs"), intake_queue(watch)
    (mapping,) = watch.driver.lambdas.list_event_source_mappings(FunctionName=function(watch, "ImageUpload"))[
        "EventSourceMappings"
    ]
    watch.driver.lambdas.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    try:
        bucket = watch.driver.endpoint["input_bucket"]
        watch.driver.s3.put_object(Bucket=bucket, Key="inbox/cat.jpg", Body=SAMPLE)
        seen = {"QueueName": queue.rpartition("/")[2]}
        until(lambda: watch.value("AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum", **seen) == 1)
        watch.driver.emulator.put_cloudwatch_forward(3700)
        watch.driver.sweep()
        watch.rung("UploadsWaitingAlarm")
    finally:
        sqs.purge_queue(QueueUrl=queue)
        watch.driver.lambdas.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)


def intake_queue(watch: AlarmWatch) -> str:
    urls = watch.driver.emulator.client("sqs").list_queues()["QueueUrls"]
    return str(next(url for url in urls if "IntakeQueue" in url))


@rings("WebhooksFailedAlarm")
def a_receiver_wants_no_more(watch: AlarmWatch) -> None:
    with receiver(410) as (url, got):
        watch.load(1, callback_url=url)
        until(lambda: got)


@rings("ReconcileFindingsAlarm")
def the_provider_has_forgotten_a_task(watch: AlarmWatch) -> None:
    watch.each(watch.load(1), lambda row: row["phase"] == "succeeded")
    call("POST", f"{watch.driver.endpoint['simulator_url']}/_sim/reset", json={})

    def found() -> list[str]:
        report = json.loads(invoke(watch, "OperateTasks", {"action": "reconcile"})["Payload"].read())
        return [one["type"] for one in report["findings"]]

    assert until(found) == ["denied"]  # at first the submission counts as under way


@contextlib.contextmanager
def receiver(status: int) -> Iterator[tuple[str, list[str]]]:
    """A loopback address for webhooks, and the bodies that came."""
    got: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", got
        server.shutdown()
