"""Test the metrics of a move, as a pure function: for any two rows, and for whole lives along the table of moves."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kling_relay.errors import KlingError, ProviderRejectedError
from kling_relay.observability import REASONS, Metric
from kling_relay.tasks import metrics
from kling_relay.tasks.task import CLOSED, ENDED, MOVES, Failure, Phase, Task

CANARY = "canary"
BODY = {"prompt": CANARY, "image": f"https://i.example/{CANARY}", "model_name": "kling-v3", "duration": "10"}
TIMES = st.none() | st.integers(0, 2**53)
ROWS = st.builds(
    Task,
    id=st.just("t1"),
    tenant=st.just("acme"),
    kind=st.sampled_from(["image2video", "omni-video"]),
    phase=st.sampled_from(Phase),
    request=st.sampled_from([BODY, {}, {"mode": "pro"}]),
    created_at=st.integers(0, 2**53),
    updated_at=st.integers(0, 2**53),
    claimed_at=TIMES,
    rendered_at=TIMES,
    expired_at=TIMES,
    upstream_id=st.sampled_from([None, "up-1"]),
    units=st.sampled_from([None, "1.5", "0", "", "nan", "-1", "1e99", "many"]),
    failure=st.none() | st.sampled_from(Failure),
    reason=st.just(CANARY),
    callback_url=st.just(f"https://c.example/{CANARY}"),
    outputs=st.just([{"url": f"https://p.example/{CANARY}"}]),
    videos=st.lists(st.fixed_dictionaries({"key": st.just(CANARY), "size": st.integers(0, 2**40)}), max_size=3),
)


@given(st.none() | ROWS, ROWS)
def test_any_two_rows_have_a_meaning(before: Task | None, after: Task) -> None:
    told = metrics.of_move(before, after)
    assert not told.keys() & REASONS.keys() and all(value >= 0 for value in told.values())
    failure = metrics.failure(before, after)
    assert failure is None or (failure in REASONS[Metric.FAILED][1] and after.phase in CLOSED)
    line = metrics.line(before, after)
    if line is None:
        assert not told and failure is None
    else:
        text = json.dumps(line)
        assert CANARY not in text and (line["task_id"], line["phase"]) == ("t1", after.phase)
        assert line.get("failure") == failure and line.get("units") == told.get(Metric.UNITS_SPENT)
        assert not {"name", "message", "args", "module", "msg"} & line.keys(), "logging keeps these to itself"


def moved(task: Task, to: Phase, now: int, draw: Any) -> Task:
    """As `advance` and `submission` write it."""
    task = replace(task, phase=to, updated_at=now)
    if to is Phase.SUBMITTING:
        return replace(task, claimed_at=now, attempt=task.attempt + 1)
    if to is Phase.SUBMITTED:
        return replace(task, upstream_id="up-1", claimed_at=task.claimed_at or now)
    if to is Phase.RENDERED:
        return replace(task, rendered_at=now, units=task.units or draw(st.sampled_from([None, "2.5"])))
    if to is Phase.SUCCEEDED:
        return replace(task, videos=[{"size": 7}], failure=None)
    if to is Phase.EXPIRED:
        return replace(task, expired_at=now, failure=Failure.EXPIRED)
    if to is Phase.FAILED:
        return replace(task, failure=draw(st.none() | st.sampled_from(Failure)))
    return task


@given(st.data())
def test_over_a_life_each_is_told_once(data: st.DataObject) -> None:
    task = Task("t1", "acme", "image2video", Phase.ACCEPTED, BODY, 1_000, 1_000, estimate=4_000)
    spent = 0.0
    told, failures, phases = Counter[Metric](metrics.of_move(None, task)), Counter[Failure](), [task.phase]
    for _ in range(data.draw(st.integers(0, 12))):
        following = sorted(to for to, froms in MOVES.items() if task.phase in froms)
        if not following:
            break
        now = task.updated_at + data.draw(st.integers(0, 100_000))
        after = moved(task, data.draw(st.sampled_from(following)), now, data.draw)
        told.update(metrics.of_move(task, after))
        if after.phase is Phase.RENDERED and task.rendered_at is None:
            spent = float(after.units or 4)  # what is stated later does not count
        failures.update([] if (why := metrics.failure(task, after)) is None else [why])
        task = after
        phases.append(task.phase)
    assert told[Metric.ACCEPTED] == 1 and told[Metric.SUBMITTED] == phases.count(Phase.SUBMITTED) <= 1
    assert told[Metric.SUCCEEDED] == (task.phase is Phase.SUCCEEDED)
    assert told[Metric.UNCONFIRMED] == phases.count(Phase.UNCONFIRMED)
    assert told[Metric.UNITS_SPENT] == spent
    assert failures.total() <= 1 and (Phase.EXPIRED not in phases or failures[Failure.EXPIRED] == 1)
    cancelled = task.phase is Phase.FAILED and task.failure is None
    late = task.expired_at is not None and task.phase is Phase.SUCCEEDED
    is_open = task.phase not in ENDED and task.expired_at is None
    assert told[Metric.ACCEPTED] + late == told[Metric.SUCCEEDED] + failures.total() + cancelled + is_open
    if task.phase is Phase.SUCCEEDED and not late:
        parts = (Metric.WAITING_SECONDS, Metric.PROVIDER_SECONDS, Metric.ARCHIVE_SECONDS)
        assert sum(told[part] for part in parts) == pytest.approx(told[Metric.END_TO_END_SECONDS])


def test_the_last_line_of_a_task_tells_all_of_it() -> None:
    rendered = Task(
        *("t1", "acme", "image2video", Phase.RENDERED, {**BODY, "mode": "pro"}, 1_000, 65_000),
        **{
            "claimed_at": 3_500,
            "attempt": 2,
            "upstream_id": "up-1",
            "rendered_at": 65_000,
            "copies": 1,
            "units": "5",
        },
    )
    ended = replace(rendered, phase=Phase.SUCCEEDED, updated_at=67_000, videos=[{"size": 10}, {"size": 5}])
    assert metrics.line(rendered, ended) == {
        **{
            "task_id": "t1",
            "phase": "succeeded",
            "previous_phase": "rendered",
            "tenant": "acme",
            "kind": "image2video",
        },
        **{"model": "kling-v3", "mode": "pro", "duration": "10", "attempt": 2, "upstream_id": "up-1"},
        **{"waiting_seconds": 2.5, "provider_seconds": 61.5, "archive_seconds": 2.0, "seconds": 66.0},
        **{"bytes": 15, "copy_attempts": 1},
    }


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        *((code, "credentials") for code in range(1000, 1005)),
        *((code, "request") for code in (1103, 1200, 1201, 1202, 1203)),
        *((code, "busy") for code in (1302, 5000, 5001, 5002)),
        (1102, "cap"),
    ],
)
def test_every_error_code_of_ours_has_its_reason(code: int, reason: str) -> None:
    path = "/kling/v1/videos/image2video"
    assert metrics.rejection("POST", path, KlingError(code)) == reason and reason in REASONS[Metric.REJECTED][1]
    assert metrics.rejection("GET", path, KlingError(code)) is None
    assert metrics.rejection("POST", "/kling/v1/uploads", KlingError(code)) is None
    assert metrics.rejection("POST", path, ProviderRejectedError(code)) is None, "there is a task"
