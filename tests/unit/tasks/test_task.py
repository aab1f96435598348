"""Test the values derived from a task's row alone, without table and clock."""

from typing import Any

import pytest
from kling_relay.errors import ProviderRejectedError
from kling_relay.lifecycle.step import Step
from kling_relay.tasks import notification
from kling_relay.tasks.notification import Notice
from kling_relay.tasks.task import (
    CLOSED,
    ENDED,
    MOVES,
    TASK_STATUS,
    Failure,
    Phase,
    Task,
    copy_can_be_repeated,
    is_task_id,
    new_task_id,
    notice_of,
)


def task(phase: Phase = Phase.ACCEPTED, **more: Any) -> Task:
    return Task("t", "acme", "image2video", phase, {}, 1, 1, **more)


def told(*words: str) -> tuple[Notice, ...]:
    return tuple(Notice(number, word, 1) for number, word in enumerate(words, 1))


def test_words_that_rows_hold_already() -> None:
    assert [str(phase) for phase in Phase] == [
        "accepted", "submitting", "unconfirmed", "submitted", "processing", "rendered", "succeeded", "failed", "expired"
    ]  # fmt: skip
    assert [str(failure) for failure in Failure] == ["refused", "content", "provider", "expired"]


def test_what_clients_see_of_each_phase() -> None:
    assert [TASK_STATUS[phase] for phase in Phase] == [
        "submitted", "submitted", "submitted", "submitted", "processing", "processing", "succeed", "failed", "failed"
    ]  # fmt: skip


def test_which_phase_may_follow_which() -> None:
    assert {str(to): {str(start) for start in starts} for to, starts in MOVES.items()} == {
        "accepted": {"submitting", "unconfirmed"},
        "submitting": {"accepted"},
        "unconfirmed": {"submitting"},
        "submitted": {"accepted", "submitting", "unconfirmed"},
        "processing": {"submitted"},
        "rendered": {"submitted", "processing", "expired"},
        "succeeded": {"rendered"},
        "failed": {"accepted", "submitting", "unconfirmed", "submitted", "processing"},
        "expired": {"accepted", "unconfirmed", "submitted", "processing", "rendered"},
    }


def test_which_phases_are_ends() -> None:
    assert {Phase.SUCCEEDED, Phase.FAILED} == ENDED
    assert {Phase.SUCCEEDED, Phase.FAILED, Phase.EXPIRED} == CLOSED


@pytest.mark.parametrize(
    ("said", "code", "otherwise", "is_"),
    [
        ("Failure to pass the risk control system", None, Failure.PROVIDER, Failure.CONTENT),
        ("FAILURE TO PASS THE RISK CONTROL SYSTEM", 1200, Failure.REFUSED, Failure.CONTENT),
        ("Content security policy", None, Failure.PROVIDER, Failure.CONTENT),
        ("anything", 1301, Failure.REFUSED, Failure.CONTENT),
        ("anything", 1300, Failure.REFUSED, Failure.REFUSED),
        ("Image pixel is invalid", None, Failure.PROVIDER, Failure.PROVIDER),
        ("", None, Failure.PROVIDER, Failure.PROVIDER),
    ],
)
def test_risk_control_is_known_by_its_code_and_its_words(
    said: str, code: int | None, otherwise: Failure, is_: Failure
) -> None:
    assert Failure.of(said, code, otherwise=otherwise) is is_


def test_a_refusal_is_told_by_its_code() -> None:
    assert task(reason="why").refusal is None
    refusal = task(reason="why", refusal_code=1201).refusal
    assert isinstance(refusal, ProviderRejectedError) and str(refusal) == "1201 why"


def test_a_row_outlives_its_time_to_the_second() -> None:
    assert not task().is_expired(10**15)
    assert [task(expires_at=5).is_expired(now) for now in (4_999, 5_000, 5_001)] == [False, True, True]


def test_what_a_task_takes_of_its_month() -> None:
    assert task().committed == 0
    assert task(reserved=3500).committed == 3500
    assert task(reserved=3500, settled=2000).committed == 2000
    assert task(reserved=3500, settled=0).committed == 0


@pytest.mark.parametrize(
    ("fields", "nothing"),
    [
        ({"phase": Phase.FAILED}, True),
        ({"phase": Phase.EXPIRED}, False),
        ({"phase": Phase.FAILED, "upstream_id": "u"}, False),
        ({"phase": Phase.FAILED, "unsure_since": 1}, False),
    ],
)
def test_only_what_never_reached_the_provider_cost_nothing(fields: dict[str, Any], nothing: bool) -> None:
    assert task(**fields).cost_nothing is nothing


@pytest.mark.parametrize(
    ("before", "to", "word"),
    [
        ((), Phase.ACCEPTED, "submitted"),
        (("submitted",), Phase.SUBMITTED, None),
        (("submitted",), Phase.PROCESSING, "processing"),
        (("submitted", "processing"), Phase.RENDERED, None),
        (("submitted",), Phase.FAILED, "failed"),
        (("submitted", "failed"), Phase.RENDERED, None),  # its client was told an end: "processing" would take it back
        (("submitted", "failed"), Phase.SUCCEEDED, "succeed"),
        (("submitted", "failed"), Phase.EXPIRED, None),
    ],
)
def test_a_notice_for_each_new_word(before: tuple[str, ...], to: Phase, word: str | None) -> None:
    notice = notice_of(task(notices=told(*before)), to, 5)
    assert notice == (None if word is None else Notice(len(before) + 1, word, 5, next_at=5))


def test_a_webhook_only_for_who_gave_an_address() -> None:
    with_address = task(callback_url="https://client.example", notices=told("submitted"))
    assert notice_of(with_address, Phase.FAILED, 5) == notification.new(told("submitted"), "failed", 5, webhook=True)
    assert notice_of(task(notices=told("submitted")), Phase.FAILED, 5).webhook == "none"  # type: ignore[union-attr]


LATE = {"phase": Phase.EXPIRED, "rendered_at": 1, "due_at": 1}


@pytest.mark.parametrize(
    ("fields", "can"),
    [
        (LATE, True),
        ({**LATE, "phase": Phase.FAILED}, False),
        ({**LATE, "rendered_at": None}, False),
        ({**LATE, "due_at": None}, False),
        ({"phase": Phase.RENDERED, "copies": 1}, True),
        ({"phase": Phase.RENDERED, "copies": 0}, False),  # the first copy is still to come
        ({"phase": Phase.PROCESSING, "copies": 1}, False),
    ],
)
def test_what_can_be_copied_again(fields: dict[str, Any], can: bool) -> None:
    assert copy_can_be_repeated(task(**fields)) is can


def test_the_form_of_our_ids() -> None:
    assert is_task_id(new_task_id()) and is_task_id("0123456789abcdef" * 2)
    for other in ("", "a" * 31, "a" * 33, "A" * 32, "g" * 32, "a" * 32 + "\n", "\N{FULLWIDTH DIGIT ONE}" * 32):
        assert not is_task_id(other)


def test_a_step_waits_a_second_at_least() -> None:
    step = Step(task(wake_seq=2), "archive")
    assert step.as_state() == {"task_id": "t", "next": "archive", "wait_seconds": 1, "wake_seq": "2", "due_at": "0"}


@pytest.mark.parametrize(
    ("row", "since"),
    [
        ({"attempt": 1, "claimed_at": 7, "posted_since": 7}, 7),
        ({"attempt": 2, "claimed_at": 9, "posted_since": 7}, 7),
        ({"attempt": 1, "claimed_at": 7}, 7),  # the next two are rows of a version that kept the last claim alone
        ({"attempt": 2, "claimed_at": 9}, 1),
        ({}, None),
    ],
)
def test_since_when_a_post_may_have_been_taken(row: dict[str, int], since: int | None) -> None:
    assert task(Phase.UNCONFIRMED, **row).sent_since == since
