"""Test a provider without free slots: tasks wait their turn outside of any workflow. Also many tasks at once."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.workflow.driver import BODY, Driver, data_of, states, until


@pytest.mark.parametrize("fault", ["no_room", "too_fast"])
def test_a_refused_task_waits_and_then_runs(driver: Driver, fault: str) -> None:
    driver.faults(**{fault: 1})
    task = driver.post()
    task_id = task["task_id"]
    assert task["task_status"] == "submitted"
    row = driver.row(task_id)
    assert (row["phase"], row["queue"], row["due_at"]) == ("accepted", "waiting", row["created_at"])
    assert "room" in row["waits_for"] and "lease_until" not in row
    names = {one["name"] for one in driver.workflows.list_executions(
        stateMachineArn=driver.endpoint["state_machine_arn"], statusFilter="RUNNING")["executions"]}  # fmt: skip
    assert not [name for name in names if name.startswith(task_id)]  # nothing waits inside a workflow
    until(lambda: driver.sweep()["waiting"])
    driver.delivered(task_id)
    assert driver.posts(task_id) == [f"refused 429/{'1303' if fault == 'no_room' else '1302'}", "accepted"]
    driver.paid(task_id)
    assert driver.row(task_id)["execution"] == f"{task_id}-r1"


def test_the_gate_spares_the_provider(driver: Driver) -> None:
    driver.faults(no_room=True)
    ids = [driver.post()["task_id"]]
    driver.write(
        driver.admission, not_before=int(time.time() * 1000) + 60_000
    )  # in rehearsals it opens too soon to see
    ids += [driver.post()["task_id"] for _ in range(3)]
    assert [len(driver.posts(task_id)) for task_id in ids] == [1, 0, 0, 0]  # the others did not even ask
    assert driver.sweep() == {"overdue": 0, "waiting": 0, "late": 0, "notifications": 0}
    driver.faults(no_room=None)
    driver.open_gate()
    for task_id in ids:
        until(lambda: driver.sweep() and driver.row(task_id)["phase"] == "succeeded")  # noqa: B023
        driver.paid(task_id)
    accepted = {entry["external_task_id"]: entry["accepted_at"] for entry in driver.ledger()["tasks"]}
    assert accepted.keys() == set(ids)


def test_two_slots_six_tasks_two_tenants(driver: Driver) -> None:
    driver.account(slots=2, render_seconds=0.5)
    ids = {driver.post()["task_id"]: "api_key" for _ in range(4)}
    ids |= {driver.post(key="second_api_key")["task_id"]: "second_api_key" for _ in range(2)}

    def all_done() -> bool:
        driver.sweep()
        return all(driver.row(task_id)["phase"] == "succeeded" for task_id in ids)

    until(all_done)
    for task_id, key in ids.items():
        driver.delivered(task_id, key=key)
        assert driver.paid(task_id)["billed"]
    books = driver.ledger()
    assert (books["accepted"], books["billed"]) == (6, 6)
    assert books["running"] == 0 and max(at_once(books["tasks"])) <= 2


def at_once(tasks: list[dict]) -> list[int]:
    """How many tasks held a slot at each acceptance."""
    return [sum(one["accepted_at"] <= t["accepted_at"] < one["ended_at"] for one in tasks) for t in tasks]


def test_whoever_ends_makes_room_for_the_next(driver: Driver) -> None:
    """No sweep: the end of the first task starts the second."""
    driver.account(slots=1, render_seconds=2.5)
    first, second = driver.post()["task_id"], driver.post()["task_id"]
    assert driver.row(second)["queue"] == "waiting"
    driver.delivered(first)
    driver.delivered(second)
    assert driver.paid(second)["accepted_at"] >= driver.paid(first)["ended_at"]


def test_fifty_tasks_at_once(driver: Driver) -> None:
    """On a slow machine a request may be answered with 503: its client sends it again under the same key."""
    began = time.monotonic()

    def send(number: int) -> requests.Response:
        body, key = {**BODY, "prompt": f"number {number % 5}"}, {"Idempotency-Key": f"fifty-{number}"}
        return until(lambda: (answer := driver.send(body, headers=key)).status_code != 503 and answer)

    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(send, range(50)))
    ids = [data_of(answer)["task_id"] for answer in answers]
    sent = time.monotonic() - began
    assert len(set(ids)) == 50

    def all_done() -> bool:
        driver.sweep()
        return all(driver.row(task_id)["phase"] == "succeeded" for task_id in ids)

    until(all_done, 150)
    took = time.monotonic() - began
    paid = Counter(entry["external_task_id"] for entry in driver.ledger()["tasks"])
    assert paid == Counter(ids) and driver.ledger()["billed"] == 50
    entered = [len(states(driver.finished(driver.row(task_id)["execution"]))) for task_id in ids]
    assert sum(entered) / 50 <= 12
    print(f"\nfifty tasks: sent {sent:.1f} s, done {took:.1f} s, transitions {sorted(Counter(entered).items())}")
