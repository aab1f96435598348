"""Test a rotation of the stack's own secret at any moment of a task's life: no callback and no API key fails."""

import itertools
import json
from collections.abc import Callable, Iterator

import pytest
from kling_relay.security import auth, callback_tokens
from kling_relay.security.stored_secrets import Cached
from kling_relay.services import Services
from kling_relay.tasks.task import Phase, Task

from tests.support.stack_in_memory import BASE_URL, BODY, World

pytestmark = pytest.mark.slow

FUNCTIONS = ["task_api", "kling_callback", "advance_task", "archive_video", "sweep_tasks", "operate_tasks"]
STEPS = ["key", "create", "early callback", "query", "callback", "copy", "end"]


class Vault:
    """The secret as it is stored now; every function has a cache of its own, and none gets old by itself."""

    def __init__(self, world: World) -> None:
        self.world, self.keys, self.reads = world, {"k1": "canary-secret"}, 0

    def read(self) -> str:
        self.reads += 1
        return json.dumps(self.keys)

    def services(self) -> Services:
        """A Lambda of its own: the same table, provider and workflow."""
        world = self.world
        services = Services(world.services.settings, world.clock, world.cloud.session)
        for name in ("table", "s3", "workflows", "provider", "_base_url"):
            setattr(services, name, getattr(world.services, name))
        services.secrets.relay = Cached(self.read, seconds=10**9, now=lambda: world.clock.now / 1000)
        return services


@pytest.fixture
def vault(world: World) -> Vault:
    vault = Vault(world)
    for name in FUNCTIONS:
        world.cloud.apps[name].get_services = _always(vault.services())
    return vault


def _always(services: Services) -> Callable[[], Services]:
    return lambda: services


def life(vault: Vault) -> Iterator[str]:
    """A task's life, stopping before each step; every function answers, with whatever it has cached."""
    world = vault.world
    yield "key"
    issued = world.call("operate_tasks", {"action": "create_key", "tenant": "acme"})
    bearer = f"Bearer {issued['api_key']}"
    yield "create"
    status, answer = world.http("POST", "/v1/videos/image2video", BODY, authorization=bearer)
    assert status == 200, answer
    (task,) = world.tasks()
    told = world.provider.posts[0]["callback_url"].removeprefix(f"{BASE_URL}/hooks/kling/")
    place = dict(zip(("task_id", "token"), told.split("/"), strict=True))
    world.states.run()
    yield "early callback"
    world.clock.tick(2)
    assert world.call("kling_callback", {"pathParameters": place, "body": "{}"})["statusCode"] == 200
    assert world.task(task.id).phase is Phase.PROCESSING
    yield "query"
    assert world.http("GET", f"/v1/videos/image2video/{task.id}", authorization=bearer)[0] == 200
    yield "callback"
    world.clock.tick(61)
    assert world.call("kling_callback", {"pathParameters": place, "body": "{}"})["statusCode"] == 200
    assert world.task(task.id).phase is Phase.RENDERED
    yield "copy"
    world.states.run()
    yield "end"
    view = world.http("GET", f"/v1/videos/image2video/{task.id}", authorization=bearer)[1]
    assert view["data"]["task_status"] == "succeed"
    assert world.call("kling_callback", {"pathParameters": place, "body": "{}"})["statusCode"] == 200


def warm(vault: Vault, *functions: str) -> None:
    """Let these have cached the secret as it is."""
    for name in functions:
        assert vault.world.cloud.apps[name].get_services().keyring.versions


@pytest.mark.parametrize("warmed", [(), ("kling_callback",), ("task_api",), ("operate_tasks",), tuple(FUNCTIONS)])
@pytest.mark.parametrize("at", STEPS)
def test_rotated_before_each_step(vault: Vault, at: str, warmed: tuple[str, ...]) -> None:
    """The functions in `warmed` have the old ring in their cache when the new key comes."""
    for step in life(vault):
        if step == at:
            warm(vault, *warmed)
            vault.keys["k2"] = "canary-two"


@pytest.mark.parametrize("first", STEPS[:-1])
def test_rotated_twice(vault: Vault, first: str) -> None:
    warm(vault, *FUNCTIONS)
    for step in life(vault):
        vault.world.clock.tick(6)
        if STEPS.index(step) in (STEPS.index(first), STEPS.index(first) + 1):
            vault.keys[f"k{len(vault.keys) + 1}"] = f"canary-{step}"


def test_a_new_key_works_where_only_the_old_ring_is_known(vault: Vault) -> None:
    """Callback and API key made with k2 by a function that has it, before any other has heard of it."""
    world = vault.world
    warm(vault, *FUNCTIONS)
    vault.keys["k2"] = "canary-two"
    newer = vault.services()
    issued = auth.issue(newer.keys, newer.keyring, "acme", world.clock.now)
    status, _ = world.http("GET", "/account/costs", authorization=f"Bearer {issued.api_key}")
    assert status == 200
    token = callback_tokens.callback_url("", newer.keyring, "f" * 32).rpartition("/")[2]
    assert token.startswith("k2.")
    event = {"pathParameters": {"task_id": "f" * 32, "token": token}, "body": "{}"}
    assert world.call("kling_callback", event)["statusCode"] == 200


def test_a_key_that_is_off_the_ring_is_refused_everywhere(vault: Vault) -> None:
    world = vault.world
    old = callback_tokens.callback_url("", vault.services().keyring, "f" * 32).rpartition("/")[2]
    vault.keys = {"k2": "canary-two"}
    event = {"pathParameters": {"task_id": "f" * 32, "token": old}, "body": "{}"}
    assert world.call("kling_callback", event)["statusCode"] == 404


def test_ten_thousand_forgeries_cost_a_read_in_five_seconds(vault: Vault) -> None:
    world = vault.world
    task: Task = world.create()
    warm(vault, "kling_callback")
    reads, began, effects = vault.reads, world.clock.now, len(world.effects.names)
    for number in range(10_000):
        world.clock.tick(0.002)
        token = f"k{number % 50 + 2}." + "A" * 32
        event = {"pathParameters": {"task_id": task.id, "token": token}, "body": "{}"}
        assert world.call("kling_callback", event)["statusCode"] == 404
    assert 1 <= vault.reads - reads <= 1 + (world.clock.now - began) / 5000
    assert world.provider.queries == [] and len(world.effects.names) == effects


def test_forged_api_keys_read_nothing_anew(vault: Vault) -> None:
    """An unknown version is looked for only for a row that is really there."""
    world = vault.world
    warm(vault, "task_api")
    reads = vault.reads
    body = "kr_abcdefghijkl_" + "A" * 43
    for _ in range(20):
        assert world.http("GET", "/account/costs", authorization=f"Bearer {body}_{auth._check(body)}")[0] == 401
    assert vault.reads == reads


def test_a_ring_that_cannot_be_read_anew_stays_as_it_is(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    world = vault.world
    warm(vault, "kling_callback")
    services = world.cloud.apps["kling_callback"].get_services()
    monkeypatch.setattr(services.secrets.relay, "_fetch", lambda: (_ for _ in ()).throw(ConnectionError("away")))
    good = callback_tokens.callback_url("", services.keyring, "f" * 32).rpartition("/")[2]
    for token, status in ((f"k9.{'A' * 32}", 404), (good, 200)):
        event = {"pathParameters": {"task_id": "f" * 32, "token": token}, "body": "{}"}
        assert world.call("kling_callback", event)["statusCode"] == status


def test_cached() -> None:
    values = itertools.count(1)
    times = [0.0]
    cached = Cached(lambda: next(values), 300, now=lambda: times[0])
    assert (cached.get(), cached.get(), cached.get(refresh=True), cached.get(refresh=True)) == (1, 1, 2, 2)
    times[0] = 4.9
    assert cached.get(refresh=True) == 2
    times[0] = 5
    assert (cached.get(refresh=True), cached.get()) == (3, 3)
    times[0] = 305.5
    assert (cached.get(), cached.get()) == (4, 4)
