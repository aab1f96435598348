"""Test the spend equation over whole lives: every way to end, and ends in any order. Deaths: tests/reliability."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kling_relay.api import delete
from kling_relay.dynamodb import ConflictError
from kling_relay.lifecycle import poll
from kling_relay.tasks import idempotency
from kling_relay.tasks.task import MOVES, Phase, Task

from tests.support.spend_equation import verified_spend
from tests.support.stack_in_memory import BODY, CLOSED, START, Cloud, Crash, World, client_error
from tests.support.table_fixtures import new_task

TABLE_IN_MEMORY = True
MONTH = ("acme", "2026-09")
SHORT = {"deadline_seconds": 500, "settle_seconds": 30, "monthly_cap_units": 100}
BLIND = {"profile": {"ask_by_reference": False}}
FAIL = {"on_unconfirmed": "fail"}
# name: (what the provider does to POSTs, what else is set, what the task has committed in the end if nobody dies)
ENDS: dict[str, tuple[list[str], dict[str, Any], int]] = {
    "delivered": ([], {}, 1300),
    "answer_lost": (["lost"], {}, 1300),
    "parked": (["dropped"], {}, 1500),
    "unconfirmed_fails": (["dropped"], FAIL, 1500),
    "refused": (["refused"], {}, 0),
    "refused_after_doubt": (["dropped", "refused"], {"on_unconfirmed": "retry"}, 1500),
    "never_sent": (["not_sent"] * 50, {}, 0),
    "no_room": (["no_room"], {}, 1300),
    "fails": ([], {"end": "failed"}, 0),
    "fails_without_a_price": ([], {"end": "failed", "units": None}, 1500),
    "no_price": ([], {"units": None}, 1500),
    "dearer": ([], {"units": "2.75"}, 2750),
    "copied_late": ([], {"copies": ["source_expired"] * 3}, 1300),
    "blind": (["lost"], BLIND, 1500),
    "expires_then_delivers": ([], {"seconds": 40_000.0}, 1300),
    "expires_then_fails": ([], {"seconds": 40_000.0, "end": "failed"}, 0),
}


def world_of(cloud: Any, name: str) -> World:
    faults, options, _ = ENDS[name]
    own = {key: value for key, value in options.items() if key in ("profile", "on_unconfirmed")}
    world = World(cloud, **SHORT, **own)
    world.key()
    provider = world.provider
    provider.submit_faults, provider.end = list(faults), options.get("end", "succeed")
    provider.seconds = options.get("seconds", 60.0)
    world.copy_faults = list(options.get("copies", []))
    units, real = options.get("units", "1.3"), provider._snapshot

    def priced(sold: Any, fault: str) -> Any:
        provider_task = real(sold, fault)
        price = {"succeed": units, "failed": units and "0"}.get(provider_task.status or "")
        return replace(provider_task, units=price)

    provider._snapshot = priced  # type: ignore[method-assign]
    return world


def live(world: World) -> None:
    """A client that repeats what was not answered, then a day in which everybody else comes round."""
    for _ in range(2):
        with suppress(Crash):
            if world.post(BODY, **{"Idempotency-Key": "key-1"})[0] < 500:
                break
        verified_spend(world)
    for seconds, step in [*[(180, 60)] * 5, *[(12 * 3600, 3 * 3600)] * 2]:
        with suppress(Crash, BotoCoreError):  # a sweep fails as a whole, and comes again
            world.run(seconds, step=step)
        verified_spend(world)


@pytest.mark.parametrize("name", ENDS)
def test_every_end(cloud: Cloud, name: str) -> None:
    world = world_of(cloud, name)
    live(world)
    (task,) = world.tasks()
    assert task.phase in CLOSED and verified_spend(world) == {MONTH: ENDS[name][2]} == {MONTH: task.committed}
    paid = [sold for sold in world.provider.sold if sold.end == "succeed"]
    assert task.committed or not paid, "what was paid for is never released"


def test_a_cancelled_task_gives_everything_back(cloud: Cloud) -> None:
    world = World(cloud, **SHORT)
    world.provider.submit_faults = ["no_room"]
    task = world.create()
    assert verified_spend(world) == {MONTH: 1500}
    path = f"/v1/videos/image2video/{task.id}"
    for _ in range(2):
        assert world.http("DELETE", path, authorization=world.key())[0] == 200
    assert verified_spend(world) == {MONTH: 0} and world.task(task.id).settled == 0


def test_a_deleted_expired_task_keeps_what_may_have_been_paid(cloud: Cloud) -> None:
    world = World(cloud, **SHORT)
    world.provider.seconds = 40_000
    task = world.until_closed(world.create().id)
    assert task.phase is Phase.EXPIRED
    assert delete.remove(world.services, task).phase is Phase.FAILED
    assert verified_spend(world) == {MONTH: 1500}
    done = world.until_closed(world.create().id)
    assert verified_spend(world) == {MONTH: 1500 + done.committed}


def test_a_price_that_comes_with_a_second_look(cloud: Cloud) -> None:
    """The render was told without one; the copy failed, and the provider is asked again."""
    world = world_of(cloud, "no_price")
    world.copy_faults = ["source_expired"]
    task = world.create()
    world.clock.tick(61)
    world.callback(task)
    assert (world.task(task.id).phase, world.task(task.id).settled) == (Phase.RENDERED, None)
    del world.provider._snapshot  # the ledger's own: 1.5 units
    world.provider.seconds = 1.0
    assert world.until_closed(task.id).settled == 1500 == verified_spend(world)[MONTH]


def test_a_render_that_is_dearer_than_its_estimate_is_reported(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(cloud, "dearer")
    said: list[tuple[str, Any]] = []
    monkeypatch.setattr(poll.logger, "warning", lambda text, extra: said.append((text, extra)))
    task = world.until_closed(world.create().id)
    assert task.settled == 2750
    assert said == [
        ("cost_above_estimate", {"model": "kling-v2-5-turbo", "units": "2.75", "task_id": task.id}),
    ]


def test_the_equation_would_notice_money_that_is_moved_alone(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check bites: a settlement that is not in the move's own transaction is found at the first death."""
    world = world_of(cloud, "delivered")
    task = world.create()
    real = world.table.rows.transact

    def apart(items: list[dict[str, Any]], token: str) -> None:
        world.table.rows.client.update_item(**items[0]["Update"])
        raise client_error("InternalServerError")

    monkeypatch.setattr(world.table.rows, "transact", apart)
    with pytest.raises(Exception, match="InternalServerError"):
        world.table.move(task, Phase.RENDERED, units="1", outputs=[], updated_at=START)
    monkeypatch.setattr(world.table.rows, "transact", real)
    with pytest.raises(AssertionError, match="money equation"):
        verified_spend(world)


Act = tuple[int, Phase | None, str | None, bool]
ACTS = st.tuples(
    st.integers(0, 2),
    st.sampled_from([None, *Phase]),
    st.sampled_from([None, "0", "0.5", "1.5", "7", "nonsense"]),
    st.booleans(),
)


def test_ends_in_any_order_with_old_knowledge(cloud: Cloud) -> None:
    """Any moves of three tasks, by callers whose knowledge of the row may be as old as the task."""

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(ACTS, max_size=10))
    def play(acts: list[Act]) -> None:
        world = World(cloud)
        known: list[list[Task]] = []
        budget = world.services.spending
        budget.set_cap("acme", 100_000)
        for _ in range(3):
            task = new_task(reserved=1500, spend_month="2026-09")
            known.append([idempotency.record(world.table, task, body_hash="h", budget=budget.budget("acme", START))])
        assert verified_spend(world) == {MONTH: 4500}
        for which, to, units, newest in acts:
            task = known[which][-1] if newest else known[which][0]
            changes: dict[str, Any] = {} if units is None else {"units": units}
            if to is Phase.UNCONFIRMED:
                changes["unsure_since"] = START
            with suppress(ConflictError, ValueError):  # the widest condition that any move may have
                known[which].append(
                    world.table.move(task, to, also=() if to is None else MOVES[to], updated_at=START, **changes)
                )
            verified_spend(world)

    play()


def test_every_move_that_the_table_knows_can_settle(cloud: Cloud) -> None:
    """Whichever phases a price is learned between: in the table of moves none is forgotten."""
    world = World(cloud, monthly_cap_units=1000)
    for to, froms in MOVES.items():
        for at in sorted(froms):
            fields = {"reserved": 1500, "spend_month": "2026-09", "phase": at, "unsure_since": 1}
            task = idempotency.record(
                world.table, new_task(**fields), body_hash="h", budget=world.services.spending.budget("acme", START)
            )
            assert world.table.move(task, to, units="0.7", updated_at=START).settled == 700
    verified_spend(world)
