"""Test these campaigns themselves: each protection is removed in turn, and the campaign fails."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from kling_relay.dynamodb import Rows
from kling_relay.lifecycle import polling, queue, sweep
from kling_relay.provider.admission import AdmissionStore
from kling_relay.tasks import fair_queue, idempotency, spend_cap

from tests.reliability import test_bursts, test_crowds, test_spend_cap
from tests.reliability.campaign import Campaign

Patch = pytest.MonkeyPatch


def no_condition_on_the_month(patch: Patch) -> None:
    real = spend_cap.raised

    def raised(*given: Any) -> dict[str, Any]:
        part = real(*given)
        part["Update"]["ConditionExpression"] = "attribute_not_exists(#committed) OR attribute_exists(#committed)"
        del part["Update"]["ExpressionAttributeValues"][":room"], part["Update"]["ExpressionAttributeNames"]["#pk"]
        return part

    patch.setattr(spend_cap, "raised", raised)


def no_condition_on_the_pointers(patch: Patch) -> None:
    """Also not before the transaction: two that come at once see nothing of each other."""
    real = idempotency._pointer

    def pointer(*given: Any) -> dict[str, Any]:
        put = real(*given)["Put"]
        return {"Put": {key: put[key] for key in ("TableName", "Item")}}

    patch.setattr(idempotency, "_pointer", pointer)


def bodies_are_not_compared(patch: Patch) -> None:
    patch.setattr("kling_relay.api.create._hash", lambda request: request.kind)


def the_oldest_first(patch: Patch) -> None:
    patch.setattr(queue, "fair_order", lambda waiting, last="": [task_id for task_id, _ in waiting])


def turns_by_age_alone(patch: Patch) -> None:
    patch.setattr(fair_queue, "oldest_of_each", lambda *_: [])


def turns_are_forgotten(patch: Patch) -> None:
    patch.setattr(AdmissionStore, "record_turn", lambda *_: None)


def nobody_gives_up_a_place(patch: Patch) -> None:
    patch.setattr(queue, "on_slot_freed", lambda services: None)


def a_probe_brings_nobody(patch: Patch) -> None:
    patch.setattr(AdmissionStore, "mark_unknown", lambda *_: None)


def a_pause_longer_than_a_sweep(patch: Patch) -> None:
    patch.setattr(polling, "NO_ROOM_SECONDS", 100.0)


def a_handful_a_sweep(patch: Patch) -> None:
    real = queue.start_waiting
    for module in (queue, sweep):
        patch.setattr(module, "start_waiting", lambda services, room: real(services, 20))


def every_claim_is_won(patch: Patch) -> None:
    real = Rows.expression

    def expression(rows: Rows, pk: str, update: str, condition: str, **values: Any) -> dict[str, Any]:
        if values.get("phase") == "submitting":
            values |= {name: "submitting" for name in values if name == "from0"}
            condition = condition.replace("#phase IN (:from0)", "(attribute_exists(#phase) OR #phase = :from0)")
            condition = condition.replace("#attempt = :seen", "#attempt >= :seen")
        return real(rows, pk, update, condition, **values)

    patch.setattr(Rows, "expression", expression)


SABOTAGES: list[tuple[Callable[[Patch], None], Callable[[Campaign], None], str]] = [
    (no_condition_on_the_month, test_spend_cap.test_spend_cap, "overspent|sold more"),
    (no_condition_on_the_pointers, test_bursts.test_duplicate_bursts, "one POST|assert"),
    (every_claim_is_won, test_bursts.test_duplicate_bursts, "one POST|billed twice"),
    (bodies_are_not_compared, test_bursts.test_changed_bodies, "assert"),
    (the_oldest_first, test_crowds.test_crowd, "starved"),
    (turns_by_age_alone, test_crowds.test_crowd_behind_a_long_list, "starved"),
    (turns_are_forgotten, test_crowds.test_crowd, "starved"),
    (nobody_gives_up_a_place, test_crowds.test_crowd, "a slot was free|<= 12"),
    (a_probe_brings_nobody, test_crowds.test_crowd_on_a_shared_account, "a slot was free"),
    (a_pause_longer_than_a_sweep, test_crowds.test_crowd_without_room_for_an_hour, "a slot was free"),
    (a_handful_a_sweep, test_crowds.test_crowd, "<= 12"),
]


@pytest.mark.parametrize(("sabotage", "test", "reason"), SABOTAGES, ids=[one[0].__name__ for one in SABOTAGES])
def test_is_noticed(
    sabotage: Callable[[Patch], None], test: Callable[[Campaign], None], reason: str, monkeypatch: Patch
) -> None:
    sabotage(monkeypatch)
    random.seed(1)
    with pytest.raises(AssertionError, match=reason):
        test(Campaign(test.__name__.removeprefix("test_")))
