"""Test the relay with a relay of the new-api family (PROVIDER=relay): images as URLs, wrapped answers."""

import pytest

from tests.workflow.driver import IMAGE, QUIET, Driver, play, until


@pytest.mark.parametrize("callbacks", ["on", "lost"])
def test_an_image_becomes_a_video(services: Driver, callbacks: str) -> None:
    services.faults(callbacks=callbacks)
    task_id = services.post(**(QUIET if callbacks == "on" else {}))["task_id"]
    assert play(services.delivered(task_id))[:2] == (160, 90)
    entry = services.paid(task_id)
    assert (entry["dialect"], entry["billed"]) == ("relay", True)
    assert services.row(task_id)["upstream_id"] == entry["task_id"] != entry["kling_id"]
    assert entry["request"]["image"].startswith(services.endpoint["aws_endpoint_url"])  # fetched from our bucket


def test_a_submission_in_doubt_is_parked(services: Driver) -> None:
    """Such a relay cannot be asked by our reference, and its callbacks name an id that it does not know."""
    services.faults(drop_after=1)
    task_id = services.post(image=IMAGE)["task_id"]
    until(lambda: services.paid(task_id)["status"] == "succeed" and len(services.paid(task_id)["callbacks"]) >= 2)
    assert services.row(task_id)["phase"] == "unconfirmed" and services.posts(task_id) == ["accepted"]


def test_no_room_is_known_by_klings_sentence(services: Driver) -> None:
    """Such a relay answers 400 and no code of Kling's: the client waits, and does not fail."""
    services.faults(no_room=1)
    task = services.post()
    assert task["task_status"] == "submitted" and "room" in services.row(task["task_id"])["waits_for"]
    until(lambda: services.sweep()["waiting"])
    services.delivered(task["task_id"])
    assert services.posts(task["task_id"]) == ["refused 429/1303", "accepted"]
