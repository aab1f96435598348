"""Test the task object in the form of existing clients, and that it contains no other data of the row."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from kling_relay.client_view import client_view
from kling_relay.lifecycle.step import Step
from kling_relay.tasks.notification import Notice
from kling_relay.tasks.task import MOVES, TASK_STATUS, Phase, Task, new_task_id

VIDEO = {"id": "9", "duration": "5.1", "key": "acme/t/0.mp4", "size": 5, "md5": "x", "upstream_url": "canary"}
URLS = {"acme/t/0.mp4": "https://videos.example/0.mp4", "acme/t/0w.mp4": "https://videos.example/0w.mp4"}


def task(phase: Phase, **more: Any) -> Task:
    """A row in which every text that is not for the client says canary."""
    canaries: dict[str, Any] = {field.name: "canary" for field in fields(Task) if field.type in (str, str | None)}
    known = {"id": "t" * 32, "kind": "image2video", "phase": phase, "request": {"prompt": "canary"}}
    times = {
        "created_at": 1_790_000_000_000,
        "updated_at": 1_790_000_001_000,
        "units": None,
        "external_task_id": None,
        "callback_url": None,
    }
    return Task(**{**canaries, **known, **times, "reason": "why", "outputs": [{"url": "canary"}], **more})


def test_a_new_task_has_nothing_behind_it() -> None:
    new = Task("t", "acme", "image2video", Phase.ACCEPTED, {}, 1, 1)
    counts = {"attempt": 0, "denials": 0, "wake_seq": 0, "notice_seq": 0, "copies": 0, "schema": 1}
    texts = {"execution": "", "reason": "", "waits_for": "", "hints": "", "outputs": [], "videos": [], "notices": ()}
    said = {"id", "tenant", "kind", "phase", "request", "created_at", "updated_at"}
    for field in fields(Task):
        if field.name not in said:
            assert getattr(new, field.name) == (counts | texts).get(field.name), field.name
    assert (Step(new, "done").wait_seconds, Step(new, "done").due_at) == (1, 0)


@pytest.mark.parametrize("phase", Phase)
def test_types_in_every_phase(phase: Phase) -> None:
    view = client_view(task(phase, videos=[VIDEO]), URLS)
    assert "canary" not in json.dumps(view)
    assert view["task_status"] in ("submitted", "processing", "succeed", "failed")
    assert view["task_status_msg"] == ("why" if view["task_status"] == "failed" else "")
    assert view["task_info"] == {}
    assert type(view["created_at"]) is type(view["updated_at"]) is int
    assert ("task_result" in view) == (view["task_status"] == "succeed") == (phase is Phase.SUCCEEDED)
    assert set(view) - {"task_result"} == {
        "task_id", "task_status", "task_status_msg", "task_info", "created_at", "updated_at"
    }  # fmt: skip


def test_a_video() -> None:
    marked = {**VIDEO, "watermark_key": "acme/t/0w.mp4"}
    view = client_view(task(Phase.SUCCEEDED, videos=[VIDEO, marked], units="3.5", external_task_id="mine"), URLS)
    plain = {"id": "9", "url": "https://videos.example/0.mp4", "duration": "5.1"}
    assert view["task_result"] == {"videos": [plain, {**plain, "watermark_url": "https://videos.example/0w.mp4"}]}
    assert view["final_unit_deduction"] == "3.5"
    assert view["task_info"] == {"external_task_id": "mine"}


def test_a_client_sees_how_its_webhooks_stand() -> None:
    told = (Notice(1, "submitted", 1, webhook="delivered", tries=1, answer="204"), Notice(2, "processing", 2))
    view = client_view(task(Phase.PROCESSING, callback_url="https://canary.example", notices=told), {})
    delivered = {"sequence": 1, "task_status": "submitted", "state": "delivered", "tries": 1, "answer": "204"}
    assert view["callback"] == [delivered]
    assert "canary" not in json.dumps(view)


def test_a_late_video_leaves_no_failure_behind() -> None:
    expired = task(Phase.EXPIRED, reason="not finished within 24 h")
    assert client_view(expired, {})["task_status_msg"] == "not finished within 24 h"
    assert client_view(replace(expired, phase=Phase.SUCCEEDED, videos=[VIDEO]), URLS)["task_status_msg"] == ""


def test_every_phase_has_a_word_and_a_way() -> None:
    assert set(TASK_STATUS) == set(MOVES) == set(Phase)
    assert {phase for phase in Phase if not any(phase in starts for starts in MOVES.values())} == {
        Phase.SUCCEEDED,
        Phase.FAILED,
    }


def test_a_failed_or_succeeded_task_never_moves_on_for_the_client() -> None:
    rank = {"submitted": 0, "processing": 1, "succeed": 2, "failed": 2}
    for target, starts in MOVES.items():
        for start in starts - {Phase.EXPIRED}:
            assert rank[TASK_STATUS[start]] <= rank[TASK_STATUS[target]]
    assert [target for target, starts in MOVES.items() if Phase.EXPIRED in starts] == [Phase.RENDERED]


def test_ids() -> None:
    ids = {new_task_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(one) == 32 and one.isalnum() for one in ids)


def test_a_step_as_the_workflow_sees_it() -> None:
    step = Step(task(Phase.SUBMITTED, wake_seq=3), "wait", wait_seconds=5, due_at=9)
    assert step.as_state() == {
        "task_id": "t" * 32, "next": "wait", "wait_seconds": 5, "wake_seq": "3", "due_at": "9"
    }  # fmt: skip
