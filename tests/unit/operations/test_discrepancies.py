"""Test the comparison of a row with the provider's answer: every pair of them, and the common rules."""

import dataclasses
from typing import Any, get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kling_relay.operations.discrepancies import (
    FindingType,
    Row,
    alone,
    answered,
    compare,
    finding,
    in_flight,
    question,
    unowned,
    urgency,
)
from kling_relay.provider.responses import ProviderTask, Status
from kling_relay.tasks.task import CLOSED, Phase, Task

NOW, SETTLE, DAY = 1_790_000_000_000, 120_000, 86_400_000
ID, OTHER = "0" * 32, "1" * 32
STATUSES: list[Any] = [*get_args(Status), None]
BEGUN = {Phase.SUBMITTING, Phase.UNCONFIRMED, Phase.EXPIRED}

ages = st.integers(0, 40 * DAY) | st.integers(0, 2 * SETTLE)
times = ages.map(lambda age: NOW - age)
amounts = st.sampled_from([None, "1.5", "1.50", "2", "", "free", "NaN", "sNaN", "1e999999999", "Infinity"])
rows = st.builds(
    Row,
    task_id=st.just(ID),
    kind=st.just("image2video"),
    phase=st.sampled_from(Phase),
    created_at=times,
    due_at=st.none() | times,
    claimed_at=st.none() | times,
    lease_until=st.none() | st.integers(-DAY, DAY).map(lambda left: NOW + left),
    unsure_since=st.none() | times,
    upstream_id=st.none() | st.just("a"),
    units=amounts,
    deleted_at=st.none() | times,
)
references = st.sampled_from([None, ID, OTHER, "order-1"])
snaps = st.builds(
    ProviderTask,
    upstream_id=st.sampled_from(["a", "b"]),
    status=st.sampled_from(STATUSES),
    reference=references,
    created_at=st.none() | times,
    units=amounts,
)


def row(phase: Phase, **fields: Any) -> Row:
    return Row(ID, "image2video", phase, **{"created_at": NOW - DAY, "upstream_id": "a", **fields})


def test_a_row_has_the_names_and_no_more_of_a_task() -> None:
    """Nothing that its client said is read."""
    names = {one.name for one in dataclasses.fields(Row)} - {"task_id"}
    assert names <= {one.name for one in dataclasses.fields(Task)}
    assert not names & {"request", "outputs", "videos", "callback_url", "external_task_id", "task_token", "tenant"}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("phase", Phase)
def test_ends_that_contradict(phase: Phase, status: Status | None) -> None:
    wrong: dict[Any, Any] = {
        (Phase.FAILED, "succeed"): [FindingType.NOT_KEPT],
        (Phase.EXPIRED, "succeed"): [FindingType.NOT_KEPT],
        (Phase.SUCCEEDED, "failed"): [FindingType.END_DIFFERS],
    }
    assert compare(row(phase), ProviderTask("a", status)) == wrong.get((phase, status), [])


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [("1.5", "1.50", True), ("1.5", "1", False), (None, "1", True), ("1", None, True), ("free", "1", False)],
)
def test_amounts(ours: str | None, theirs: str | None, same: bool) -> None:
    found = compare(row(Phase.SUCCEEDED, units=ours), ProviderTask("a", "succeed", units=theirs))
    assert found == ([] if same else [FindingType.UNITS_DIFFER])


@given(rows, snaps)
def test_what_is_on_its_way_or_deleted_contradicts_nothing(one: Row, provider_task: ProviderTask) -> None:
    found = compare(one, provider_task)
    if one.phase not in CLOSED or one.deleted_at is not None:
        assert found in ([], [FindingType.WRONG_TASK])
    assert (FindingType.WRONG_TASK in found) == (provider_task.reference not in (None, ID))


@given(rows, snaps)
def test_equal_ends_and_equal_amounts_are_sound(one: Row, provider_task: ProviderTask) -> None:
    status: Any = {Phase.SUCCEEDED: "succeed", Phase.FAILED: "failed", Phase.EXPIRED: "failed"}.get(one.phase)
    agreed = dataclasses.replace(provider_task, status=status, units=one.units, reference=ID)
    assert compare(one, agreed) == []


@given(rows, snaps)
def test_no_row_in_flight_is_named(one: Row, provider_task: ProviderTask) -> None:
    assume(in_flight(one, NOW, SETTLE))
    assert alone(one, NOW, SETTLE) == [] and question(one, NOW, SETTLE) is None
    if one.upstream_id is None:
        assert unowned(one, provider_task, NOW, SETTLE) == []


@given(rows)
def test_nothing_younger_than_the_settle_window_is_out_of_flight(one: Row) -> None:
    if not in_flight(one, NOW, SETTLE):
        assert max(one.created_at, one.claimed_at or 0, one.unsure_since or 0) <= NOW - SETTLE
        assert one.phase is not Phase.SUBMITTING or (one.lease_until or 0) < NOW


@given(rows, snaps)
def test_a_task_without_an_owner_is_always_named_but_in_flight(one: Row, provider_task: ProviderTask) -> None:
    assert unowned(None, provider_task, NOW, SETTLE) == [FindingType.NO_ROW]
    if one.upstream_id is not None:
        assert unowned(one, provider_task, NOW, SETTLE) == [FindingType.BILLED_TWICE]
    elif not in_flight(one, NOW, SETTLE):
        expected = FindingType.UNCONFIRMED if one.phase in BEGUN else FindingType.NOT_ADOPTED
        assert unowned(one, provider_task, NOW, SETTLE) == [expected]


@given(rows)
def test_a_parked_row_is_always_named(one: Row) -> None:
    parked = one.upstream_id is None and one.phase in BEGUN and not in_flight(one, NOW, SETTLE)
    assert alone(one, NOW, SETTLE) == ([FindingType.UNCONFIRMED] if parked else [])


@given(rows, st.none() | snaps, st.none() | st.sampled_from([ID, OTHER]))
def test_answers(one: Row, answer: ProviderTask | None, owner: str | None) -> None:
    denied = answered(one, None, True, None, NOW)
    assert denied in ([], [FindingType.DENIED])
    if denied:
        assert one.upstream_id is not None and one.deleted_at is None and one.created_at > NOW - 29 * DAY
    found = answered(one, answer, False, owner, NOW)
    if one.deleted_at is not None:
        assert found == []
    elif one.upstream_id is not None:
        assert found == (compare(one, answer) if answer is not None else []), "no answer proves nothing"
    elif answer is not None and answer.reference in (None, ID) and owner != OTHER:
        assert found == [FindingType.NOT_ADOPTED]
    else:
        assert found == ([FindingType.UNCONFIRMED] if one.phase is Phase.FAILED else [])


def test_what_is_found_by_our_reference_but_owned_by_another_is_not_ours() -> None:
    doubted, found = row(Phase.FAILED, upstream_id=None, unsure_since=1), ProviderTask("b", "succeed")
    for owner, what in (
        (None, FindingType.NOT_ADOPTED),
        (ID, FindingType.NOT_ADOPTED),
        (OTHER, FindingType.UNCONFIRMED),
    ):
        assert answered(doubted, found, False, owner, NOW) == [what]


@given(rows)
def test_whom_a_question_is_worth(one: Row) -> None:
    by = question(one, NOW, SETTLE)
    assert by != "id" or one.upstream_id is not None
    assert by != "reference" or (one.unsure_since is not None and one.phase in (Phase.FAILED, Phase.ACCEPTED))
    assert not (by and alone(one, NOW, SETTLE)), "who is named by itself needs no question"


def test_the_riskiest_are_asked_first_and_then_the_newest() -> None:
    asked = [
        row(Phase.EXPIRED, created_at=2),
        row(Phase.FAILED, created_at=1),
        row(Phase.SUCCEEDED, created_at=4),
        row(Phase.PROCESSING, created_at=3),
    ]
    assert sorted(asked[::-1], key=urgency, reverse=True) == asked


@given(st.sampled_from(FindingType), st.none() | rows, snaps, st.text())
def test_names_are_fit_for_a_log(what: FindingType, one: Row | None, provider_task: ProviderTask, text: str) -> None:
    strange = dataclasses.replace(provider_task, upstream_id=text, reference=text)
    named = finding(what, one, strange, "image2video")
    for shown in (named.task_id, named.upstream_id):
        assert len(shown) <= 64 and (shown.isprintable() or shown == "")
    assert named.theirs in (*get_args(Status), "?")
