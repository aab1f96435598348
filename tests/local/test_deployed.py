"""The operator's commands, against a whole local stack that plays the deployed one."""

import argparse
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError, EndpointConnectionError

from local import deployed, deployment, doctor
from local.client import Client, seconds_of_video
from local.client import ClientError as ApiError
from local.deployed_stack import DeployedStack, explained
from local.stack import Options, Stack

STAGE = "test"
SIGNING = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
CHECKS = [
    "the stack is deployed",
    "the provider's key is stored",
    "addresses of videos are signed by a delivery key",
    "the base URL is the API's address",
    "the API answers in Kling's envelope",
    "the callback address answers",
    "a callback arrives",
    "somebody is told about alarms",
    "the state machine is active",
    "the sweeper comes every minute",
    "sending is not paused",
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    options = Options(
        port=0, wait_scale=0.05, render_seconds=0.5, render_size=160, state=tmp_path_factory.mktemp("state")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deployment, "STACK_NAME", f"kling-relay-{STAGE}")
        with Stack(options) as stack:
            yield stack


@pytest.fixture
def aws(running: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stack:
    """The operator's AWS settings lead to the local stack, whose front is API Gateway and CloudFront in one."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint["aws_endpoint_url"])
    for name in ("api_address", "delivery_url"):
        monkeypatch.setattr(DeployedStack, name, running.endpoint["api_url"])
    monkeypatch.setattr(deployed.packaging, "STATE", tmp_path)
    return running


@pytest.fixture
def restored_key(aws: Stack) -> Iterator[None]:
    secrets, name = DeployedStack(STAGE).client("secretsmanager"), DeployedStack(STAGE).outputs["ProviderKeySecret"]
    before = secrets.get_secret_value(SecretId=name)["SecretString"]
    yield
    secrets.put_secret_value(SecretId=name, SecretString=before)


def run(*arguments: str) -> int:
    return deployed.main([*arguments, "--stage", STAGE])


def typed(monkeypatch: pytest.MonkeyPatch, text: str, *, terminal: bool = False) -> None:
    stream = io.StringIO(text)
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("sys.stdin", stream)


def stored_key() -> str:
    stack = DeployedStack(STAGE)
    secrets = stack.client("secretsmanager")
    value: str = secrets.get_secret_value(SecretId=stack.outputs["ProviderKeySecret"])["SecretString"]
    return value


class TestProviderKey:
    def test_it_is_stored_without_the_blanks_around_it(
        self, restored_key: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        typed(monkeypatch, "  sk-new-key \n")
        assert run("provider-key") == 0
        assert stored_key() == "sk-new-key"
        said = capsys.readouterr().out
        assert "sk-new-key" not in said
        assert f"next: make key STAGE={STAGE}" in said

    def test_on_a_terminal_it_is_asked_for_without_echo(
        self, restored_key: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        typed(monkeypatch, "", terminal=True)
        monkeypatch.setattr("getpass.getpass", lambda prompt: "sk-typed")
        assert run("provider-key") == 0
        assert stored_key() == "sk-typed"

    @pytest.mark.parametrize(
        ("text", "problem"), [("", "no key"), (" \n ", "no key"), ("two words", "blanks"), ("a\nb", "blanks")]
    )
    def test_what_is_no_key_is_refused(
        self, aws: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, problem: str
    ) -> None:
        before = stored_key()
        typed(monkeypatch, text)
        assert run("provider-key") == 1
        assert problem in capsys.readouterr().err
        assert stored_key() == before


class TestWebhookSecret:
    def test_it_is_stored_beside_the_key_and_doctor_signs_with_it(
        self, aws: Stack, restored_key: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        key = stored_key()
        typed(monkeypatch, f"{SIGNING} \n")
        assert run("webhook-secret") == 0
        assert json.loads(stored_key()) == {"key": key, "webhook_secret": SIGNING}
        assert SIGNING not in capsys.readouterr().out
        assert set(problems()) == {"somebody is told about alarms"}
        typed(monkeypatch, "sk-another")
        assert run("provider-key") == 0
        assert json.loads(stored_key()) == {"key": "sk-another", "webhook_secret": SIGNING}
        typed(monkeypatch, "none\n")
        assert run("webhook-secret") == 0
        assert stored_key() == "sk-another"

    @pytest.mark.parametrize("text", ["", "sk-key", f"{SIGNING} sk-key", "none none", "whsec_%%%%%%%%%%%%%%%%%%%%"])
    def test_what_is_no_secret_is_refused(
        self, aws: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
    ) -> None:
        before = stored_key()
        typed(monkeypatch, text)
        assert run("webhook-secret") == 1
        assert f"make webhook-secret STAGE={STAGE}" in capsys.readouterr().err
        assert stored_key() == before


class TestKey:
    def test_it_is_shown_once_and_works(self, aws: Stack, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("key", "--tenant", "acme") == 0
        said = capsys.readouterr().out
        shown = dict(re.findall(r"^  (\w+) +(\S+)", said, re.MULTILINE))
        assert set(shown) == {"api_key", "access_key", "secret_key"}
        assert "shown once" in said
        with pytest.raises(ApiError, match="code 1203"):  # known, and asks for a task that is not there
            Client(aws.endpoint["api_url"], shown["api_key"]).query("image2video", "missing")

    def test_an_impossible_tenant_is_explained(self, aws: Stack, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("key", "--tenant", "Not Possible") == 1
        said = capsys.readouterr()
        assert "tenant: 1 to 63" in said.err
        assert said.out == ""

    def test_what_it_is_given_is_in_the_list(self, aws: Stack, capsys: pytest.CaptureFixture[str]) -> None:
        wishes = ("--label", "a shop", "--scopes", "read", "--until", "2099-01-31")
        assert run("key", "--tenant", "lists", *wishes) == 0
        assert run("key", "--tenant", "lists", "--scopes", "read, submit", "--days", "3650") == 0
        capsys.readouterr()
        assert run("keys", "--tenant", "lists") == 0
        said = capsys.readouterr().out
        head, first, second = (re.split(r"  +", line) for line in said.splitlines())
        assert head == ["key id", "state", "scopes", "created", "expires", "label"]
        assert first[1:3] == ["active", "read"] and first[4:] == ["2099-01-31", "a shop"]
        assert second[1:3] == ["active", "submit,read"] and re.fullmatch(r"20\d\d-\d\d-\d\d", second[4])
        assert "kr_" not in said

    def test_a_tenant_without_keys(self, aws: Stack, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("keys", "--tenant", "nobody") == 0
        assert f"make key STAGE={STAGE} TENANT=nobody" in capsys.readouterr().out

    @pytest.mark.parametrize("whole", [False, True])
    def test_it_is_revoked_by_its_id_or_as_a_whole(
        self, aws: Stack, capsys: pytest.CaptureFixture[str], whole: bool
    ) -> None:
        issued = DeployedStack(STAGE).operate("create_key", tenant="ends")
        assert run("revoke", "--key", issued["api_key" if whole else "key_id"]) == 0
        assert issued["api_key"] not in capsys.readouterr().out
        with pytest.raises(ApiError, match="code 1002"):
            Client(aws.endpoint["api_url"], issued["api_key"]).query("image2video", "missing")
        assert run("keys", "--tenant", "ends") == 0
        assert re.search(rf"{issued['key_id']}  revoked", capsys.readouterr().out)

    @pytest.mark.parametrize("key", ["", "none", "kr_none_x_y", "kr_"])
    def test_a_key_that_is_not_there(self, aws: Stack, capsys: pytest.CaptureFixture[str], key: str) -> None:
        assert run("revoke", "--key", key) == 1
        said = capsys.readouterr().err
        assert "there is no key" in said and f"make keys STAGE={STAGE}" in said

    @pytest.mark.parametrize(
        ("wrong", "problem"),
        [
            (("--scopes", "admin"), "scopes: "),
            (("--days", "0"), "expires_in_days: "),
            (("--until", "x"), "expires_at: "),
        ],
    )
    def test_wishes_that_cannot_be_met_are_explained(
        self, aws: Stack, capsys: pytest.CaptureFixture[str], wrong: tuple[str, str], problem: str
    ) -> None:
        assert run("key", *wrong) == 1
        assert problem in capsys.readouterr().err

    def test_a_key_for_reading_only(self, aws: Stack) -> None:
        issued = DeployedStack(STAGE).operate("create_key", tenant="reader", scopes=["read"])
        api = Client(aws.endpoint["api_url"], issued["api_key"])
        with pytest.raises(ApiError, match="code 1103"):
            api.send("image2video", {"image": "https://images.example/cat.png"})
        with pytest.raises(ApiError, match="code 1203"):
            api.query("image2video", "missing")


def problems() -> dict[str, doctor.Finding]:
    return {finding.check: finding for finding in doctor.examine(DeployedStack(STAGE)) if finding.problem}


class TestDoctor:
    def test_a_fresh_stack_lacks_only_a_subscription(self, aws: Stack, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("doctor") == 1
        lines = capsys.readouterr().out.splitlines()
        assert [line[9:] for line in lines if line.startswith(("ok ", "problem "))] == CHECKS
        assert [line[9:] for line in lines if line.startswith("problem ")] == ["somebody is told about alarms"]
        assert any("nobody gets pages or tickets" in line for line in lines)
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
            for topic, missing in (("OperatorTopic", "nobody gets tickets"), ("TicketTopic", None)):
                answer = stack.client("sns").subscribe(TopicArn=stack.outputs[topic], **subscribed)
                made.append(answer["SubscriptionArn"])
                assert missing is None or problems()["somebody is told about alarms"].problem == missing
            assert run("doctor") == 0
            assert capsys.readouterr().out.endswith(f"all {len(CHECKS)} are well\n")
            monkeypatch.setattr(DeployedStack, "delivery_url", "")  # a hint is no problem
            assert run("doctor") == 0
            said = capsys.readouterr().out
            assert f"hint     {CHECKS[2]}" in said and f"-> make delivery-key STAGE={STAGE}" in said
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
        told = problems()["somebody is told about alarms"].problem
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
        assert set(found) == {"the base URL is the API's address", "somebody is told about alarms"}
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
            assert "DISABLED" in problems()["the sweeper comes every minute"].problem
        finally:
            stack.client("events").enable_rule(Name=rule)

    def test_the_callback_functions_answer_is_the_one_that_is_expected(self) -> None:
        source = (deployed.packaging.REPOSITORY / "functions/kling_callback/app.py").read_text()
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


class TestTrouble:
    @pytest.mark.parametrize("command", sorted(deployed.COMMANDS))
    def test_no_stack(
        self, aws: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
    ) -> None:
        typed(monkeypatch, "sk-any\n")
        assert deployed.main([command, "--stage", "missing"]) == 1
        said = "".join(capsys.readouterr())
        assert "there is no stack kling-relay-missing in us-east-1" in said
        assert "-> make deploy STAGE=missing" in said

    @pytest.mark.parametrize("command", sorted(deployed.COMMANDS))
    def test_no_credentials(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
    ) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        assert run(command) == 1
        said = "".join(capsys.readouterr())
        assert "no AWS credentials" in said
        assert "aws sso login" in said

    def test_an_unknown_profile(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
        assert run("key") == 1
        assert "no-such-profile" in capsys.readouterr().err

    def test_no_region(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        assert run("key") == 1
        assert "set AWS_DEFAULT_REGION" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("code", "remedy"),
        [
            ("AccessDenied", "ask for the right"),
            ("AccessDeniedException", "ask for the right"),
            ("ExpiredToken", "sign in"),
            ("ThrottlingException", "try again"),
        ],
    )
    def test_refusals_of_aws(self, code: str, remedy: str) -> None:
        error: Any = {"Error": {"Code": code, "Message": "so it is"}}
        trouble = explained(ClientError(error, "DescribeStacks"), DeployedStack(STAGE))
        assert "so it is" in str(trouble)
        assert remedy in trouble.remedy

    def test_aws_out_of_reach(self) -> None:
        trouble = explained(EndpointConnectionError(endpoint_url="https://x.invalid"), DeployedStack(STAGE))
        assert "cannot be reached" in str(trouble)

    def test_the_makefile_calls_every_command(self) -> None:
        text = (deployed.packaging.REPOSITORY / "Makefile").read_text()
        assert set(re.findall(r"local\.deployed ([\w-]+) --stage \$\(STAGE\)", text)) == set(deployed.COMMANDS)
        assert isinstance(deployed.parsed(["key", "--stage", "dev", "--tenant", "demo"]), argparse.Namespace)
