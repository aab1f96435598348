"""The operator's hand on the money: caps, and the switch that stops sending."""

import re

import pytest

from kling_relay_cli.api_client import ClientError as ApiError
from kling_relay_cli.stack import DeployedStack
from local.stack.stack import Stack
from tests.deployed.operator import STAGE, client, problems, run
from tests.workflow.driver import BODY, until

Out = pytest.CaptureFixture[str]


def said(capsys: Out) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())


def test_a_cap_is_set_shown_and_holds(aws: Stack, capsys: Out) -> None:
    assert run("cap", "--tenant", "capped") == 0
    assert said(capsys)["cap"] == "none, by the stack (MonthlyCapUnits)"
    assert run("cap", "--tenant", "capped", "--units", "2") == 0
    assert said(capsys)["cap"] == "2 units a month, its own"
    api = client(aws, "capped")
    task = api.send("image2video", BODY)  # 1.5 units
    with pytest.raises(ApiError, match=r"code 1102.*2 units are allowed.*1\.5 are committed.*up to 1\.5"):
        api.send("image2video", BODY)
    assert run("cap", "--tenant", "capped") == 0
    committed = said(capsys)["committed"]
    assert re.match(r"1\.5 units in 20\d\d-\d\d \(UTC\)", committed), committed
    assert run("cap", "--tenant", "capped", "--units", "default") == 0
    assert said(capsys)["cap"].startswith("none, by the stack")
    api.send("image2video", BODY)
    until(lambda: api.query("image2video", task["task_id"])["task_status"] == "succeed")


@pytest.mark.parametrize("units", ["-1", "1.5", "much", "1000001"])
def test_no_cap_at_all(aws: Stack, capsys: Out, units: str) -> None:
    assert run("cap", "--tenant", "odd", f"--units={units}") == 1
    assert units in capsys.readouterr().err
    assert run("cap", "--tenant", "odd") == 0
    assert said(capsys)["cap"].startswith("none")


def test_a_pause_holds_tasks_back_and_the_doctor_knows(aws: Stack, capsys: Out) -> None:
    assert run("pause", "--reason", "the bill is too high") == 0
    assert run("pause", "--reason", "another") == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"paused since 20[-\d]+ [:\d]+ UTC \(the bill is too high\): no new task is sent .*", first)
    try:
        assert "the bill is too high" in problems()["sending is not paused"].problem
        api = client(aws, "patient")
        task = api.send("image2video", BODY)
        assert task["task_status"] == "submitted"
    finally:
        assert run("resume") == 0
    assert "sending resumed" in capsys.readouterr().out
    assert "sending is not paused" not in problems()
    sweeper = DeployedStack(STAGE).resource("SweepTasksFunction")

    def done() -> bool:
        DeployedStack(STAGE).client("lambda").invoke(FunctionName=sweeper, Payload=b"{}")
        return api.query("image2video", task["task_id"])["task_status"] == "succeed"

    until(done)
    assert run("resume") == 0
    assert "was not paused" in capsys.readouterr().out
