"""Test a blocked provider account: submission pauses, an alarm can detect it, and submission resumes by itself.

Running tasks are not affected.
"""

from dataclasses import replace
from typing import Any

import pytest
from kling_relay.errors import KlingError
from kling_relay.provider.client import Provider
from kling_relay.provider.credentials import key_in
from kling_relay.provider.outcomes import AccountBlocked, Outcome, QueryFailed, Refused, classify_submit
from kling_relay.provider.profiles import profile
from kling_relay.security.stored_secrets import Cached
from kling_relay.settings import SettingsError
from kling_relay.tasks.task import Phase

from tests.support.printed_metrics import published_metrics
from tests.support.stack_in_memory import BODY, Cloud, World

pytestmark = pytest.mark.slow

IN_MEMORY = True
HOUR = 3600.0


def in_arrears(world: World, monkeypatch: pytest.MonkeyPatch, **refused: Any) -> dict[str, Any]:
    """The account, which refuses while `trouble` is set (or tasks whose prompt is in `prompts`), at no charge."""
    account = {"trouble": True, "prompts": set(), **refused}
    accept = world.provider._submit

    def submit(body: dict[str, Any]) -> Outcome:
        if account["trouble"] or body["prompt"] in account["prompts"]:
            world.provider.posts.append(body)
            return AccountBlocked("HTTP 429, code 1102: canary-words of the provider, key sk-canary")
        return accept(body)

    monkeypatch.setattr(world.provider, "_submit", submit)
    return account


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1004, 1100, 1101, 1102, 1304])
def test_codes(code: int) -> None:
    outcome = classify_submit(429, {"code": code, "message": "canary"})
    assert isinstance(outcome, AccountBlocked) and outcome.authentication == (code < 1100)


@pytest.mark.parametrize("status", [401, 402])
@pytest.mark.parametrize("payload", [None, {}, {"error": {"message": "canary"}}, {"code": "denied"}])
def test_statuses_without_a_code(status: int, payload: Any) -> None:
    outcome = classify_submit(status, payload)
    assert isinstance(outcome, AccountBlocked) and outcome.authentication == (status == 401)


@pytest.mark.parametrize(
    ("status", "payload"),
    [
        (403, None),
        (403, {}),
        (403, {"error": {"message": "blocked by the firewall"}}),
        (403, {"error": {"message": "this token has no access to model kling-v3"}}),
        (403, {"code": 1103, "message": "no right to use this model"}),
        (429, {"code": 1103, "message": "canary"}),
    ],
)
def test_a_refusal_that_may_depend_on_the_request(status: int, payload: Any) -> None:
    outcome = classify_submit(status, payload)
    assert isinstance(outcome, Refused) and outcome.unclear


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "insufficient quota"}},
        {"code": "insufficient_user_quota", "message": "top up"},
        {"message": "the balance is too low"},
        {"error": {"message": "this API key has no permission"}},
    ],
)
def test_a_403_that_names_the_account(payload: Any) -> None:
    """Words of relays: a guess, for want of captures."""
    assert isinstance(classify_submit(403, payload), AccountBlocked)


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_an_hour_of_arrears_then_a_top_up(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], chance: float
) -> None:
    monkeypatch.setattr(
        "kling_relay.lifecycle.polling.random.random", lambda: chance
    )  # the shortest and the longest pauses
    account = in_arrears(world, monkeypatch)
    tasks = [world.create(tenant=f"tenant-{n % 4}") for n in range(12)]
    world.run(HOUR)
    assert {world.task(task.id).phase for task in tasks} == {Phase.ACCEPTED}
    assert len(world.provider.posts) <= 20, "one task probes, ever more seldom"
    seen = published_metrics(capsys)["AccountTrouble"]
    assert seen[0] == 1 and all(seen), "an alarm that flaps wakes people twice"
    account["trouble"] = False
    world.run(11 * 60)
    assert sum(world.provider.billed(task.id) for task in tasks) >= 1, "docs/runbook.md: resumes within eleven minutes"
    world.run(2 * 60)
    assert {world.task(task.id).phase for task in tasks} == {Phase.SUCCEEDED}
    assert [world.provider.billed(task.id) for task in tasks] == [1] * 12
    assert published_metrics(capsys)["AccountTrouble"][-1] == 0


def test_what_it_waits_for_without_the_providers_words(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    in_arrears(world, monkeypatch)
    for task in (world.create(), world.create()):
        assert task.waits_for == "the provider's account to be put in order (HTTP 429, code 1102)"
    admission = world.row(f"gate#{world.services.account}")
    assert admission["reason"]["S"] == "HTTP 429, code 1102" and admission["cause"]["S"] == "account"
    assert "canary-words" not in str(world.tasks()) and "sk-canary" not in caplog.text
    assert "provider_account_blocked" in caplog.text


def test_a_task_that_waited_in_vain_says_so(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(cloud, deadline_seconds=1800)
    in_arrears(world, monkeypatch)
    task = world.until_closed(world.create().id)
    assert task.phase is Phase.FAILED and "code 1102" in task.reason and "canary" not in task.reason
    assert world.provider.billed(task.id) == 0


def test_one_task_that_the_account_may_not_have_does_not_keep_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one for a model that it has no right to: 1103 stops everybody, so not always the same one probes."""
    in_arrears(world, monkeypatch, trouble=False, prompts={"forbidden"})
    forbidden = world.create({"prompt": "forbidden", "image": "https://i.example/a.png"})
    others = [world.create() for _ in range(3)]
    assert {task.phase for task in others} == {Phase.ACCEPTED}
    world.run(HOUR)
    assert {world.task(task.id).phase for task in others} == {Phase.SUCCEEDED}
    assert world.task(forbidden.id).phase is Phase.ACCEPTED


@pytest.mark.parametrize("poison", ["forbidden", "firewall", "risky"])
def test_one_poisoned_tenant_among_many_holds_nobody_back(
    world: World, monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    """Half an hour, four tenants, 180 good tasks, and 60 of a fifth tenant that the provider refuses, each for its own
    prompt. Document: 1103 may mean one model, 1301 one prompt. Guess: a firewall answers HTML to one prompt."""
    accept = world.provider._submit

    def submit(body: dict[str, Any]) -> Outcome:
        world.provider.submit_faults = [poison] if "poison" in body["prompt"] else []
        return accept(body)

    monkeypatch.setattr(world.provider, "_submit", submit)
    good: list[str] = []
    for turn in range(60):
        status, answer = world.post({**BODY, "prompt": f"poison {turn}"}, tenant="poisoned")
        assert status in (400, 403) and "try again" not in answer["message"], answer
        for place in range(3):
            task = world.create(tenant=f"tenant-{(turn + place) % 4}")
            assert task.phase is Phase.SUBMITTED, "nobody waits for another tenant's refusal"
            good.append(task.id)
        world.run(30)
    world.run(300)
    assert {world.task(task_id).phase for task_id in good} == {Phase.SUCCEEDED}
    assert [world.provider.billed(task_id) for task_id in good] == [1] * 180
    refused = [task for task in world.tasks() if task.tenant == "poisoned"]
    assert len(refused) == 60 and all(task.phase is Phase.FAILED and task.cost_nothing for task in refused)
    assert world.measured["AccountTrouble"] == 0 and not world.unexpected_errors


def test_three_poisoned_requests_in_a_row_cost_the_others_some_minutes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They close the gate, since they look like trouble of the account: the next good task opens it again."""
    world.provider.submit_faults = ["firewall"] * 3
    for turn in range(3):
        world.post({**BODY, "prompt": f"poison {turn}"}, tenant="poisoned")
    good = [world.create(tenant=f"tenant-{turn % 4}") for turn in range(60)]
    assert {task.phase for task in good} == {Phase.ACCEPTED}
    world.run(600)
    assert {world.task(task.id).phase for task in good} == {Phase.SUCCEEDED}
    assert [world.provider.billed(task.id) for task in good] == [1] * 60


def test_the_end_of_a_task_is_no_room_in_an_account_in_trouble(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.create()
    account = in_arrears(world, monkeypatch)
    world.create()
    posts, admission = len(world.provider.posts), world.services.admissions.get(world.services.account)
    world.clock.tick(61)
    world.callback(first)
    world.states.run()
    assert world.task(first.id).phase is Phase.SUCCEEDED, "what the provider has is delivered"
    assert (
        len(world.provider.posts) == posts
        and replace(world.services.admissions.get(world.services.account), calls_back=0) == admission
    )
    account["trouble"] = False


def test_trouble_that_nobody_confirms_is_forgotten(
    in_moto: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_arrears(in_moto, monkeypatch)
    task = in_moto.create()
    assert in_moto.http("DELETE", f"/v1/videos/image2video/{task.id}", authorization=in_moto.key())[0] == 200
    in_moto.run(5 * 60)
    assert published_metrics(capsys)["AccountTrouble"] == [1] * 5
    in_moto.run(20 * 60)
    assert published_metrics(capsys)["AccountTrouble"][-1] == 0


class Secrets:
    """Secrets Manager and the provider's own list of good keys."""

    def __init__(self, stored: str, good: str) -> None:
        self.stored, self.good, self.reads = stored, good, 0
        self.sent: list[str] = []

    def read(self) -> str:
        self.reads += 1
        return self.stored


def with_real_key_handling(world: World, monkeypatch: pytest.MonkeyPatch, secrets: Secrets, code: int) -> None:
    """Provider's own handling of keys, before the ledger; the cache never gets old by itself."""
    stored = Cached(secrets.read, now=lambda: world.clock.now / 1000)
    stored._seconds = 10**9
    real = Provider(profile("kling"), lambda refresh: key_in(stored.get(refresh)))
    accept = world.provider._submit

    def post(kind: str, body: dict[str, Any], read_seconds: float, key: str) -> Outcome:
        secrets.sent.append(key)
        if key != secrets.good:
            return AccountBlocked(f"HTTP 401, code {code}: {key}", authentication=code < 1100)
        return accept(body)

    monkeypatch.setattr(real, "_post", post)
    monkeypatch.setattr(world.provider, "prepare", real.prepare)
    monkeypatch.setattr(world.provider, "_submit", lambda body: real.submit("image2video", body, read_seconds=15))


@pytest.mark.parametrize("code", [1002, 1102])
def test_a_key_that_is_replaced_during_the_pause_is_picked_up(
    world: World, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Not only where the provider complains about the key: a full account's key may be stored instead of a new package
    bought."""
    secrets = Secrets("sk-old", "sk-new")
    with_real_key_handling(world, monkeypatch, secrets, code)
    task = world.create()
    assert task.phase is Phase.ACCEPTED and secrets.sent == ["sk-old"]
    secrets.stored = '{"key": "sk-new", "webhook_secret": "whsec_x"}'
    assert world.until_closed(task.id).phase is Phase.SUCCEEDED
    assert secrets.sent == ["sk-old", "sk-new"] and world.provider.billed(task.id) == 1


def test_a_key_that_was_replaced_before_costs_one_refresh_and_no_pause(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = Secrets("sk-old", "sk-old")
    with_real_key_handling(world, monkeypatch, secrets, 1002)
    world.create()
    secrets.stored = secrets.good = "sk-new"
    reads = secrets.reads
    task = world.create()
    assert task.phase is Phase.SUBMITTED and secrets.sent == ["sk-old", "sk-old", "sk-new"]
    assert secrets.reads == reads + 1
    world.sweep()
    assert published_metrics(capsys)["AccountTrouble"] == [0]


def test_a_key_of_no_use_is_read_again_after_the_pause(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = Secrets("two words", "sk-new")
    with_real_key_handling(world, monkeypatch, secrets, 1002)
    task = world.create()
    assert task.phase is Phase.ACCEPTED and "not allowed in an HTTP header" in task.waits_for and secrets.sent == []
    secrets.stored = "sk-new"
    assert world.until_closed(task.id).phase is Phase.SUCCEEDED


def test_refusals_of_queries_hurt_no_task(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key ends while tasks render: they go on as soon as there is a good one, and expire no sooner than else."""
    world = World(cloud)
    tasks = [world.create()]
    answers = [QueryFailed("HTTP 401, code 1002"), QueryFailed("HTTP 403, code 1103"), QueryFailed("no key")]
    real = world.provider.query
    monkeypatch.setattr(world.provider, "query", lambda *_: answers[world.clock.now // 1000 % 3])
    world.run(HOUR / 4)
    assert {world.task(task.id).phase for task in tasks} == {Phase.SUBMITTED}
    monkeypatch.setattr(world.provider, "query", real)
    world.run(300)
    assert {world.task(task.id).phase for task in tasks} == {Phase.SUCCEEDED}


def test_a_query_without_a_key_is_trouble_and_no_error() -> None:
    def none(_: bool) -> str:
        raise SettingsError("the secret behind PROVIDER_KEY_SECRET_ID has no value")

    assert isinstance(Provider(profile("kling"), none).query("image2video", "1"), QueryFailed)
    assert isinstance(Provider(profile("kling"), lambda _: "").query("image2video", "1"), QueryFailed)


def test_a_refused_request_is_no_account_trouble(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.provider.submit_faults = ["refused"]
    assert world.post()[1]["code"] == KlingError(1201).code
    world.sweep()
    assert published_metrics(capsys)["AccountTrouble"] == [0]
