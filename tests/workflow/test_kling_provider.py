"""Test the relay with the official API's dialect (PROVIDER=kling)."""

from tests.workflow.driver import Driver, lambda_calls, play, states

QUIET = {"model_name": "kling-v3", "duration": "10"}  # the driver's own model is retired there


def test_an_image_becomes_a_video(kling: Driver) -> None:
    kling.account(render_seconds=2.5)  # well after the notice of processing, well before the first poll
    task = kling.post(**QUIET, external_task_id="order-1")
    task_id = task["task_id"]
    assert play(kling.delivered(task_id))[:2] == (160, 90)
    entry = kling.paid(task_id)
    assert (entry["dialect"], entry["kind"], entry["billed"]) == ("official", "image2video", True)
    done = kling.ended(task_id)
    assert done["final_unit_deduction"] == entry["units"] and done["task_info"] == {"external_task_id": "order-1"}
    history = kling.finished(task_id)
    assert len(states(history)) <= 6 and lambda_calls(history) <= 3


def test_an_accepted_task_whose_answer_is_lost(kling: Driver) -> None:
    kling.faults(drop_after=1, callbacks="lost")
    task_id = kling.post()["task_id"]
    kling.delivered(task_id)
    assert kling.posts(task_id) == ["accepted"] and kling.ledger()["accepted"] == 1
