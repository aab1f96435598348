"""Test the paid POST: every answer of the provider, or none, and that no task is ever paid for twice."""

import pytest

from tests.workflow.driver import BODY, Driver, data_of, refusal_of, until


@pytest.mark.parametrize(
    "fault",
    [
        {"drop_after": 1},
        {"slow_submit": {"value": 3, "times": 1}},
        {"garbage_answer": {"value": "html", "times": 1}},
        {"garbage_answer": {"value": "truncated", "times": 1}},
        {"late_accept": {"value": 0.5, "times": 1}},
    ],
    ids=["drop_after", "slow_submit", "html", "truncated", "late_accept"],
)
def test_an_accepted_task_whose_answer_is_lost(driver: Driver, fault: dict) -> None:
    driver.faults(**fault, callbacks="lost")  # nobody rings: the relay has to find out by itself
    task = driver.post()
    assert task["task_status"] == "submitted"
    driver.delivered(task["task_id"])
    assert driver.paid(task["task_id"])["billed"] and len(driver.posts(task["task_id"])) == 1
    assert driver.ledger()["accepted"] == 1


def test_a_callback_settles_a_submission_in_doubt(driver: Driver) -> None:
    """The provider cannot be asked by our reference, and the answer to the POST was lost: the callback names its id."""
    driver.account(query_by_external_id={"cometapi": False}, echo_external_id={"cometapi": False}, render_seconds=1)
    driver.faults(drop_after=1)
    task_id = driver.post()["task_id"]
    driver.delivered(task_id)
    assert driver.row(task_id)["upstream_id"] == driver.paid(task_id)["task_id"]
    assert len(driver.posts(task_id)) == 1


@pytest.mark.parametrize("fault", [{"drop_before": 1}, {"submit_5xx": {"times": 1}}, {"submit_5xx": {"value": 503}}])
def test_a_submission_in_doubt_is_parked_and_not_repeated(driver: Driver, fault: dict) -> None:
    driver.faults(**fault)
    task_id = driver.post()["task_id"]
    row = until(lambda: (one := driver.row(task_id)).get("denials", 0) >= 2 and one)
    assert row["phase"] == "unconfirmed" and row["due_at"] > row["updated_at"]
    shown = data_of(driver.get(task_id))
    assert (shown["task_status"], shown["task_status_msg"]) == ("submitted", "")
    assert len(driver.posts(task_id)) == 1
    assert (driver.ledger()["accepted"], driver.ledger()["billed"]) == (0, 0)
    assert driver.objects("video_bucket", task_id) == []


def test_a_parked_task_ends_with_its_deadline_and_is_still_watched(driver: Driver) -> None:
    driver.faults(drop_before=1)
    task_id = driver.post()["task_id"]
    driver.phase(task_id, "unconfirmed")
    driver.write(f"task#{task_id}", created_at=driver.row(task_id)["created_at"] - 86_400_000)
    row = driver.phase(task_id, "expired")
    assert row["due_at"] > row["updated_at"] and row["queue"] == "open"
    done = driver.get(task_id).json()["data"]
    assert done["task_status"] == "failed" and "unconfirmed" in done["task_status_msg"]
    assert "double charge" in done["task_status_msg"] and "watched" in done["task_status_msg"]
    assert len(driver.posts(task_id)) == 1


@pytest.mark.parametrize(
    ("change", "status", "code", "words"),
    [
        ({"model_name": "kling-v99"}, 404, 1203, "kling-v99"),
        ({"model_name": "kling-v2-1-master", "duration": "7"}, 400, 1201, "duration"),  # sources differ: let through
    ],
    ids=["model", "duration"],
)
def test_what_the_provider_refuses_is_refused_to_the_client(
    driver: Driver, change: dict, status: int, code: int, words: str
) -> None:
    given = refusal_of(driver.send({**BODY, **change, "external_task_id": "refused"}))
    assert given[:2] == (status, code) and words in given[2]
    (line,) = driver.ledger()["posts"]
    task_id = line["external_task_id"]
    assert line["outcome"] == f"refused {status}/{code}" and driver.ledger()["accepted"] == 0
    row = driver.row(task_id)
    assert row["phase"] == "failed" and row["reason"] == given[2] and "due_at" not in row
    shown = data_of(driver.get("refused"))
    assert (shown["task_id"], shown["task_status"], shown["task_status_msg"]) == (task_id, "failed", given[2])
    assert len(driver.posts(task_id)) == 1
    assert refusal_of(driver.send({**BODY, **change, "external_task_id": "refused"})) == given
    assert len(driver.posts(task_id)) == 1 == len(driver.ledger()["posts"])
    corrected = data_of(driver.send({**BODY, "external_task_id": "refused"}))["task_id"]
    assert corrected != task_id and driver.ended(corrected)["task_status"] == "succeed"
    assert data_of(driver.get("refused"))["task_id"] == corrected


@pytest.mark.parametrize("fault", ["arrears", "auth_error"])
def test_trouble_with_the_account_is_waited_out(driver: Driver, fault: str) -> None:
    driver.faults(**{fault: True})
    task = driver.post()
    task_id = task["task_id"]
    assert task["task_status"] == "submitted"
    row = driver.row(task_id)
    assert (row["phase"], row["queue"]) == ("accepted", "waiting")
    second = driver.post()["task_id"]
    assert driver.row(second)["phase"] == "accepted" and driver.posts(second) == []  # the gate is closed already
    driver.open_gate()
    driver.sweep()  # still trouble: it comes back to the queue
    until(lambda: driver.posts(task_id)[1:] + driver.posts(second))
    until(lambda: driver.row(task_id)["queue"] == driver.row(second)["queue"] == "waiting")
    assert data_of(driver.get(task_id))["task_status"] == "submitted" and driver.ledger()["billed"] == 0

    driver.faults(**{fault: None})
    driver.open_gate()
    assert driver.sweep()["waiting"] >= 1
    for one in (task_id, second):
        until(lambda: driver.sweep() and driver.row(one)["phase"] == "succeeded")  # noqa: B023
        driver.delivered(one)
        driver.paid(one)


def test_a_failed_task_says_why(driver: Driver) -> None:
    driver.faults(fail={"value": "Failure to pass the risk control system", "times": 1})
    task_id = driver.post()["task_id"]
    done = driver.ended(task_id)
    assert done["task_status"] == "failed" and "task_result" not in done
    assert done["task_status_msg"] == "Failure to pass the risk control system"
    assert driver.row(task_id)["phase"] == "failed" and not driver.paid(task_id)["billed"]
    assert driver.objects("video_bucket", task_id) == []
    driver.finished(task_id)
