"""Test an upgrade of a whole stack from c90a538: a task in every phase, keys, money, objects, secrets and executions.

Capture: the old version wrote all of it (tests/fixtures/c90a538.json). Document (AWS): a parameter that an update of a
stack does not name keeps its value, so the old default of OnUnconfirmed, "park", still applies there.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
from kling_relay.provider.credentials import entries, entry_of, key_in, webhook_secrets_in
from kling_relay.tasks.task import Phase
from moto import mock_aws

from kling_relay_cli.operators.provider_secret import with_key, with_webhook_secrets
from tests.reliability.upgrade import OFFICIAL, Upgraded, fixture
from tests.support.s3_inbox import empty
from tests.support.spend_equation import verified_spend
from tests.support.stack_in_memory import Cloud, World

TABLE_IN_MEMORY = True
CROWD: dict[str, Any] = fixture()["crowd"]
TASKS: dict[str, str] = CROWD["tasks"]
NOT_BOUGHT = {"parked_not_bought", "unconfirmed_denied_once", "unconfirmed_not_bought", "submitting_not_bought"}
QUICK = ("rendered", "accepted", "waiting", "submitted", "submitting", "unconfirmed")  # open, and soon to succeed
PATH = "/kling/v1/videos/image2video"
HOUR = 3600


def settled(cloud: Cloud, patch: pytest.MonkeyPatch, **profile: Any) -> Upgraded:
    stack = Upgraded(cloud, patch, profile=profile, **CROWD["settings"])
    stack.settle_in(CROWD)
    return stack


@pytest.fixture(params=[{}, OFFICIAL], ids=["as before", "official host"])
def stack(request: pytest.FixtureRequest, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Upgraded]:
    empty(World(cloud))
    yield settled(cloud, monkeypatch, **request.param)


@pytest.fixture
def stack_in_moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upgraded]:
    with mock_aws():
        yield settled(Cloud(), monkeypatch)


def tenant_of(name: str) -> str:
    return next(tenant for tenant, ids in CROWD["lists"].items() if TASKS[name] in ids)


def get(stack: Upgraded, name: str, reference: str = "") -> tuple[int, Any]:
    tenant = tenant_of(name)
    path = f"{PATH}/{reference or TASKS[name]}"
    status, answer = stack.world.http("GET", path, authorization=stack.world.key(tenant))
    return status, answer.get("data")


def without_signatures(told: Any) -> Any:
    """A task object whose addresses are paths alone: hosts and signatures differ at each answer."""
    if isinstance(told, dict):
        short = {name: urlsplit(given).path for name, given in told.items() if name in ("url", "watermark_url")}
        return {name: short.get(name, without_signatures(given)) for name, given in told.items()}
    return [without_signatures(one) for one in told] if isinstance(told, list) else told


def test_clients_read_what_they_read_before(stack: Upgraded) -> None:
    world = stack.world
    for name in TASKS:
        assert without_signatures(list(get(stack, name))) == without_signatures(CROWD["answers"][name]), name
    for tenant, ids in CROWD["lists"].items():
        _, answer = world.http("GET", f"{PATH}?pageSize=100", authorization=world.key(tenant))
        assert [one["task_id"] for one in answer["data"]] == ids
    assert get(stack, "succeeded", "order-1")[1]["task_id"] == TASKS["succeeded"]
    assert world.http("GET", f"{PATH}/{TASKS['succeeded']}", authorization=world.key("globex"))[0] == 404
    keys, now = CROWD["keys"]["acme"], world.clock.now // 1000
    claims = {"iss": keys["access_key"], "exp": now + 1800, "nbf": now - 5}
    token = f"Bearer {jwt.encode(claims, keys['secret_key'], algorithm='HS256')}"
    assert world.http("GET", f"{PATH}/{TASKS['succeeded']}", authorization=token)[0] == 200


def test_the_same_request_finds_its_old_task(stack: Upgraded) -> None:
    world, sold = stack.world, len(stack.world.provider.sold)
    body = CROWD["request"]
    for headers in ({"Idempotency-Key": "key-1"}, {}):
        assert world.post(body, **headers)[1]["data"]["task_id"] == TASKS["succeeded"]
    status, answer = world.post({**body, "prompt": "another"}, **{"Idempotency-Key": "key-1"})
    assert status in (400, 409) and answer["code"] == 1201
    assert len(world.provider.sold) == sold


@pytest.mark.parametrize("callbacks", [True, False])
def test_every_task_ends_as_it_must(stack: Upgraded, callbacks: bool) -> None:
    if callbacks:
        stack.world.run(100)
        stack.call_back()
    all_end(stack)


def test_the_first_minutes_with_moto(stack_in_moto: Upgraded) -> None:
    """What the table in memory believes of DynamoDB is checked against moto: reads, moves, transactions, indexes."""
    stack, world = stack_in_moto, stack_in_moto.world
    test_clients_read_what_they_read_before(stack)
    world.run(250, step=100)
    at_once = [name for name in TASKS if name.startswith(QUICK) and name not in NOT_BOUGHT | {"submitted_sleeping"}]
    assert len(at_once) == 10
    for name in at_once:
        assert world.task(TASKS[name]).phase is Phase.SUCCEEDED, name
        delivered(stack, name)
    verified_spend(world)


def all_end(stack: Upgraded) -> None:
    world = stack.world
    world.run(1.2 * HOUR)
    for _ in range(5):  # the looks at expired tasks
        world.clock.tick(6.1 * HOUR)
        world.run(130)
    for name, task_id in TASKS.items():
        assert world.task(task_id).phase is end_of(stack, name), f"{name}: {world.task(task_id)}"  # billed at most once
        delivered(stack, name)
    verified_spend(world)


def end_of(stack: Upgraded, name: str) -> Phase:
    if name.startswith("failed"):
        return Phase.FAILED
    # Nobody may send again what is in doubt, unless the provider refuses a second one; and what has expired, never.
    unproved = name == "expired_unproved" or name in NOT_BOUGHT
    unique = stack.world.provider.profile.unique_reference and name in NOT_BOUGHT
    return Phase.EXPIRED if unproved and not unique else Phase.SUCCEEDED


def delivered(stack: Upgraded, name: str) -> None:
    """The client of a task can read what was paid for, each video once, and was told so."""
    task = stack.world.task(TASKS[name])
    if task.deleted_at is not None:
        return
    keys = [video["key"] for video in task.videos]
    assert {stack.video(key) for key in keys} == stack.bought(task.id), f"{name}: {task}"
    assert len(keys) == len(set(keys))
    shown = get(stack, name)[1].get("task_result", {"videos": []})["videos"]
    assert [urlsplit(one["url"]).path.lstrip("/") for one in shown] == keys
    assert not any(notice.event for notice in task.notices)


def test_old_tasks_are_deleted_with_their_files(stack: Upgraded) -> None:
    world = stack.world
    for name in ("succeeded", "succeeded_two", "succeeded_capped", "succeeded_dropped", "failed_refused", "expired"):
        key, task_id = world.key(tenant_of(name)), TASKS[name]
        assert stack.files(task_id) or not name.startswith("succeeded")
        assert world.http("DELETE", f"{PATH}/{task_id}", authorization=key)[0] == 200
        assert not stack.files(task_id)
    assert world.http("DELETE", f"{PATH}/{TASKS['processing']}", authorization=world.key())[0] == 409
    world.run(HOUR)
    assert all(world.task(TASKS[name]).due_at is None for name in ("succeeded", "succeeded_two", "expired"))


def test_cancelled_while_it_waits(stack: Upgraded) -> None:
    world = stack.world
    key, task_id = world.key("globex"), TASKS["waiting_behind"]
    assert world.http("DELETE", f"{PATH}/{task_id}", authorization=key)[0] == 200
    world.run(HOUR)
    assert not world.provider.billed(task_id) and world.task(task_id).phase is Phase.FAILED


def test_what_an_old_row_owns_is_no_other_tasks(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider hides references, so that the row which names the owner is all that tells them apart."""
    stack = settled(cloud, monkeypatch, hides_reference=True)
    owned = stack.world.task(TASKS["submitted"])
    assert owned.upstream_id is not None
    task = stack.world.task(TASKS["unconfirmed_not_bought"])
    stack.world.callback(task, {"task_id": owned.upstream_id, "task_status": "succeed"})
    stack.world.run(HOUR)
    assert stack.world.task(task.id).upstream_id is None
    assert stack.world.task(owned.id).phase is Phase.SUCCEEDED


# -- secrets

ACCOUNTS = ("kling@https://api-singapore.klingai.com#1", "cometapi@https://api.cometapi.com#1")


@pytest.mark.parametrize("old", fixture()["secrets"], ids=lambda old: old["stored"][:24])
def test_an_old_secret_is_every_accounts(old: dict[str, Any]) -> None:
    for account in ACCOUNTS:
        assert key_in(entry_of(old["stored"], account)) == old["key"]
    signs = [secret for entry in entries(old["stored"]).values() for secret in webhook_secrets_in(entry)]
    assert signs == old["webhook_secrets"]


@pytest.mark.parametrize("old", fixture()["secrets"], ids=lambda old: old["stored"][:24])
def test_an_old_secret_outlives_a_new_key(old: dict[str, Any]) -> None:
    """Tasks may be open at an account that has no entry yet."""
    stored = with_webhook_secrets(with_key(old["stored"], ACCOUNTS[0], "new-key"), ACCOUNTS[0], "whsec_bmV3")
    assert key_in(entry_of(stored, ACCOUNTS[0])) == "new-key"
    assert key_in(entry_of(stored, ACCOUNTS[1])) == old["key"]
    signs = [secret for entry in entries(stored).values() for secret in webhook_secrets_in(entry)]
    assert {"whsec_bmV3", *old["webhook_secrets"]} == set(signs)
