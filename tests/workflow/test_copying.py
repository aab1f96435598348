"""Test faults after the rendering: truncated downloads, expired addresses, failed queries. Each is paid once."""

import pytest

from tests.workflow.driver import Driver, data_of, states, until


@pytest.mark.parametrize(
    ("fault", "first"),
    [
        ({"truncate": {"value": 0.5, "times": 1}}, 200),
        ({"truncate": {"value": 0.0, "times": 1}}, 200),
        ({"wrong_file": 1}, 200),
        ({"expired_url": 1}, 403),
    ],
    ids=["half", "nothing", "wrong_file", "expired_url"],
)
def test_a_failed_copy_is_made_again_whole(driver: Driver, fault: dict, first: int) -> None:
    driver.faults(**fault)
    task_id = driver.post()["task_id"]
    video = driver.delivered(task_id)
    entry = driver.paid(task_id)
    assert entry["downloads"][0]["status"] == first
    assert entry["downloads"][-1]["bytes"] == len(video) and entry["downloads"][-1]["status"] == 200
    assert entry["queries"] >= 2  # asked for a fresh address
    assert len(driver.posts(task_id)) == 1 and driver.ledger()["accepted"] == 1  # no second generation
    assert driver.row(task_id)["copies"] == len(entry["downloads"]) == 2
    assert states(driver.finished(task_id)).count("ArchiveVideo") == 2


def test_an_address_that_ran_out_is_asked_for_anew(driver: Driver) -> None:
    driver.faults(url_seconds={"value": 0, "times": 1})
    task_id = driver.post()["task_id"]
    driver.delivered(task_id)
    downloads = [one["status"] for one in driver.paid(task_id)["downloads"]]
    assert downloads[-1] == 200 and downloads[:-1] in ([], [403]) and len(driver.posts(task_id)) == 1


def test_a_copy_that_keeps_failing_is_not_shown_as_done(driver: Driver) -> None:
    driver.faults(wrong_file=True)
    task_id = driver.post()["task_id"]
    row = until(lambda: (one := driver.row(task_id)).get("copies", 0) >= 2 and one)
    assert row["phase"] == "rendered" and "not_a_video" in row["waits_for"]
    shown = data_of(driver.get(task_id))
    assert shown["task_status"] == "processing" and "task_result" not in shown
    assert driver.objects("video_bucket", task_id) == []
    driver.faults(wrong_file=None)
    driver.delivered(task_id)
    assert len(driver.posts(task_id)) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"query_5xx": {"value": 503, "times": 3}},
        {"query_unknown_status": {"times": 3}},
        {"query_garbage": {"value": "html", "times": 2}},
        {"query_garbage": {"value": "truncated", "times": 2}},
        {"no_url": 2},
        {"wrapped": True},
        {"unknown_id": "200/null"},
    ],
    ids=["5xx", "unknown_word", "html", "truncated", "no_url", "wrapped", "null"],
)
def test_odd_answers_to_queries_are_survived(driver: Driver, fault: dict) -> None:
    driver.faults(**fault)
    task_id = driver.post()["task_id"]
    driver.delivered(task_id)
    assert len(driver.posts(task_id)) == 1 and driver.paid(task_id)["billed"]


def test_clients_read_on_while_the_provider_is_down(driver: Driver) -> None:
    driver.faults(query_5xx=True)
    task_id = driver.post()["task_id"]
    until(lambda: driver.paid(task_id)["queries"] >= 3)
    assert data_of(driver.get(task_id))["task_status"] == "submitted"
    driver.faults(query_5xx=None)
    driver.delivered(task_id)


def test_a_late_video_of_an_expired_task_is_delivered(driver: Driver) -> None:
    driver.faults(query_5xx=True, callbacks="lost")
    task_id = driver.post()["task_id"]
    driver.phase(task_id, "submitted")
    driver.write(f"task#{task_id}", created_at=driver.row(task_id)["created_at"] - 86_400_000)
    driver.finished(task_id)  # nothing waits for six hours: the row does
    assert driver.row(task_id)["phase"] == "expired"
    assert "watched" in driver.get(task_id).json()["data"]["task_status_msg"]
    driver.faults(query_5xx=None)
    driver.write(f"task#{task_id}", created_at=driver.row(task_id)["created_at"] + 86_400_000, due_at=1)
    assert driver.sweep()["overdue"] == 1
    driver.phase(task_id, "succeeded")
    driver.delivered(task_id)
    assert len(driver.posts(task_id)) == 1
