"""Start one stack per worker, reset before each test: a start takes some seconds, a reset some milliseconds."""

import json
import os
from collections.abc import Iterator

import pytest

from local.stack.deploy_template import STACK_NAME
from local.stack.stack import Options, Stack
from tests.support import secret_canaries
from tests.workflow.alarm_watch import AlarmWatch
from tests.workflow.driver import QUIET, Driver

FAST = {"port": 0, "wait_scale": 0.05, "render_seconds": 0.3, "render_size": 160}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    state = tmp_path_factory.mktemp("state")
    parameters = (("SubmitTimeoutSeconds", "2"), ("SettleSeconds", "60"))
    os.environ["ALLOW_LOCAL_WEBHOOKS"] = "1"  # the emulator passes it on to the functions
    with Stack(Options(**FAST, state=state, parameters=parameters)) as running:
        _stop_the_clock(running)
        yield running


@pytest.fixture(scope="session")
def kling_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The same relay in front of the official API's dialect."""
    yield from _in_front_of("kling", tmp_path_factory)


@pytest.fixture(scope="session")
def relay_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The same relay in front of another relay, of the new-api family."""
    yield from _in_front_of("relay", tmp_path_factory)


@pytest.fixture(scope="session")
def watched_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """With every alarm, and patient enough with the provider for its slowness to show."""
    os.environ["ALLOW_LOCAL_WEBHOOKS"] = "1"
    parameters = (("SubmitTimeoutSeconds", "11"), ("SettleSeconds", "60"), ("SpendAlarmUnits", "10"))
    with Stack(Options(**FAST, state=tmp_path_factory.mktemp("state"), parameters=parameters)) as running:
        _stop_the_clock(running)
        _keep_quiet(running)
        yield running


def _in_front_of(provider: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    state = tmp_path_factory.mktemp("state")
    parameters = (("SubmitTimeoutSeconds", "2"),)
    with Stack(Options(**FAST, provider=provider, state=state, parameters=parameters)) as running:
        _stop_the_clock(running)
        _keep_quiet(running)
        yield running


def _stop_the_clock(stack: Stack) -> None:
    """No sweep by the minute: the tests say themselves when a minute is over."""
    assert stack.emulator is not None
    events = stack.emulator.client("events")
    rules = {one.get("ScheduleExpression"): one for one in events.list_rules()["Rules"]}
    rule = rules["rate(1 minute)"]
    assert rule["State"] == "ENABLED"
    (target,) = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
    assert "SweepTasks" in target["Arn"]
    events.disable_rule(Name=rule["Name"])


def _keep_quiet(stack: Stack) -> None:
    """QUIET's renders are long, by the operator's word: however slow the machine, no poll precedes a callback."""
    assert stack.emulator is not None
    late = {"render_p5_seconds": {f"std/{QUIET['duration']}": 1200}}
    overlay = json.dumps({"models": {QUIET["model_name"]: late, "kling-v3": late}})  # the second on the official host
    stack.emulator.client("ssm").put_parameter(Name=f"/{STACK_NAME}/models", Type="String", Value=overlay)


@pytest.fixture
def driver(stack: Stack) -> Iterator[Driver]:
    yield from _fresh(stack)


@pytest.fixture
def kling(kling_stack: Stack) -> Iterator[Driver]:
    yield from _fresh(kling_stack)


@pytest.fixture
def services(relay_stack: Stack) -> Iterator[Driver]:
    yield from _fresh(relay_stack)


@pytest.fixture
def watch(watched_stack: Stack) -> Iterator[AlarmWatch]:
    """The alarms of a stack that has been quiet for days, and is swept as every minute."""
    for driver in _fresh(watched_stack):
        watch = AlarmWatch(driver)
        watch.days_pass()
        yield watch


def _fresh(stack: Stack) -> Iterator[Driver]:
    driver = Driver(stack)
    driver.clear()
    yield driver
    driver.emulator.check()
    assert driver.denied() == []
    logs = driver.logs()
    driver.clear()
    assert secret_canaries.find_secrets("\n".join(logs)) == []
