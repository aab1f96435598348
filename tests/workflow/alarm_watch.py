"""Evaluate the template's alarms on the metrics of a run on the local stack; no test writes a metric."""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from local.cloudwatch import alarm_states
from local.cloudwatch.series import reader
from local.stack.deploy_template import STACK_NAME
from tests.workflow.driver import Driver, until

DAYS = 4 * 86_400
"""Longer than any alarm looks back."""


class AlarmWatch:
    """`driver`: the stack in the hands of the test. Alarms go by their logical ids."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._cloudwatch = driver.emulator.client("cloudwatch")
        self._read = reader(self._cloudwatch)
        resources = driver.emulator.client("cloudformation").describe_stack_resources(StackName=STACK_NAME)
        self._logical = {
            one["PhysicalResourceId"]: one["LogicalResourceId"]
            for one in resources["StackResources"]
            if one["ResourceType"] in ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")
        }
        self.alarms = [
            alarm
            for page in self._cloudwatch.get_paginator("describe_alarms").paginate(
                AlarmTypes=["MetricAlarm", "CompositeAlarm"]
            )
            for alarm in [*page["MetricAlarms"], *page["CompositeAlarms"]]
        ]
        assert {alarm["AlarmName"] for alarm in self.alarms} == set(self._logical)

    def days_pass(self) -> None:
        """What was before is forgotten by every alarm; the sweeper has just been there."""
        self.driver.emulator.put_cloudwatch_forward(DAYS)
        self.driver.sweep()

    def minutes_pass(self, minutes: int) -> None:
        """Each with its sweep."""
        for _ in range(minutes):
            self.driver.emulator.put_cloudwatch_forward(60)
            self.driver.sweep()

    def ringing(self) -> set[str]:
        """The alarms that are in ALARM at the end of this minute."""
        return {self._logical[name] for name, state in self._states().items() if state == "ALARM"}

    def heard(self) -> set[str]:
        """Those of them that tell somebody."""
        states = self._states()
        return {self._logical[alarm["AlarmName"]] for alarm in self.alarms if alarm_states.rings(alarm, states)}

    def _states(self) -> dict[str, alarm_states.State]:
        return alarm_states.states(self.alarms, self._read, self._now_ms(), {})

    def _now_ms(self) -> int:
        return round((time.time() + self.driver.emulator.cloudwatch_ahead + 60) * 1000)

    def rung(self, *wanted: str) -> None:
        """Exactly the `wanted` alarms ring, as soon as all of what happened is known."""
        with contextlib.suppress(AssertionError):
            until(lambda: self.ringing() >= set(wanted))
        found = self.ringing()
        told = {
            name: alarm_states.points(one, self._read, self._now_ms())
            for name, one in self._metric_alarms()
            if name in found
        }
        assert found == set(wanted), f"wanted {sorted(wanted)}, but {sorted(found)} ring: {told}"

    def _metric_alarms(self) -> Iterator[tuple[str, alarm_states.Alarm]]:
        return ((self._logical[one["AlarmName"]], one) for one in self.alarms if "AlarmRule" not in one)

    def value(self, namespace: str, metric: str, statistic: str, **dimensions: str) -> float | None:
        """The statistic over the last four minutes and this one."""
        end_ms = self._now_ms() // 60_000 * 60_000
        found = self._read(namespace, metric, dimensions, statistic, 300, end_ms - 300_000, end_ms)
        return next(iter(found.values()), None)

    def load(self, count: int, *, at_once: bool = False, **extra: Any) -> list[str]:
        """The ids of `count` tasks that clients send, one after the other or at once."""

        def send(number: int) -> str:
            return str(self.driver.post(prompt=f"number {number}", **extra)["task_id"])

        with ThreadPoolExecutor(count if at_once else 1) as clients:
            return list(clients.map(send, range(count)))

    def age(self, task_id: str, hours: float) -> None:
        """Let the task be so old for the sweeper, which measures the oldest; what it does with it does not change."""
        birth = f"{round((time.time() - hours * 3600) * 1000):013}#{task_id}"
        self.driver.dynamodb.update_item(
            TableName=self.driver.endpoint["task_table"],
            Key={"pk": {"S": f"task#{task_id}"}},
            UpdateExpression="SET birth = :birth",
            ExpressionAttributeValues={":birth": {"S": birth}},
        )

    def each(self, task_ids: list[str], condition: Callable[[dict[str, Any]], Any]) -> None:
        """Wait until the row of each task meets the condition."""
        for task_id in task_ids:
            until(lambda: condition(self.driver.row(task_id)))  # noqa: B023
