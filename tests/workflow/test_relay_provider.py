"""The same relay in front of a relay of the new-api family (PROVIDER=relay): images as URLs, wrapped answers."""

import pytest

from tests.workflow.driver import IMAGE, QUIET, Driver, play, until


@pytest.mark.parametrize("callbacks", ["on", "lost"])
def test_an_image_becomes_a_video(relay: Driver, callbacks: str) -> None:
    relay.faults(callbacks=callbacks)
    task_id = relay.post(**(QUIET if callbacks == "on" else {}))["task_id"]
    assert play(relay.delivered(task_id))[:2] == (160, 90)
    entry = relay.paid(task_id)
    assert (entry["dialect"], entry["billed"]) == ("relay", True)
    assert relay.row(task_id)["upstream_id"] == entry["task_id"] != entry["kling_id"]
    assert entry["request"]["image"].startswith(relay.endpoint["aws_endpoint_url"])  # fetched from our bucket


def test_a_submission_in_doubt_is_parked(relay: Driver) -> None:
    """Such a relay cannot be asked by our reference, and its callbacks name an id that it does not know."""
    relay.faults(drop_after=1)
    task_id = relay.post(image=IMAGE)["task_id"]
    until(lambda: relay.paid(task_id)["status"] == "succeed" and len(relay.paid(task_id)["callbacks"]) >= 2)
    assert relay.row(task_id)["phase"] == "unconfirmed" and relay.posts(task_id) == ["accepted"]


def test_no_room_is_known_by_klings_sentence(relay: Driver) -> None:
    """Such a relay answers 400 and no code of Kling's: the client waits, and does not fail."""
    relay.faults(no_room=1)
    task = relay.post()
    assert task["task_status"] == "submitted" and "room" in relay.row(task["task_id"])["waits_for"]
    until(lambda: relay.sweep()["waiting"])
    relay.delivered(task["task_id"])
    assert relay.posts(task["task_id"]) == ["refused 429/1303", "accepted"]
