"""`make delivery-key` on a stack that has none: the first key, a rotation, what goes wrong, and what doctor says of it.

The local stack plays the deployed one. Its front trusts what the emulator's key group holds, so an address that is
signed too early, or by a key that has gone, is refused here as it would be by CloudFront.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from kling_relay_cli import commands, delivery_key, doctor
from kling_relay_cli.api_client import Client
from kling_relay_cli.stack import DeployedStack, OperatorError
from local.stack import deploy_template
from local.stack.cloudfront import Answer, Refused
from local.stack.stack import Options, Stack
from tests.workflow.driver import BODY

STAGE = "keyless"
CHECK = "a delivery key signs video URLs"
DAY = 86_400


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    fast = {"port": 0, "wait_scale": 0.05, "render_seconds": 0.3, "render_size": 160}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy_template, "STACK_NAME", f"kling-relay-{STAGE}")
        patch.setattr(delivery_key, "_POLL_SECONDS", 0.1)
        with Stack(Options(**fast, state=tmp_path_factory.mktemp("state"), delivery_key=False)) as stack:
            yield stack


class Operator:
    """Somebody at the deployed stack, whose distribution is at the front's address."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.deployed = stack, DeployedStack(STAGE)
        endpoint = stack.endpoint
        self.api = Client(endpoint["api_url"], endpoint["api_key"], direct=True)

    def run(self, rotate: str = "") -> int:
        return commands.main(["delivery-key", "--stage", STAGE, "--rotate", rotate])

    def secret(self) -> dict[str, Any]:
        self.deployed.forget()
        secret = self.deployed.outputs["DeliveryKeySecret"]
        found = self.deployed.client("secretsmanager").get_secret_value(SecretId=secret)
        held: dict[str, Any] = json.loads(found["SecretString"])
        return held

    def keep(self, held: dict[str, Any] | str) -> None:
        text = held if isinstance(held, str) else json.dumps(held)
        secret = self.deployed.outputs["DeliveryKeySecret"]
        self.deployed.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=text)

    def slots(self) -> dict[str, str]:
        self.deployed.forget()
        return {slot: self.deployed.parameters[f"DeliveryKey{slot}"] for slot in "AB"}

    def address(self, task_id: str) -> str:
        """The video's, as the client gets it from functions that have forgotten the old secret."""
        assert self.stack.emulator is not None
        functions = self.stack.emulator.client("lambda")
        name = self.deployed.resource("TaskApiFunction")
        environment = functions.get_function_configuration(FunctionName=name)["Environment"]
        environment["Variables"]["ANEW"] = str(time.time())  # another environment, another process
        functions.update_function_configuration(FunctionName=name, Environment=environment)
        return str(self.api.query("image2video", task_id)["task_result"]["videos"][0]["url"])

    def doctor(self) -> doctor.Finding:
        return next(one for one in doctor.examine(DeployedStack(STAGE)) if one.check == CHECK)


def status(url: str) -> int:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, headers={"Authorization": "Bearer stray"}, timeout=10).status_code


@pytest.fixture
def operator(running: Stack, monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint["aws_endpoint_url"])

    def delivery_url(self: DeployedStack) -> str:
        return running.endpoint["api_url"] if "DeliveryUrl" in self.outputs else ""

    monkeypatch.setattr(DeployedStack, "delivery_url", property(delivery_url))
    return Operator(running)


@contextmanager
def edge_that(operator: Operator, answers: Callable[[str, str, Any], Answer]) -> Iterator[None]:
    """The front's CloudFront answers so."""
    front = operator.stack._front
    assert front is not None and front.edge is not None
    object.__setattr__(front.edge, "answer", answers)
    try:
        yield
    finally:
        object.__delattr__(front.edge, "answer")


def probes(operator: Operator) -> list[str]:
    """Objects that a proof has left behind."""
    s3 = operator.deployed.client("s3")
    listed = s3.list_objects_v2(Bucket=operator.deployed.outputs["VideoBucket"], Prefix="videos/probe")
    return [one["Key"] for one in listed.get("Contents", [])]


def refused(method: str, target: str, headers: Any) -> Answer:
    return Refused("AccessDenied", "Access denied").answer()


def test_a_first_key_that_the_distribution_refuses_changes_no_address(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """CloudFront refuses a signature with AccessDenied. That is no proof: clients keep their presigned addresses."""
    monkeypatch.setattr(delivery_key, "_PATIENCE", 3)
    task = operator.api.follow("image2video", operator.api.send("image2video", BODY), lambda _: None, every=0.1)
    with edge_that(operator, refused):
        assert operator.run() == 1
    said = capsys.readouterr()
    assert "not yet: CloudFront refuses" in said.out and "signs now" not in said.out
    assert "HTTP 403 AccessDenied\n-> " in said.err and "the signing key has not changed" in said.err
    with pytest.raises(operator.deployed.client("secretsmanager").exceptions.ResourceNotFoundException):
        operator.secret()
    assert "X-Amz-Signature=" in operator.address(task["task_id"])
    assert "no signing key" in operator.doctor().problem and probes(operator) == []
    operator.deployed.forget()
    delivery_key._update(operator.deployed, "A", "")  # as if nothing had been tried, for the next test


def test_a_life_of_keys(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    task = operator.api.follow("image2video", operator.api.send("image2video", BODY), lambda _: None, every=0.1)
    task_id = task["task_id"]
    presigned = operator.address(task_id)
    assert "X-Amz-Signature=" in presigned and status(presigned) == 400  # the stray header
    hint = operator.doctor()
    assert not hint.problem and "12 hours" in hint.hint and hint.remedy == f"make delivery-key STAGE={STAGE}"

    assert operator.run() == 0
    said = capsys.readouterr().out
    held = operator.secret()
    assert held["slot"] == "A" and held["private_key"] not in said and f"key A ({held['key_pair_id']}) signs" in said
    assert operator.slots()["A"].startswith("-----BEGIN PUBLIC KEY-----\n") and operator.slots()["B"] == ""
    first = operator.address(task_id)
    assert f"Key-Pair-Id={held['key_pair_id']}" in first and status(first) == 200
    assert operator.doctor() == doctor.Finding(CHECK)

    assert operator.run() == 0  # again: nothing to do
    assert "nothing to do" in capsys.readouterr().out and operator.secret() == held

    assert operator.run("1") == 0
    second_held = operator.secret()
    assert second_held["slot"] == "B" and operator.slots()["A"] and operator.slots()["B"]
    second = operator.address(task_id)
    assert f"Key-Pair-Id={second_held['key_pair_id']}" in second
    assert (status(first), status(second)) == (200, 200)  # both are trusted

    for rotate, words in (("1", "may still sign with key A"), ("now", "may still sign with key A")):
        assert operator.run(rotate) == 1
        assert words in capsys.readouterr().err
    operator.keep({**second_held, "made_at": time.time() - DAY})
    assert operator.run("1") == 1
    said = capsys.readouterr().err
    assert "URLs signed with key A are valid until" in said and "ROTATE=now" in said
    assert operator.secret()["slot"] == "B" and status(first) == 200

    assert operator.run("now") == 0  # A is known to others
    third = operator.address(task_id)
    assert operator.secret()["slot"] == "A" and operator.secret()["key_pair_id"] != held["key_pair_id"]
    assert (status(first), status(second), status(third)) == (403, 200, 200)

    operator.keep({**operator.secret(), "made_at": time.time() - 32 * DAY})
    assert operator.run("1") == 0  # in time: nothing that lives ends
    assert operator.secret()["slot"] == "B" and status(third) == 200 and status(second) == 403


def test_a_run_that_broke_off_changed_nothing_that_signs(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.run()
    before = operator.secret()
    operator.keep({**before, "made_at": time.time() - 32 * DAY})
    before = operator.secret()

    def dead(*_: Any) -> None:
        raise OperatorError("the laptop was closed", "open it")

    with monkeypatch.context() as patch:
        patch.setattr(delivery_key, "_wait_for_proof", dead)
        assert operator.run("1") == 1
    assert operator.secret() == before and operator.doctor() == doctor.Finding(CHECK)
    capsys.readouterr()
    assert operator.run("1") == 0
    assert operator.secret()["slot"] != before["slot"] and operator.doctor() == doctor.Finding(CHECK)


def test_a_key_that_the_edge_does_not_know_yet_is_waited_for(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.run()
    front = operator.stack._front
    assert front is not None and front.edge is not None
    real, asked = front.edge.public_key, []

    def slow(key_pair_id: str) -> str | None:
        asked.append(operator.secret()["key_pair_id"] == key_pair_id)
        return None if len(asked) < 5 else real(key_pair_id)

    operator.keep({**operator.secret(), "made_at": time.time() - 32 * DAY})
    held = operator.secret()
    object.__setattr__(front.edge, "public_key", slow)
    try:
        assert operator.run("1") == 0
    finally:
        object.__setattr__(front.edge, "public_key", real)
    assert asked == [False] * 5 and operator.secret()["slot"] != held["slot"]  # nothing signed with it meanwhile


def test_a_key_that_the_distribution_refuses_never_signs(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.run()
    operator.keep({**operator.secret(), "made_at": time.time() - 32 * DAY})
    before = operator.secret()
    monkeypatch.setattr(delivery_key, "_PATIENCE", 3)
    with edge_that(operator, refused):
        assert operator.run("1") == 1
        assert operator.secret() == before
        found = operator.doctor()
        assert "CloudFront refuses a URL signed with" in found.problem and "template.yaml" in found.remedy
        capsys.readouterr()
        assert operator.run() == 1  # nor does it say that there is nothing to do
        assert "nothing to do" not in capsys.readouterr().out
    assert operator.doctor() == doctor.Finding(CHECK) and probes(operator) == []


def test_a_distribution_that_asks_for_no_signature_is_a_problem(operator: Operator) -> None:
    operator.run()
    held = operator.secret()
    front = operator.stack._front
    assert front is not None and front.edge is not None
    edge = front.edge

    def open_to_all(method: str, target: str, headers: Any) -> Answer:
        return edge._object(method, target.partition("?")[0], {})

    with edge_that(operator, open_to_all):
        found = operator.doctor()
        assert "returns 200 without a signature" in found.problem and "TrustedKeyGroups" in found.remedy
        assert operator.run() == 1
    assert operator.secret() == held and probes(operator) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"private_key": delivery_key.new_pair()[0]}, "is not the public half"),
        ({"key_pair_id": "KOTHER"}, "has another id"),
        ({"url": "https://d1.cloudfront.net"}, "URLs start with https://d1.cloudfront.net"),
        ({"slot": "C"}, "cannot be read"),
        ({"private_key": "canary"}, "cannot be read"),
        ("canary", "cannot be read"),
    ],
    ids=range(6),
)
def test_a_key_that_does_not_belong_to_the_stack_is_found_and_replaced(
    operator: Operator, change: dict[str, str] | str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.run()
    assert operator.doctor() == doctor.Finding(CHECK)
    operator.keep({**operator.secret(), **change} if isinstance(change, dict) else change)
    found = operator.doctor()
    assert words in found.problem and found.remedy == f"make delivery-key STAGE={STAGE}" and "canary" not in str(found)
    assert operator.run() == 0
    assert operator.doctor() == doctor.Finding(CHECK)
    assert "canary" not in "".join(capsys.readouterr())


def test_an_edge_out_of_reach_is_a_problem(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.run()
    monkeypatch.setattr(requests, "get", lambda *_, **__: (_ for _ in ()).throw(requests.ConnectionError("no")))
    assert "cannot be reached" in operator.doctor().problem
    held = operator.secret()
    assert operator.run() == 1  # "it signs, nothing to do" is only said with the proof
    assert "cannot be reached" in capsys.readouterr().err
    assert operator.secret() == held  # no reason for another key


def test_an_older_stack_is_told_to_be_deployed_first(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DeployedStack, "parameters", {"Provider": "kling"})
    assert operator.run() == 1
    said = capsys.readouterr().err
    assert "without delivery keys" in said and f"make deploy STAGE={STAGE}" in said
