"""Test the operations page on the whole stack: it shows the metrics of the run."""

import json
import re
import time
from typing import Any

from tests.workflow.driver import Driver, call, until


def board(driver: Driver) -> dict[str, Any]:
    """Content by title, and the state of every alarm by a part of its name."""
    widgets = call("GET", f"{driver.endpoint['api_url']}/operations/board?minutes=15").json()["widgets"]
    alarms = [alarm for widget in widgets if widget["type"] == "alarm" for alarm in widget["drawn"]]
    titled = {one["properties"].get("title"): one for one in widgets}
    return {**titled, "alarms": {alarm["name"].split("-")[3]: alarm["state"] for alarm in alarms}}


def newest(widget: dict[str, Any]) -> dict[str, float]:
    return {graph["label"]: graph["points"][-1][1] for graph in widget["drawn"] if graph["points"]}


def test_a_run_is_seen_on_the_page(driver: Driver) -> None:
    began = int(time.time() * 1000)
    before = newest(board(driver)["Task funnel (whole time range)"])
    driver.delivered(driver.post()["task_id"])
    driver.faults(fail={"value": "Failure to pass the risk control system", "times": 1})
    driver.ended(driver.post()["task_id"])

    def told() -> dict[str, Any] | None:
        seen = board(driver)
        funnel = newest(seen["Task funnel (whole time range)"])
        more = {name: funnel[name] - before.get(name, 0) for name in funnel}
        return seen if more.get("accepted") == 2 and more.get("archived") == 1 else None

    seen = until(told)
    assert newest(seen["Failed tasks by reason"])["content (risk control)"] >= 1
    assert newest(seen["API responses"])["all"] >= 1
    assert seen["alarms"]["AccountTroubleAlarm"] == "OK" and len(seen["alarms"]) >= 15
    assert not [one for one in seen["Latest errors"]["drawn"] if one["at"] >= began]


def test_errors_are_listed(driver: Driver) -> None:
    query = board(driver)["Latest errors"]["properties"]["query"]
    (group,) = re.findall(r"SOURCE '([^']*Advance[^']*)'", query)
    driver.delivered(driver.post()["task_id"])  # a function has written there, so the group is the one of the functions
    line = {"level": "ERROR", "message": "provider_account_blocked", "task_id": "t-1", "reason": "code 1002"}
    event = {"timestamp": int(time.time() * 1000), "message": json.dumps(line)}
    (stream, *_) = driver.cloudwatch.describe_log_streams(logGroupName=group)["logStreams"]
    driver.cloudwatch.put_log_events(
        logGroupName=group, logStreamName=stream["logStreamName"], logEvents=[event, {**event, "message": "INFO"}]
    )
    (found,) = [one for one in board(driver)["Latest errors"]["drawn"] if one.get("task_id") == "t-1"]
    assert found["message"] == "provider_account_blocked" and found["at"] == event["timestamp"]
    driver.cloudwatch.delete_log_stream(logGroupName=group, logStreamName=stream["logStreamName"])
