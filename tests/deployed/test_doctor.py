"""`make doctor` and `make smoke`, against a whole local stack that plays the deployed one."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from kling_relay_cli import commands, doctor
from kling_relay_cli.api_client import seconds_of_video
from kling_relay_cli.stack import DeployedStack
from local.stack.stack import Stack
from tests.deployed.operator import STAGE, problems, run, typed

CHECKS = [
    "the stack is deployed",
    "the provider's key is stored",
    "open tasks have their account's key",
    "a delivery key signs video URLs",
    "the base URL is the API's address",
    "the API answers in Kling's envelope",
    "the callback address answers",
    "a callback arrives",
    "alarm subscriptions are confirmed",
    "the state machine is active",
    "the sweeper runs every minute",
    "sending is not paused",
]


class TestDoctor:
    def test_a_fresh_stack_lacks_only_a_subscription(self, aws: Stack, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("doctor") == 1
        lines = capsys.readouterr().out.splitlines()
        assert [line[9:] for line in lines if line.startswith(("ok ", "problem "))] == CHECKS
        assert [line[9:] for line in lines if line.startswith("problem ")] == ["alarm subscriptions are confirmed"]
        assert any("no subscription for pages or tickets" in line for line in lines)
        assert any("-> " in line and "OperatorEmail=" in line for line in lines)
        assert lines[-1] == f"1 of {len(CHECKS)} checks found a problem"

    def test_confirmed_subscriptions_make_it_well(
        self, aws: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        stack = DeployedStack(STAGE)
        queue = stack.client("sqs").create_queue(QueueName="operator")["QueueUrl"]
        arn = stack.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
        subscribed = {"Protocol": "sqs", "Endpoint": arn["QueueArn"], "ReturnSubscriptionArn": True}
        made = []
        try:
            for topic, missing in (("OperatorTopic", "no subscription for tickets"), ("TicketTopic", None)):
                answer = stack.client("sns").subscribe(TopicArn=stack.outputs[topic], **subscribed)
                made.append(answer["SubscriptionArn"])
                assert missing is None or problems()["alarm subscriptions are confirmed"].problem == missing
            assert run("doctor") == 0
            assert capsys.readouterr().out.endswith(f"all {len(CHECKS)} checks passed\n")
            monkeypatch.setattr(DeployedStack, "delivery_url", "")  # a hint is no problem
            assert run("doctor") == 0
            said = capsys.readouterr().out
            assert f"hint     {CHECKS[3]}" in said and f"-> make delivery-key STAGE={STAGE}" in said
        finally:
            for one in made:
                stack.client("sns").unsubscribe(SubscriptionArn=one)

    def test_a_subscription_that_nobody_confirmed_is_none(self, aws: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        page = {"Subscriptions": [{"SubscriptionArn": "PendingConfirmation"}]}
        pages = SimpleNamespace(paginate=lambda **_: [page])
        topic = SimpleNamespace(get_paginator=lambda _: pages)
        real = DeployedStack.client
        monkeypatch.setattr(
            DeployedStack, "client", lambda self, name, *more: topic if name == "sns" else real(self, name, *more)
        )
        told = problems()["alarm subscriptions are confirmed"].problem
        assert told == "the subscription to pages and tickets is not confirmed"

    def test_no_provider_key(self, aws: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        secrets = DeployedStack(STAGE).client("secretsmanager")
        empty = secrets.create_secret(Name="empty")["ARN"]
        outputs = {**DeployedStack(STAGE).outputs, "ProviderKeySecret": empty}
        monkeypatch.setattr(DeployedStack, "outputs", outputs)
        assert problems()["the provider's key is stored"].remedy == f"make provider-key STAGE={STAGE}"

    def test_another_address_in_the_parameter(self, aws: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(DeployedStack, "api_address", "https://moved.example.com")
        found = problems()
        assert set(found) == {"the base URL is the API's address", "alarm subscriptions are confirmed"}
        assert "--value https://moved.example.com" in found["the base URL is the API's address"].remedy

    def test_nothing_there_at_the_address(self, aws: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(DeployedStack, "base_url", "http://127.0.0.1:9")
        found = problems()
        for check in ("the API answers in Kling's envelope", "the callback address answers", "a callback arrives"):
            assert "cannot be reached" in found[check].problem

    def test_somebody_elses_404_is_not_the_callback_functions(
        self, aws: Stack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(DeployedStack, "base_url", f"{aws.endpoint['api_url']}/nowhere")
        assert "the callback address answers" in problems()

    def test_the_probe_answers_at_the_address_that_is_shown(
        self, aws: Stack, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run("doctor")
        (address,) = re.findall(r"test callback in Kling's console: (\S+)", capsys.readouterr().out)
        told = {"id": "1234567890", "status": "submitted", "message": "", "outputs": []}
        assert requests.post(address, json=told, timeout=5).status_code == 200
        assert requests.post(f"{address[:-1]}_", json=told, timeout=5).status_code == 404

    def test_signatures_are_required_and_there_is_no_secret(self, aws: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        parameters = [{"ParameterKey": "RequireWebhookSignature", "ParameterValue": "on"}]
        monkeypatch.setattr(DeployedStack, "described", {**DeployedStack(STAGE).described, "Parameters": parameters})
        assert "make webhook-secret" in problems()["a callback arrives"].remedy

    def test_a_sweeper_that_was_switched_off(self, aws: Stack) -> None:
        stack = DeployedStack(STAGE)
        rule = stack.resource("SweepTasksFunctionEveryMinute")
        stack.client("events").disable_rule(Name=rule)
        try:
            assert "DISABLED" in problems()["the sweeper runs every minute"].problem
        finally:
            stack.client("events").enable_rule(Name=rule)

    def test_the_callback_functions_answer_is_the_one_that_is_expected(self) -> None:
        source = (commands.REPOSITORY / "functions/kling_callback/app.py").read_text()
        assert f"'{json.dumps(doctor.NOBODY, separators=(',', ':'))}'" in source


class TestSmoke:
    def send(self, *more: str) -> int:
        return run("smoke", "--every", "0.1", *more)

    def smoke_keys(self, aws: Stack) -> list[str]:
        items = DeployedStack(STAGE).client("dynamodb").scan(TableName=aws.endpoint["task_table"])["Items"]
        return [
            "revoked" if "revoked_at" in item else "active"
            for item in items
            if item["pk"]["S"].startswith("key#") and item["tenant"]["S"] == "smoke"
        ]

    def billed(self, aws: Stack) -> int:
        return len(requests.get(f"{aws.endpoint['simulator_url']}/_sim/ledger", timeout=5).json()["tasks"])

    def test_it_brings_a_video_that_plays_and_leaves_no_key(
        self, aws: Stack, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = self.billed(aws)
        assert self.send("--yes") == 0
        said = capsys.readouterr().out
        assert "about $0.21" in said.splitlines()[0]
        assert [word for word in ("submitted", "succeed") if word in said] == ["submitted", "succeed"]
        path = Path(said.split("video: ")[1].splitlines()[0])
        assert seconds_of_video(path) > 1
        assert self.billed(aws) == before + 1
        assert set(self.smoke_keys(aws)) == {"revoked"}

    @pytest.mark.parametrize(("answer", "terminal"), [("n\n", True), ("\n", True), ("", True), ("y\n", False)])
    def test_without_a_yes_nothing_is_sent(
        self, aws: Stack, monkeypatch: pytest.MonkeyPatch, answer: str, terminal: bool
    ) -> None:
        before, keys = self.billed(aws), self.smoke_keys(aws)
        typed(monkeypatch, answer, terminal=terminal)
        assert self.send() == 1
        assert (self.billed(aws), self.smoke_keys(aws)) == (before, keys)

    def test_a_refusal_is_told_and_the_key_revoked(self, aws: Stack, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.send("--yes", "--mode", "grand") == 1
        said = capsys.readouterr()
        assert "code 1201" in said.err
        assert "mode" in said.err
        assert set(self.smoke_keys(aws)) == {"revoked"}

    def test_a_model_without_a_known_price_is_said_to_have_none(
        self, aws: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        typed(monkeypatch, "n\n", terminal=True)
        assert self.send("--model", "kling-v9") == 1
        assert "your provider's price list" in capsys.readouterr().out

    def test_without_a_provider_key_nothing_is_sent(
        self, aws: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(DeployedStack, "has_provider_key", lambda self: False)
        assert self.send("--yes") == 1
        assert f"make provider-key STAGE={STAGE}" in capsys.readouterr().err
