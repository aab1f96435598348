"""Test caps: accepted and refused estimates, the cap of each tenant, and a stack without a cap."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from kling_relay import dynamodb
from kling_relay.dynamodb import ConflictError
from kling_relay.errors import KlingError
from kling_relay.provider import responses
from kling_relay.provider.outcomes import Found
from kling_relay.tasks import idempotency
from kling_relay.tasks.spend_cap import Budget, Spending
from kling_relay.tasks.task import Phase, Task

from tests.support.spend_equation import verified_spend
from tests.support.stack_in_memory import BODY, START, Cloud, World, client_error
from tests.support.table_fixtures import before_a_write, new_task
from tests.unit.api.test_create import b64, png

TABLE_IN_MEMORY = True
MONTH = "2026-09"
HALF_MONTH = 15 * 86_400


@pytest.fixture
def capped(cloud: Cloud) -> World:
    """BODY reserves 1.5 units: three tasks fit."""
    return World(cloud, monthly_cap_units=5)


@pytest.fixture
def capped_in_moto(cloud: Cloud) -> World:
    """With its table there, too: the SDK's repetitions reach no table in memory."""
    return World(Cloud(), monthly_cap_units=5)


def operate(world: World, action: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = world.call("operate_tasks", {"action": action, **more})
    return answer


def fill(world: World, count: int, **options: str) -> list[Task]:
    return [world.create(**options) for _ in range(count)]


# -- what fits and what does not


def test_at_the_cap_it_is_refused_and_nothing_is_left_behind(capped: World) -> None:
    fill(capped, 3)
    posts, before = len(capped.provider.posts), capped.dynamodb.scan(TableName=capped.table.rows.name)["Items"]
    objects = capped.cloud.s3.list_objects_v2(Bucket="inputs").get("KeyCount")
    body = {**BODY, "image": b64(png()), "external_task_id": "order-1"}
    status, answer = capped.post(body, **{"Idempotency-Key": "key-1"})
    assert (status, answer["code"]) == (429, 1102) and "data" not in answer
    assert answer["message"] == (
        "monthly cap: 5 units are allowed in 2026-09 (UTC), 4.5 are committed, this task needs up to 1.5"
    )
    assert "resource pack" not in answer["message"], "clients take that for something else"
    assert len(capped.provider.posts) == posts
    assert capped.dynamodb.scan(TableName=capped.table.rows.name)["Items"] == before
    assert capped.cloud.s3.list_objects_v2(Bucket="inputs").get("KeyCount") == objects
    assert verified_spend(capped) == {("acme", MONTH): 4500}


def test_to_the_last_thousandth(cloud: Cloud) -> None:
    world = World(cloud, monthly_cap_units=3)
    fill(world, 2)
    assert verified_spend(world) == {("acme", MONTH): 3000}
    assert world.post()[0] == 429
    dear = World(cloud, monthly_cap_units=1)
    assert dear.post()[1]["code"] == 1102, "the first of a month, when there is no row yet"
    assert verified_spend(dear) == {} and dear.tasks() == []


def test_a_repeated_request_is_answered_at_the_cap_too(capped: World) -> None:
    first = capped.create({**BODY, "external_task_id": "order-1"})
    fill(capped, 2)
    assert capped.create({**BODY, "external_task_id": "order-1"}).id == first.id
    status, answer = capped.post({**BODY, "external_task_id": "order-1", "prompt": "another"})
    assert (status, answer["code"]) == (400, 1201)


def test_what_was_refused_at_the_cap_comes_again_under_the_same_values(capped: World) -> None:
    fill(capped, 3)
    again = {**BODY, "external_task_id": "order-1"}
    assert capped.post(again, **{"Idempotency-Key": "key-1"})[0] == 429
    operate(capped, "set_cap", tenant="acme", units=6)
    assert capped.post(again, **{"Idempotency-Key": "key-1"})[0] == 200


def test_months_and_tenants_are_apart(capped: World) -> None:
    fill(capped, 3)
    assert capped.post(tenant="umbrella")[0] == 200
    capped.clock.tick(HALF_MONTH)
    assert capped.post()[0] == 200
    months = {("acme", MONTH): 4500, ("umbrella", MONTH): 1500, ("acme", "2026-10"): 1500}
    assert verified_spend(capped) == months


def test_the_price_is_that_of_the_defaults_where_nothing_is_said(cloud: Cloud) -> None:
    world = World(cloud, monthly_cap_units=9, default_model_image2video="kling-v2-6")
    task = world.create({"image": BODY["image"]})
    assert (task.reserved, task.spend_month, task.settled) == (1500, MONTH, None)


def test_without_a_cap_nothing_more_is_written(world: World) -> None:
    task = world.create()
    world.until_closed(task.id)
    rows = world.dynamodb.scan(TableName=world.table.rows.name)["Items"]
    assert [row["pk"]["S"] for row in rows if row["pk"]["S"].startswith(("spend#", "cap#", "control"))] == []
    assert not {"reserved", "settled", "spend_month"} & set(world.row(f"task#{task.id}"))
    assert world.effects.names.count("transact_write_items") == 3, "a key, the record, the adoption"


def test_the_transaction_alone_refuses_what_never_fits(world: World) -> None:
    """More than the whole cap, in a month without a row: nobody has looked before."""
    task = new_task(reserved=1500, spend_month=MONTH)
    with pytest.raises(KlingError, match="1 units are allowed in 2026-09") as refused:
        idempotency.record(world.table, task, body_hash="h", budget=Budget(MONTH, 1000, 0))
    assert refused.value.code == 1102 and world.tasks() == [] and verified_spend(world) == {}


# -- whose cap


def test_a_tenants_own_cap_and_the_stacks(capped: World) -> None:
    shown = {"month": MONTH, "cap_units": 5.0, "own_cap": False, "committed_units": 0.0}
    assert operate(capped, "spend", tenant="acme") == shown
    assert operate(capped, "set_cap", tenant="acme", units=2) == {**shown, "cap_units": 2.0, "own_cap": True}
    fill(capped, 1)
    assert capped.post()[0] == 429 and capped.post(tenant="umbrella")[0] == 200
    assert operate(capped, "set_cap", tenant="acme", units=0)["cap_units"] == 0, "none, whatever the stack says"
    (free,) = fill(capped, 1)
    assert free.reserved is None
    assert operate(capped, "set_cap", tenant="acme", units=None)["own_cap"] is False
    assert operate(capped, "spend", tenant="acme") == {**shown, "committed_units": 1.5}
    for _ in range(2):
        assert operate(capped, "set_cap", tenant="acme", units=7)["cap_units"] == 7


@pytest.mark.parametrize("units", [-1, 1.5, "5", True, 1_000_001, [], float("nan")])
def test_caps_that_are_none(world: World, units: Any) -> None:
    with pytest.raises(ValueError, match="units: must be a whole number from 0"):
        operate(world, "set_cap", tenant="acme", units=units)
    with pytest.raises(ValueError, match="tenant: must be 1 to 63"):
        operate(world, "set_cap", tenant="A#cme", units=1)
    assert operate(world, "spend", tenant="acme")["own_cap"] is False


# -- at once


def handler(table: Any, spending: Spending, task: Task) -> Iterator[str]:
    """What intake does with money, one step at a time."""
    budget = spending.budget(task.tenant, START)
    assert budget is not None
    yield "read"
    try:
        budget.check(task.reserved or 0)
        idempotency.record(table, task, body_hash="h", budget=budget)
        yield "recorded"
    except KlingError as exc:
        assert exc.code == 1102
        yield "refused"


def test_every_order_of_three_handlers_at_the_cap(cloud: Cloud) -> None:
    """Room for one more: whoever reads what when, exactly one is recorded."""
    orders = sorted(set(itertools.permutations([0, 0, 1, 1, 2, 2])))
    for order in orders:
        world = World(cloud)
        spending = Spending(world.table.rows, 2999)
        first = new_task(reserved=1500, spend_month=MONTH)
        assert list(handler(world.table, spending, first)) == ["read", "recorded"]
        handlers = [
            handler(world.table, spending, new_task(reserved=1499, spend_month=MONTH)),
            handler(world.table, spending, new_task(reserved=1499, spend_month=MONTH)),
            handler(world.table, spending, new_task(reserved=1500, spend_month=MONTH)),
        ]
        said = [(who, next(handlers[who])) for who in order]
        results = [what for _, what in said if what != "read"]
        assert sorted(results) == ["recorded", "refused", "refused"], order
        assert (2, "refused") in said and verified_spend(world) == {("acme", MONTH): 2999}
    assert len(orders) == 90


def test_the_figure_is_told_as_it_was_when_the_race_was_lost(capped: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(capped, 2)
    before_a_write(capped.table, monkeypatch, lambda: fill(capped, 1))
    status, answer = capped.post({**BODY, "external_task_id": "order-1"})
    assert (status, answer["code"]) == (429, 1102)
    assert answer["message"].endswith("4.5 are committed, this task needs up to 1.5")
    assert len(capped.tasks()) == 3 == len(capped.provider.posts)
    assert capped.row("external#acme#order-1") == {}


@pytest.mark.parametrize("at_the_cap", [False, True])
def test_a_failed_tasks_place_is_taken_under_a_cap(cloud: Cloud, at_the_cap: bool) -> None:
    world = World(cloud, monthly_cap_units=2)
    world.provider.submit_faults = ["refused"]
    assert world.post({**BODY, "external_task_id": "order-1"})[0] == 400
    assert verified_spend(world) == {("acme", MONTH): 0}
    if at_the_cap:
        fill(world, 1)
    status, answer = world.post({**BODY, "external_task_id": "order-1", "prompt": "corrected"})
    assert (status, answer["code"]) == ((429, 1102) if at_the_cap else (200, 0))
    assert verified_spend(world) == {("acme", MONTH): 1500}


def test_the_cap_is_reached_while_a_failed_tasks_place_is_taken(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The condition of the transaction alone says so, beside a pointer that has to be replaced first."""
    world = World(cloud, monthly_cap_units=2)
    world.provider.submit_faults = ["refused"]
    world.post({**BODY, "external_task_id": "order-1"})
    before_a_write(world.table, monkeypatch, lambda: fill(world, 1))
    status, answer = world.post({**BODY, "external_task_id": "order-1", "prompt": "corrected"})
    assert (status, answer["code"]) == (429, 1102)
    assert verified_spend(world) == {("acme", MONTH): 1500}


def test_a_busy_month_is_too_many_requests(capped: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(dynamodb.time, "sleep", pauses.append)
    real = capped.cloud.dynamodb.transact_write_items
    capped.key()
    busy = [True]

    def transact(**options: Any) -> Any:
        if busy and len(options["TransactItems"]) > 1:
            raise client_error(
                "TransactionCanceledException", CancellationReasons=[{"Code": "None"}, {"Code": "TransactionConflict"}]
            )
        return real(**options)

    monkeypatch.setattr(capped.cloud.dynamodb, "transact_write_items", transact)
    event = {"httpMethod": "POST", "path": "/v1/videos/image2video", "body": json.dumps(BODY)}
    event |= {"headers": {"authorization": capped.key()}, "requestContext": {"requestId": "r"}}
    answer = capped.call("task_api", {**event, "isBase64Encoded": False, "queryStringParameters": None})
    assert answer["statusCode"] == 429 and json.loads(answer["body"])["code"] == 1302
    assert answer["multiValueHeaders"]["Retry-After"] == ["1"]
    assert len(pauses) == 7 and capped.tasks() == [] and capped.provider.posts == []
    busy.clear()
    fill(capped, 1)


# -- settling, at the table


def rendered(world: World, units: str | None = "1.2") -> Task:
    (task,) = fill(world, 1)
    return world.table.move(task, Phase.RENDERED, units=units, outputs=[], updated_at=START)


def test_two_who_learn_the_price_settle_once(capped: World) -> None:
    (task,) = fill(capped, 1)
    world = capped
    world.table.move(task, Phase.RENDERED, units="1.2", outputs=[], updated_at=START)
    expired = world.table.move(world.task(task.id), Phase.EXPIRED, updated_at=START)
    with pytest.raises(ConflictError):  # its phase would allow it: rendered follows expired
        world.table.move(task, Phase.RENDERED, units="1.2", outputs=[], updated_at=START)
    assert verified_spend(world) == {("acme", MONTH): 1200}
    again = world.table.move(expired, Phase.RENDERED, units="1.4", outputs=[], updated_at=START)
    assert again.settled == 1400 and verified_spend(world) == {("acme", MONTH): 1400}, "the provider's last word"


def test_an_estimate_that_was_right_touches_no_month(capped: World) -> None:
    (task,) = fill(capped, 1)
    before = capped.effects.names.count("transact_write_items")
    settled = capped.table.move(task, Phase.RENDERED, units="1.5", outputs=[], updated_at=START)
    assert settled.settled == 1500 and verified_spend(capped) == {("acme", MONTH): 1500}
    assert capped.effects.names.count("transact_write_items") == before


@pytest.mark.parametrize("units", [None, "", "many", "-3", "1e99"])
def test_a_price_that_nobody_can_read_leaves_the_reservation(capped: World, units: str | None) -> None:
    assert rendered(capped, units).settled is None
    assert verified_spend(capped) == {("acme", MONTH): 1500}


@pytest.mark.parametrize("units", ["1.2", "0"])
def test_the_lost_answer_to_a_settlement_is_success(
    capped_in_moto: World,
    units: str,
    drop_response: Callable[[str], None],
) -> None:
    (task,) = fill(capped_in_moto, 1)
    drop_response("TransactWriteItems")  # moto carries a repeated transaction out again: the conditions have to hold
    settled = capped_in_moto.table.move(task, Phase.RENDERED, units=units, outputs=[], updated_at=START)
    assert settled == capped_in_moto.task(task.id) and settled.phase is Phase.RENDERED
    assert verified_spend(capped_in_moto) == {("acme", MONTH): int(float(units) * 1000)}


def test_the_lost_answer_to_a_reservation_is_success(
    capped_in_moto: World,
    drop_response: Callable[[str], None],
) -> None:
    capped_in_moto.key()
    for key in (None, "key-1"):
        drop_response("TransactWriteItems")
        assert capped_in_moto.post(**({} if key is None else {"Idempotency-Key": key}))[0] == 200
    assert len(capped_in_moto.tasks()) == 2 and verified_spend(capped_in_moto) == {("acme", MONTH): 3000}


def test_the_lost_answer_to_the_reservation_that_fills_the_cap(
    cloud: Cloud,
    drop_response: Callable[[str], None],
) -> None:
    """Repeated, it does not fit any more; but it is on record."""
    world = World(Cloud(), monthly_cap_units=2)
    world.key()
    drop_response("TransactWriteItems")
    assert world.post()[0] == 200 and verified_spend(world) == {("acme", MONTH): 1500}


def test_a_month_that_stays_busy_leaves_the_move_to_the_next_try(
    capped: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamodb.time, "sleep", lambda _: None)
    (task,) = fill(capped, 1)

    def busy(**_: Any) -> Any:
        raise client_error("TransactionCanceledException", CancellationReasons=[{"Code": "TransactionConflict"}])

    monkeypatch.setattr(capped.cloud.dynamodb, "transact_write_items", busy)
    with pytest.raises(ClientError, match="TransactionCanceled"):
        capped.table.move(task, Phase.RENDERED, units="1", outputs=[], updated_at=START)
    monkeypatch.undo()
    assert capped.task(task.id) == task
    assert capped.until_closed(task.id).settled == 1500
    assert verified_spend(capped) == {("acme", MONTH): 1500}


def test_the_month_outlives_its_tasks(capped: World) -> None:
    task = capped.until_closed(fill(capped, 1)[0].id)
    ends = int(capped.row(f"task#{task.id}")["expires_at"]["N"])
    assert ends < int(capped.row(f"spend#acme#{MONTH}")["expires_at"]["N"])


# -- accounts that pay in cash


@pytest.mark.parametrize(
    ("charged", "settled"),
    [
        ({"final_unit_deduction": "0", "final_balance_deduction": {"quota": "0.21", "list_price": "0.21"}}, None),
        ({"final_balance_deduction": {"quota": "0.21", "list_price": "0.21"}}, None),
        ({"final_unit_deduction": "0", "final_balance_deduction": {"quota": "0", "list_price": "0"}}, 0),
        ({"final_unit_deduction": "1.2", "final_balance_deduction": {"quota": "0.21", "list_price": "0.21"}}, 1200),
    ],
)
def test_no_units_beside_a_charge_in_cash_leave_the_reservation(
    capped: World, monkeypatch: pytest.MonkeyPatch, charged: dict[str, Any], settled: int | None
) -> None:
    """That such an account states 0 units, or none, is a guess: nobody has captured an answer to one."""
    (task,) = fill(capped, 1)
    real = capped.provider.query

    def query(kind: str, upstream_id: str) -> Any:
        found = real(kind, upstream_id)
        videos = {"task_result": {"videos": list(found.provider_task.videos)}}
        data = {
            "task_id": found.provider_task.upstream_id,
            "task_status": found.provider_task.status,
            **videos,
            **charged,
        }
        return Found(responses.read({"code": 0, "message": "SUCCEED", "data": data}))

    monkeypatch.setattr(capped.provider, "query", query)
    done = capped.until_closed(task.id)
    assert (done.phase, done.settled) == (Phase.SUCCEEDED, settled)
    assert done.cash == (None if settled == 0 else "0.21")
    assert verified_spend(capped) == {("acme", MONTH): 1500 if settled is None else settled}
    spent = 1.5 if settled is None else settled / 1000
    assert capped.measured["UnitsSpent"] == spent, "the day's spending alarm counts the estimate, too"
