"""Test `make reconcile`: its output, and a whole run on a local stack with a provider that lists its tasks."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from kling_relay.operations.discrepancies import FindingType

from kling_relay_cli import REPOSITORY, commands
from kling_relay_cli.api_client import Client
from kling_relay_cli.operators import reconcile_report
from kling_relay_cli.operators.stack import DeployedStack
from local.stack import deploy_template
from local.stack.stack import SIMULATOR_KEY, Options, Stack
from tests.support.simulator_client import SAMPLE, b64, until

STAGE = "recon"
KIND = "image2video"
BODY = {"model_name": "kling-v2-6", "image": b64(SAMPLE), "prompt": "canary-prompt"}
SOUND: dict[str, Any] = {
    **{"provider": "kling", "lists": True, "at": 1_790_000_000_000, "days": 30, "sound": True, "counts": {}},
    **{"checked": {"rows": 3, "listed": 5, "not_ours": 1, "without_reference": 1, "asked": 2}, "unchecked": {}},
    **{"trouble": [], "left_off": 0, "findings": []},
}


def finding(what: str, **more: Any) -> dict[str, Any]:
    known = {"kind": KIND, "task_id": "a" * 32, "upstream_id": "1", "ours": "failed", "theirs": "succeed"}
    return {"type": what, **known, "open": False, "created_at": 1_790_000_000_000, **more}


def printed(**changes: Any) -> str:
    return "\n".join(reconcile_report.lines({**SOUND, **changes}))


class TestLines:
    def test_everything_that_can_be_found_is_explained(self) -> None:
        assert set(reconcile_report.MEANINGS) == set(FindingType)
        runbook = (REPOSITORY / "docs/runbook.md").read_text()
        assert "\n## Reconciliation\n" in runbook
        assert {what for what in FindingType if f"| `{what}` |" not in runbook} == set()

    def test_nothing_found(self) -> None:
        said = printed()
        assert said.splitlines()[0].startswith(
            "kling, compared with its list of tasks: the last 30 days, at 2026-09-21 "
        )
        assert "checked: 3 rows, 2 queries\nlisted by the provider: 5 tasks, 2 of them without our reference" in said
        assert said.endswith("\nno findings")

    @pytest.mark.parametrize("what", FindingType)
    def test_a_finding_has_its_meaning_its_remedy_and_its_line(self, what: str) -> None:
        said = printed(sound=False, counts={what: 1}, findings=[finding(what)]).splitlines()
        place = next(number for number, line in enumerate(said) if line.startswith(f"{what} (1): "))
        assert said[place + 1].startswith("-> ") and said[place + 2].split()[0] == "our"
        assert re.split(r" {2,}", said[place + 3].strip())[:2] == ["a" * 32, "1"]
        assert said[-1].endswith("docs/runbook.md#reconciliation")

    def test_what_was_left_out_is_said(self) -> None:
        unchecked = dict.fromkeys(reconcile_report.UNCHECKED, 7)
        said = printed(sound=False, counts={"denied": 9}, left_off=9, unchecked=unchecked, trouble=["list of x: y"])
        assert said.count("not checked: 7 ") == 4 and "\nerror: list of x: y\n" in said
        assert "9 more findings" in said and "our task" not in said

    @pytest.mark.parametrize("at", [None, -1, 10**17, -(10**30)])
    def test_times_of_a_provider_that_has_no_calendar(self, at: int | None) -> None:
        said = printed(counts={"no_row": 1}, findings=[finding("no_row", ours="", created_at=at)])
        assert "  -  " in said


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    state = tmp_path_factory.mktemp("state")
    times = {"wait_scale": 0.05, "render_seconds": 0.5, "render_size": 160}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy_template, "STACK_NAME", f"kling-relay-{STAGE}")
        parameters = (("SettleSeconds", "1"),)
        with Stack(Options(port=0, provider="kling", state=state, parameters=parameters, **times)) as stack:
            yield stack


def run(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    capsys.readouterr()
    code = commands.main(["reconcile", "--stage", STAGE, *more])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_the_whole_way(running: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint["aws_endpoint_url"])
    dynamodb, table = DeployedStack(STAGE).client("dynamodb"), running.endpoint["task_table"]
    assert run(capsys)[0] == 0, "an empty stack"
    api = Client(running.endpoint["api_url"], running.endpoint["api_key"])
    sent = [api.send(KIND, BODY) for _ in range(3)]
    tasks = [api.follow(KIND, task, lambda _: None, every=0.5)["task_id"] for task in sent]
    direct = {"Authorization": f"Bearer {SIMULATOR_KEY}"}
    for reference in ("b" * 32, "order-1"):  # a task of ours that no table knows, and one of another program
        where = f"{running.endpoint['simulator_url']}/v1/videos/{KIND}"
        assert requests.post(where, json={**BODY, "external_task_id": reference}, headers=direct, timeout=10).ok
    assert until(lambda: run(capsys)[1].count("\n  " + "b" * 32) == 1, 60)
    code, said = run(capsys, "--days", "1")
    assert code == 1 and "no_row (1): " in said and "order-1" not in said and "canary" not in said
    assert "checked: 3 rows, 0 queries\nlisted by the provider: 5 tasks, 1 of them without our reference" in said

    upstream = {one["external_task_id"]: one["task_id"] for one in ledger(running)}
    change(dynamodb, table, tasks[0], "SET phase = :new", "failed")
    change(dynamodb, table, tasks[1], "SET units = :new", "99")
    dynamodb.delete_item(TableName=table, Key={"pk": {"S": f"task#{tasks[2]}"}})
    dynamodb.delete_item(
        TableName=table, Key={"pk": {"S": f"upstream#kling@{running.endpoint['simulator_url']}#{upstream[tasks[2]]}"}}
    )
    code, said = run(capsys)
    assert code == 1
    for what, task in (("not_kept", tasks[0]), ("units_differ", tasks[1]), ("no_row", tasks[2])):
        part = said[said.index(f"\n{what} (") :]
        assert re.search(rf"^  {task}  {upstream[task]}  ", part, re.MULTILINE)
    assert said.count("\n  " + "b" * 32) == 1 and "error" not in said


def test_days_that_make_no_window_are_explained(
    running: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint["aws_endpoint_url"])
    code, said = run(capsys, "--days", "31")
    assert code == 1 and "days: must be a whole number from 1 to 30 (got 31)" in said


def test_the_rule_asks_for_the_same(running: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint["aws_endpoint_url"])
    stack = DeployedStack(STAGE)
    rule = stack.resource("OperateTasksFunctionReconcileDaily")
    (target,) = stack.client("events").list_targets_by_rule(Rule=rule)["Targets"]
    answer = stack.client("lambda").invoke(FunctionName=target["Arn"], Payload=target["Input"])
    assert "FunctionError" not in answer and b'"days": 30' in answer["Payload"].read().replace(b":3", b": 3")


def ledger(running: Stack) -> list[dict[str, Any]]:
    shown = requests.get(f"{running.endpoint['simulator_url']}/_sim/ledger", timeout=5).json()
    tasks: list[dict[str, Any]] = shown["tasks"]
    return tasks


def change(dynamodb: Any, table: str, task_id: str, update: str, new: str) -> None:
    key, values = {"pk": {"S": f"task#{task_id}"}}, {":new": {"S": new}}
    dynamodb.update_item(TableName=table, Key=key, UpdateExpression=update, ExpressionAttributeValues=values)
