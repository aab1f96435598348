"""Test that each fault of the simulated provider rings exactly the alarms in docs/runbook.md."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import fields

import pytest

from kling_relay_cli import REPOSITORY
from local.simulator.faults import Faults
from tests.workflow.alarm_watch import AlarmWatch
from tests.workflow.driver import BODY, until

HEADING = "## Which fault rings which alarm\n"


def table() -> dict[str, tuple[str, ...]]:
    """The runbook's table: what its first cell says -> the alarms of its last."""
    section = (REPOSITORY / "docs/runbook.md").read_text().partition(HEADING)[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert all(alarms == "-" or re.fullmatch(r"`\w+`( `\w+`)*", alarms) for _, _, alarms in rows[2:])
    return {fault: tuple(re.findall(r"\w+Alarm", alarms)) for fault, _, alarms in rows[2:]}


TABLE = table()
SLOW = {"`slow_submit: 12`", "`query_slow: 12`"}
# `make faults` tries every row. `make test` has no time for those that take long, nor for all that ring nothing.
TRIED = {row: alarms for row, alarms in TABLE.items() if alarms and row not in SLOW} | {"`fail`": (), "`no_room`": ()}
TRIED = TABLE if os.environ.get("FAULTS") == "all" else TRIED


def switch(fault: str) -> tuple[str, object]:
    """The switch that a row names, and what it is turned to."""
    name, _, value = fault.partition("`, ")[0].strip("`").partition(": ")
    try:
        return name, json.loads(value or "true")
    except ValueError:
        return name, value


def ended(watch: AlarmWatch, tasks: list[str]) -> None:
    watch.each(tasks, lambda row: row["phase"] in ("succeeded", "failed", "expired"))


def waiting(watch: AlarmWatch, tasks: list[str]) -> None:
    watch.each(tasks, lambda row: row.get("queue") == "waiting")


def parked(watch: AlarmWatch, tasks: list[str]) -> None:
    watch.each(tasks, lambda row: row.get("standing") == "parked")


def asked(watch: AlarmWatch, tasks: list[str]) -> None:
    for task_id in tasks:
        until(lambda: watch.driver.paid(task_id)["queries"] >= 2)  # noqa: B023


def copied(watch: AlarmWatch, tasks: list[str]) -> None:
    watch.each(tasks, lambda row: row.get("copies", 0) >= 2)


def slow(watch: AlarmWatch, tasks: list[str]) -> None:
    """And clients look twenty times how their tasks are."""
    for n in range(20):
        assert watch.driver.get(tasks[n % len(tasks)]).status_code == 200
    ended(watch, tasks)


def refused(watch: AlarmWatch) -> list[str]:
    """Three clients read the operator's error at once: no task of theirs is left."""
    for _ in range(3):
        response = watch.driver.send(BODY)
        assert response.status_code == 500 and "KlingBaseUrl" in response.json()["message"]
    return []


UNTIL: dict[str, Callable[[AlarmWatch, list[str]], None]] = {
    **dict.fromkeys(("auth_error", "arrears", "too_fast", "no_room"), waiting),
    **dict.fromkeys(("drop_before", "submit_5xx", "maintenance"), parked),
    **dict.fromkeys(("query_5xx", "query_slow", "query_garbage", "query_unknown_status"), asked),
    **dict.fromkeys(("mix_up", "no_url", "never"), asked),
    **dict.fromkeys(("result_host", "url_seconds", "expired_url", "truncate", "wrong_file"), copied),
    "slow_submit": slow,
}
"""How long a fault goes on; without an entry, until every task has ended."""


@pytest.mark.parametrize("fault", TRIED)
def test_each_fault_rings_its_alarms_and_no_others(watch: AlarmWatch, fault: str) -> None:
    name, value = switch(fault)
    watch.driver.faults(**{name: value})
    tasks = refused(watch) if name == "redirect" else watch.load(3, at_once=name == "slow_submit")
    UNTIL.get(name, ended)(watch, tasks)
    if "two hours" in fault:
        for task_id in tasks:
            watch.age(task_id, 2.1)
    if "deadline" in fault:
        for task_id in tasks:
            watch.driver.write(f"task#{task_id}", created_at=1)
        ended(watch, tasks)
    watch.driver.sweep()
    watch.rung(*TABLE[fault])


def test_the_table_has_every_fault_of_the_simulator() -> None:
    assert {switch(fault)[0] for fault in TABLE} == {one.name for one in fields(Faults)}
