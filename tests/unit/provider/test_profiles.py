"""Test every profile as data, the body in its dialect, and a whole run of each against the simulator in its dialect."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from kling_relay.lifecycle import archive
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.provider import profiles
from kling_relay.provider.client import Provider
from kling_relay.provider.credentials import TokenSigner
from kling_relay.provider.outcomes import Accepted, AccountBlocked, Found
from kling_relay.provider.profiles import Profile, in_dialect, profile
from kling_relay.security.stored_secrets import Cached
from kling_relay.settings import SettingsError
from kling_relay.tasks.task import Phase, Task
from kling_relay.transfer import ssrf_rules

from local.simulator import Simulator
from local.stack.stack import SIMULATED, simulated_key
from tests.support.provider_calls import Keys, post
from tests.support.stack_in_memory import ROOT, Cloud, World
from tests.unit.api.test_create import b64

TABLE_IN_MEMORY = True
pytestmark = pytest.mark.enable_socket
ROWS: dict[str, dict[str, Any]] = json.loads((Path(profiles.__file__).parent / "profiles.json").read_text())
KINDS = {"image2video", "multi-image2video", "text2video", "omni-video"}
OFFICIAL = {"kling", "kling-aksk"}
WITHOUT_HOST = {"yutoai", "powertokens", "relay"}
SAMPLE = b64((ROOT / "local" / "stack" / "sample.jpg").read_bytes())
BODY = {"image": SAMPLE, "model_name": "kling-v2-6", "prompt": "it moves"}
MASK = {"mask": SAMPLE, "trajectories": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}
DIALECT = {"kling": "official", "kling-aksk": "official", "cometapi-2026-03": "cometapi"}


# -- the data


def test_who_lists() -> None:
    """The official hosts document it, the relays do not."""
    assert {name for name, row in ROWS.items() if row["lists"]} == {"kling", "kling-aksk"}


def test_who_refuses_retired_models() -> None:
    """The official hosts: a capture has the refusal of kling-v1, and Kling announced the end of all six for 2026-09-15.
    That relays may still serve them is a guess."""
    assert {name for name, row in ROWS.items() if row["refuses_retired"]} == OFFICIAL


def test_all_source_documents_have_a_profile() -> None:
    assert set(ROWS) == {"cometapi", "cometapi-2026-03", "kling", "kling-aksk", *WITHOUT_HOST}


@pytest.mark.parametrize("name", ROWS)
def test_each_profile_says_everything_in_the_right_form(name: str) -> None:
    row = ROWS[name]
    assert set(row) == {field.name for field in fields(Profile)} - {"name"}
    assert row["path"].endswith("/v1/videos/{kind}") and row["path"].format(kind="x").startswith("/")
    assert set(row["default_model"]) == KINDS and all(map(is_word, row["default_model"].values()))
    assert all(is_word(one) and is_word(other) for one, other in row["models"].items())
    assert set(row["drops"]) <= KINDS and all(is_word(one) for names in row["drops"].values() for one in names)
    assert not {"model_name", "external_task_id", "callback_url"} & {
        one for two in row["drops"].values() for one in two
    }
    choices = {"auth": ("key", "aksk"), "masks": ("array", "object"), "image_form": ("base64", "url")}
    assert all(row[field] in allowed for field, allowed in choices.items())
    assert row["result_hosts"] and all(re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host) for host in row["result_hosts"])
    asked = ("ask_by_reference", "unique_reference", "hides_reference", "lists")
    for flag in ("repeats_model", "refuses_retired", "maintenance_refuses", *asked):
        assert type(row[flag]) is bool
    assert 0 < row["denial_gap_seconds"] < row["settle_seconds"] <= 120
    assert (row["base_url"] == "") == (name in WITHOUT_HOST)
    if row["base_url"]:
        assert row["base_url"].startswith("https://") and ssrf_rules.parse(row["base_url"])


def is_word(value: Any) -> bool:
    return isinstance(value, str) and value != "" and value == value.strip()


@pytest.mark.parametrize("name", sorted(WITHOUT_HOST))
def test_a_profile_without_a_host_asks_for_one(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"\AKLING_BASE_URL: is required for {name}; set it to https://host"):
        profile(name)
    assert profile(name, "https://relay.example/").base_url == "https://relay.example"


# -- the dialect


def plain(**changes: Any) -> Profile:
    return replace(profile("cometapi"), **changes)


def test_a_body_stays_as_it_is_where_nothing_differs() -> None:
    body = {**BODY, "dynamic_masks": [MASK], "cfg_scale": 0.5, "watermark_info": {"enabled": True}}
    assert in_dialect(plain(), "image2video", body) == body


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"models": {"kling-v2-6": "kling/2.6"}}, {"model_name": "kling/2.6"}),
        ({"models": {"kling-v3": "other"}}, {}),
        ({"repeats_model": True}, {"model": "kling-v2-6"}),
        ({"repeats_model": True, "models": {"kling-v2-6": "x"}}, {"model": "x", "model_name": "x"}),
        ({"masks": "object"}, {"dynamic_masks": MASK}),
        ({"drops": {"image2video": ["prompt", "never-sent"]}}, {"prompt": None}),
        ({"drops": {"omni-video": ["prompt"]}}, {}),
    ],
)
def test_each_difference(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    body = {**BODY, "dynamic_masks": [MASK]}
    before = json.dumps(body)
    wanted = {name: value for name, value in {**body, **expected}.items() if value is not None}
    assert in_dialect(plain(**changes), "image2video", body) == wanted
    assert json.dumps(body) == before


def test_several_masks_stay_an_array_and_none_stay_none() -> None:
    several = {**BODY, "dynamic_masks": [MASK, MASK]}
    assert in_dialect(plain(masks="object"), "image2video", several) == several
    assert in_dialect(plain(masks="object"), "image2video", BODY) == BODY


# -- tokens of an AK/SK pair

AK, SK = "an-access-key", "a-secret-key-of-at-least-32-bytes"


def test_a_token_is_klings_and_lives_until_a_minute_before_its_end() -> None:
    now = [1_000_000.7]
    signer = TokenSigner(lambda refresh: f"{AK}:{SK}", lambda: now[0])
    token = signer(False)
    claims = jwt.decode(token, SK, algorithms=["HS256"], options={"verify_exp": False, "verify_nbf": False})
    assert claims == {"iss": AK, "exp": 1_000_000 + 1800, "nbf": 1_000_000 - 5}
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    now[0] += 1740
    assert signer(False) == token
    now[0] += 1
    assert signer(False) != token


def test_a_refresh_signs_anew_with_what_is_stored_now() -> None:
    now = [1_000_000.0]
    keys = Keys(f"{AK}:{SK}", json.dumps({"access_key": "other", "secret_key": SK}))
    signer = TokenSigner(keys, lambda: now[0])
    first = signer(False)
    second = signer(True)
    assert [jwt.decode(one, options={"verify_signature": False})["iss"] for one in (first, second)] == [AK, "other"]
    now[0] += 1
    assert signer(False) == second != signer(True)
    keys.values = [f"{AK}:{SK}"]  # rotated; noticed when the cache of the secret ends
    assert jwt.decode(signer(False), options={"verify_signature": False})["iss"] == AK


@pytest.mark.parametrize(
    "secret",
    ["", "sk-alone", "a:", ":b", "a:b:c", "{", "{}", '{"access_key": "a"}', '{"access_key": 1, "secret_key": "b"}'],
)
def test_a_secret_that_is_no_pair_is_told_before_the_claim(secret: str) -> None:
    provider = Provider(profile("kling-aksk"), TokenSigner(lambda refresh: secret, time.time))
    with pytest.raises(SettingsError, match='must be "access_key:secret_key"; store it with `make provider-key`'):
        provider.prepare()


# -- each profile against the simulator


Start = Callable[..., World]


@pytest.fixture
def start(cloud: Cloud, sim: Simulator) -> Start:
    """A relay whose provider is built as on AWS, in front of the simulator as that profile needs it."""

    def begin(name: str, **changes: Any) -> World:
        sim.account.set(**SIMULATED.get(name, {}))
        world = World(cloud, provider=name, kling_base_url=sim.url)
        world.clock.now = int(time.time() * 1000)
        world.services._providers.clear()
        world.services.secrets.provider = Cached(lambda: simulated_key(name))
        world.services.provider.profile = replace(world.services.provider.profile, **changes)
        cloud.apps["archive_video"].copy_outputs = archive.copy_outputs  # type: ignore[attr-defined]
        return world

    return begin


def drive(world: World, task: Task, until: Callable[[Task], bool]) -> Task:
    while not until(task := world.task(task.id)):
        world.clock.tick(31)
        if (
            advance(world.services, task.id, AdvanceInput("poll", must_end_by=world.clock.now + 60_000)).next
            == "archive"
        ):
            world.archive(task)
        time.sleep(0.05)
    return task


def succeeded(task: Task) -> bool:
    assert task.phase not in (Phase.FAILED, Phase.EXPIRED), task
    return task.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("name", ROWS)
def test_from_the_post_to_the_video(start: Start, sim: Simulator, name: str) -> None:
    world = start(name)
    # kling-v1 takes masks in the plainest mode. It is retired, and no living model takes masks.
    model, masked = ("kling-v2-6", {}) if name in OFFICIAL else ("kling-v1", {"dynamic_masks": [MASK]})
    task = drive(world, world.create({**BODY, "model_name": model, **masked}), succeeded)
    (entry,) = sim.ledger.entries.values()
    assert (entry.dialect, entry.billed) == (DIALECT.get(name, name), True)
    assert (task.upstream_id, entry.external_task_id) == (entry.task_id, task.id)
    assert entry.task_id.startswith("task_") == (name in ("powertokens", "relay"))
    assert task.videos and world.s3.head_object(Bucket="videos", Key=task.videos[0]["key"])["ContentLength"] > 1000
    sent = entry.request
    assert (sent["model_name"], sent["prompt"]) == (model, BODY["prompt"])
    assert sent.get("model") == (model if name == "relay" else None)
    masks = sent.get("dynamic_masks")
    assert type(masks) is {"cometapi-2026-03": dict, **dict.fromkeys(OFFICIAL, type(None))}.get(name, list)
    if name == "relay":
        url = urlsplit(sent["image"])
        (life,) = parse_qs(url.query)["X-Amz-Expires"]
        assert url.scheme == "https" and int(life) >= 3600 and f"/inputs/acme/{task.id}/image.jpg" in url.path
        assert masks[0]["mask"].startswith("https://")
    else:
        assert sent["image"]["length"] == len(SAMPLE)


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"relay"}))
def test_wrapped_answers_are_read_whoever_gives_them(start: Start, sim: Simulator, name: str) -> None:
    world = start(name)
    sim.faults.set(wrapped=True)
    drive(world, world.create(BODY), succeeded)


@pytest.mark.parametrize("name", ROWS)
def test_the_reason_of_a_failure_arrives(start: Start, sim: Simulator, name: str) -> None:
    world = start(name)
    sim.faults.set(fail=True)
    task = drive(world, world.create(BODY), lambda task: task.phase is Phase.FAILED)
    assert task.reason == "Failure to pass the risk control system"


@pytest.mark.parametrize("name", ROWS)
def test_a_refusal_has_the_providers_own_words(start: Start, sim: Simulator, name: str) -> None:
    status, answer = start(name).post({**BODY, "model_name": "no-such-model"})
    assert 400 <= status < 500 and answer["message"].endswith("model no-such-model not found")


@pytest.mark.parametrize("name", ROWS)
def test_model_names_are_mapped_on_the_way_out_only(start: Start, sim: Simulator, name: str) -> None:
    world = start(name, models={"kling-v2-6": "theirs-26"})
    sim.account.set(extra_models=["theirs-26"])
    task = world.create(BODY)
    (entry,) = sim.ledger.entries.values()
    assert (entry.model_name, entry.request.get("model", "theirs-26")) == ("theirs-26", "theirs-26")
    assert task.request["model_name"] == "kling-v2-6"


@pytest.mark.parametrize("kind", ["image2video", "multi-image2video"])
@pytest.mark.parametrize("name", ROWS)
def test_a_model_is_always_named(start: Start, sim: Simulator, name: str, kind: str) -> None:
    world = start(name)
    several = {"image_list": [{"image": SAMPLE}] * 2, "prompt": "they move", "cfg_scale": 0.5}
    body = {"image": SAMPLE} if kind == "image2video" else several
    status, answer = world.http("POST", f"/v1/videos/{kind}", body, authorization=world.key())
    if name in OFFICIAL and kind == "multi-image2video":  # its only default is retired there
        assert (status, answer["code"], sim.ledger.posts) == (400, 1201, [])
        status, answer = world.http(
            "POST", f"/v1/videos/{kind}", {**body, "model_name": "kling-v3"}, authorization=world.key()
        )
        (entry,) = sim.ledger.entries.values()
        assert status == 200 and "cfg_scale" not in entry.request
        return
    (entry,) = sim.ledger.entries.values()
    assert (status, entry.request["model_name"]) == (200, ROWS[name]["default_model"][kind])
    assert "cfg_scale" not in entry.request or not name.startswith("kling")


@pytest.mark.parametrize("name", ROWS)
def test_a_lost_answer_is_found_or_parked_and_never_repeated(start: Start, sim: Simulator, name: str) -> None:
    world = start(name)
    sim.faults.set(drop_after=1, callbacks="lost")
    task = world.create(BODY)
    assert task.phase is Phase.UNCONFIRMED
    if ROWS[name]["ask_by_reference"]:
        drive(world, task, succeeded)
    else:
        for _ in range(10):
            world.clock.tick(61)
            advance(world.services, task.id, AdvanceInput("poll", must_end_by=world.clock.now + 60_000))
        assert world.task(task.id).phase is Phase.UNCONFIRMED
    assert len(sim.ledger.posts) == len(sim.ledger.entries) == 1


@pytest.mark.parametrize("name", sorted(WITHOUT_HOST))
def test_a_callback_helps_where_the_relay_knows_the_id_that_it_names(start: Start, sim: Simulator, name: str) -> None:
    world = start(name)
    sim.faults.set(drop_after=1, callbacks="lost")
    task = world.create(BODY)
    (entry,) = sim.ledger.entries.values()
    world.clock.tick(10)
    assert world.callback(task, {"task_id": entry.kling_id, "task_status": "succeed"}) == 200
    found = world.task(task.id)
    assert (found.upstream_id == entry.task_id) == (name == "yutoai") == (found.phase is not Phase.UNCONFIRMED)


# -- authentication


def signing(sim: Simulator, keys: Callable[[bool], str], now: Callable[[], float] = time.time) -> Provider:
    sim.account.set(access_key=AK, secret_key=SK, key="nobody-has-this-key")
    return Provider(profile("kling-aksk", sim.url), TokenSigner(keys, now))


def test_an_expired_token_is_signed_anew_once(sim: Simulator) -> None:
    times = iter([time.time() - 1900, time.time()])
    assert isinstance(post(signing(sim, Keys(f"{AK}:{SK}"), lambda: next(times))), Accepted)
    assert [line["outcome"] for line in sim.ledger.posts] == ["refused 401/1004", "accepted"]


def test_a_rotated_pair_is_taken_for_queries_too(sim: Simulator) -> None:
    post(signing(sim, Keys(f"{AK}:{SK}")))
    answer = signing(sim, Keys(f"{AK}:an-old-secret-key-of-32-characters!", f"{AK}:{SK}")).query("image2video", "ours")
    assert isinstance(answer, Found)


def test_a_pair_that_is_wrong_ends_it(sim: Simulator) -> None:
    times = iter(range(int(time.time()), int(time.time()) + 10))
    provider = signing(sim, Keys(f"{AK}:{SK[::-1]}"), lambda: next(times))
    outcome = post(provider)
    assert isinstance(outcome, AccountBlocked) and outcome.authentication
    assert len(sim.ledger.posts) == 2


def test_a_bad_key_at_a_relay_is_the_accounts_trouble(sim: Simulator) -> None:
    sim.account.set(kling_path="relay")
    outcome = post(Provider(profile("relay", sim.url), Keys("wrong")))
    assert isinstance(outcome, AccountBlocked) and outcome.authentication
