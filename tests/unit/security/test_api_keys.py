"""Test the scopes and the expiry of a key, and the operator's list and revocation."""

import json
from typing import Any

import jwt
import pytest
from kling_relay.security.api_keys import KeyRow

from tests.support.stack_in_memory import BODY, START, World

DAY = 86_400
VIDEOS = "/kling/v1/videos/image2video"


def operate(world: World, action: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = world.call("operate_tasks", {"action": action, **more})
    return answer


def issue(world: World, **more: Any) -> dict[str, Any]:
    return operate(world, "create_key", tenant="acme", **more)


def by_key(world: World, issued: dict[str, Any]) -> str:
    return f"Bearer {issued['api_key']}"


def by_token(world: World, issued: dict[str, Any]) -> str:
    now = world.clock.now // 1000
    claims = {"iss": issued["access_key"], "exp": now + 1800, "nbf": now - 5}
    return f"Bearer {jwt.encode(claims, issued['secret_key'], algorithm='HS256')}"


WAYS = pytest.mark.parametrize("way", [by_key, by_token])


def get(world: World, header: str) -> tuple[int, int, str]:
    status, body = world.http("GET", f"{VIDEOS}/missing", authorization=header)
    return status, body["code"], body["message"]


@WAYS
def test_a_revoked_key_works_nowhere_from_the_next_call_on(world: World, way: Any) -> None:
    issued = issue(world)
    assert get(world, way(world, issued))[:2] == (404, 1203)
    assert operate(world, "revoke_key", key_id=issued["key_id"]) == {"revoked": True}
    for seconds in (0, 59, 1):  # at once, and so surely within the minute
        world.clock.tick(seconds)
        assert get(world, way(world, issued))[:2] == (401, 1002)
    assert world.http("POST", VIDEOS, BODY, authorization=way(world, issued))[0] == 401
    assert world.tasks() == [] == world.provider.posts


def test_revoking_twice_keeps_the_first_time(world: World) -> None:
    issued = issue(world)
    operate(world, "revoke_key", key_id=issued["key_id"])
    world.clock.tick(100)
    assert operate(world, "revoke_key", key_id=issued["key_id"]) == {"revoked": True}
    key = world.services.keys.get(issued["key_id"])
    assert key is not None and key.revoked_at == START
    assert operate(world, "revoke_key", key_id="none") == {"revoked": False}
    assert world.row("key#none") == {}, "no row comes into being"


@WAYS
def test_an_expired_key_says_so_to_its_owner_only(world: World, way: Any) -> None:
    issued = issue(world, expires_in_days=2)
    world.clock.tick(2 * DAY - 1)
    assert get(world, way(world, issued))[:2] == (404, 1203)
    world.clock.tick(1)
    assert get(world, way(world, issued)) == (401, 1002, "the API key has expired; ask for a new one")
    forged = {**issued, "secret_key": "x" * 43, "api_key": issued["api_key"][:-1] + "-"}
    status, code, message = get(world, way(world, forged))
    assert (status, code) == (401, 1002) and "expired" not in message
    operate(world, "revoke_key", key_id=issued["key_id"])
    assert "expired" not in get(world, way(world, issued))[2]


def test_an_expired_key_is_not_removed_by_the_tables_time_to_live(world: World) -> None:
    assert "expires_at" not in world.row(f"key#{issue(world, expires_in_days=1)['key_id']}")


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("2027-01-31", 1_801_353_600_000),
        ("2027-01-31T12:00:00", 1_801_396_800_000),
        ("2027-01-31T12:00:00+02:00", 1_801_389_600_000),
        ("2027-01-31T12:00:00Z", 1_801_396_800_000),
    ],
)
def test_an_expiry_as_a_date(world: World, text: str, until: int) -> None:
    issue(world, expires_at=text)
    (listed,) = operate(world, "list_keys", tenant="acme")["keys"]
    assert listed["expires_at"] == until


@WAYS
@pytest.mark.parametrize("prefix", ["/kling/v1", "/v1"])
def test_scopes(world: World, way: Any, prefix: str) -> None:
    path = f"{prefix}/videos/image2video"
    reader, sender = issue(world, scopes=["read"]), issue(world, scopes=["submit"])
    status, body = world.http("POST", path, BODY, authorization=way(world, reader))
    assert (status, body["code"]) == (403, 1103) and "'submit'" in body["message"]
    assert world.tasks() == [] == world.provider.posts
    status, body = world.http("POST", path, BODY, authorization=way(world, sender))
    assert status == 200
    task = f"{path}/{body['data']['task_id']}"
    status, body = world.http("GET", task, authorization=way(world, sender))
    assert (status, body["code"]) == (403, 1103) and "'read'" in body["message"]
    assert world.http("GET", task, authorization=way(world, reader))[0] == 200


def test_a_list_shows_everything_but_what_is_secret(world: World) -> None:
    assert operate(world, "list_keys", tenant="acme") == {"keys": []}
    first = issue(world, label="shop · Müller", scopes=["read", "read"])
    world.clock.tick(1)
    second = issue(world, expires_in_days=1)
    world.clock.tick(1)
    third = issue(world, scopes=["read", "submit"])
    operate(world, "create_key", tenant="umbrella")
    operate(world, "revoke_key", key_id=third["key_id"])
    world.clock.tick(DAY)
    listed = operate(world, "list_keys", tenant="acme")
    both = ["submit", "read"]
    assert listed["keys"] == [
        {"key_id": first["key_id"], "label": "shop · Müller", "scopes": ["read"], "state": "active"}
        | {"created_at": START, "expires_at": None},
        {"key_id": second["key_id"], "label": "", "scopes": both, "state": "expired"}
        | {"created_at": START + 1000, "expires_at": START + 1000 + DAY * 1000},
        {"key_id": third["key_id"], "label": "", "scopes": both, "state": "revoked"}
        | {"created_at": START + 2000, "expires_at": None},
    ]
    said = json.dumps(listed)
    for issued in (first, second, third):
        key = world.services.keys.get(issued["key_id"])
        assert key is not None
        for secret in (key.hash, issued["api_key"].split("_")[2], issued["secret_key"]):
            assert secret not in said
    assert len(operate(world, "list_keys", tenant="umbrella")["keys"]) == 1


def test_a_list_reads_its_tenants_keys_and_nothing_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for tenant in ("acme", "acme", "umbrella", "umbrella", "umbrella"):
        operate(world, "create_key", tenant=tenant)
    reads: list[str] = []
    get_row = world.table.rows.get
    monkeypatch.setattr(world.table.rows, "get", lambda pk: (reads.append(pk), get_row(pk))[1])
    assert len(operate(world, "list_keys", tenant="acme")["keys"]) == 2
    assert reads[0] == "tenant-keys#acme" and len(reads) == 3


def test_a_key_and_its_place_in_the_list_are_one_write(world: World) -> None:
    operate(world, "create_key", tenant="acme")
    assert world.effects.names == ["transact_write_items"]


@pytest.mark.parametrize(
    "wrong",
    [
        *({"label": "x" * 81}, {"label": "two\nlines"}, {"label": 5}),
        *({"scopes": []}, {"scopes": ["admin"]}, {"scopes": "read"}, {"scopes": [["read"]]}, {"scopes": None}),
        *({"expires_in_days": 0}, {"expires_in_days": 3651}, {"expires_in_days": "7"}, {"expires_in_days": True}),
        *({"expires_at": "soon"}, {"expires_at": "2020-01-01"}, {"expires_at": 5}, {"expires_at": ""}),
        {"expires_at": "2030-01-01", "expires_in_days": 5},
    ],
    ids=json.dumps,
)
def test_mistakes_make_no_key(world: World, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\(got "):
        issue(world, **wrong)
    assert operate(world, "list_keys", tenant="acme") == {"keys": []}


def test_a_list_needs_a_tenant(world: World) -> None:
    with pytest.raises(ValueError, match="tenant: "):
        operate(world, "list_keys")


def test_states() -> None:
    key = KeyRow("k", "acme", "hash", "k1", START, valid_until=START + 5)
    assert [key.state(START + ms) for ms in (0, 4, 5, 6)] == ["active", "active", "expired", "expired"]
