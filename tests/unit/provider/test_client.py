"""Test each class of outcome against the simulator, and the key."""

import time
from typing import Any

import pytest
from kling_relay.provider.outcomes import (
    Accepted,
    AccountBlocked,
    Found,
    Listed,
    NotFound,
    NotSent,
    QueryFailed,
    Refused,
    Throttled,
    Unknown,
)
from kling_relay.provider.profiles import profile
from kling_relay.settings import SettingsError

from local.simulator import Simulator
from tests.support.provider_calls import KEY, Keys, post, provider_at

pytestmark = pytest.mark.enable_socket


# -- against the simulator


@pytest.mark.parametrize("dialect", ["kling", "cometapi"])
def test_a_task_is_accepted_and_found_again(sim: Simulator, dialect: str) -> None:
    provider = provider_at(sim.url, name=dialect)
    outcome = post(provider)
    assert isinstance(outcome, Accepted)
    assert outcome.provider_task.status == "submitted"
    [entry] = sim.ledger.shown()["tasks"]
    assert (entry["external_task_id"], entry["task_id"]) == ("ours", outcome.provider_task.upstream_id)
    for wrapped in (None, True):
        sim.faults.set(wrapped=wrapped)
        for reference in (outcome.provider_task.upstream_id, "ours"):
            answer = provider.query("image2video", reference)
            assert isinstance(answer, Found)
            assert answer.provider_task.upstream_id == outcome.provider_task.upstream_id
            assert answer.provider_task.reference == "ours"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_video_arrives(sim: Simulator, wrapped: bool) -> None:
    sim.faults.set(wrapped=wrapped)
    provider = provider_at(sim.url)
    outcome = post(provider)
    while (
        answer := provider.query("image2video", outcome.provider_task.upstream_id)
    ).provider_task.status != "succeed":
        time.sleep(0.05)
    [video] = answer.provider_task.videos
    assert video["url"].startswith(sim.url)


@pytest.mark.parametrize(
    ("fault", "kind", "accepted"),
    [
        ({}, Accepted, 1),
        ({"drop_before": 1}, Unknown, 0),
        ({"drop_after": 1}, Unknown, 1),
        ({"garbage_answer": "html"}, Unknown, 1),
        ({"garbage_answer": "truncated"}, Unknown, 1),
        ({"slow_submit": 1.5}, Unknown, 1),
        ({"submit_5xx": 500}, Unknown, 0),
        ({"submit_5xx": 503}, Throttled, 0),  # maintenance, in the envelope of the official host
        ({"submit_5xx": 504}, Unknown, 0),
        ({"late_accept": 60}, Unknown, 0),
        ({"no_room": 1}, Throttled, 0),
        ({"too_fast": 1}, Throttled, 0),
        ({"arrears": 1}, AccountBlocked, 0),
        ({"auth_error": True}, AccountBlocked, 0),
    ],
)
def test_each_class_of_outcome(sim: Simulator, fault: dict[str, Any], kind: type, accepted: int) -> None:
    sim.faults.set(**fault)
    assert isinstance(post(provider_at(sim.url), seconds=0.5 if "slow_submit" in fault else 60), kind)
    assert len(sim.ledger.posts) == 1
    assert len(sim.ledger.entries) == accepted


def test_a_refusal_has_the_providers_own_words(sim: Simulator) -> None:
    outcome = post(provider_at(sim.url), mode="pro", duration="4", model_name="kling-v2-6")
    assert isinstance(outcome, Refused)
    assert (outcome.error.code, outcome.error.http) == (1201, 400)
    assert outcome.error.message == "model/mode/duration(kling-v2-6/pro/4) is not supported"
    assert isinstance(post(provider_at(sim.url), model_name="no-such-model"), Refused)


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        ({}, NotFound()),
        ({"unknown_id": "200/null"}, NotFound()),
        ({"unknown_id": "400/1201"}, NotFound()),  # the official host: captures of 2026
        ({"unknown_id": "404/1203"}, NotFound()),  # a relay
        ({"query_5xx": 503}, QueryFailed("HTTP 503, code 5001")),
        ({"query_garbage": "html"}, QueryFailed("HTTP 200 without a readable body")),
        ({"auth_error": True}, QueryFailed("HTTP 401, code 1002")),
    ],
)
@pytest.mark.parametrize("reference", ["123", "a/../b?c#d", "ü\ud800", "%2e%2e"])
def test_unknown_ids_and_queries_that_fail(sim: Simulator, fault: Any, answer: Any, reference: str) -> None:
    sim.faults.set(**fault)
    assert provider_at(sim.url).query("image2video", reference) == answer


def test_odd_words_are_no_end(sim: Simulator) -> None:
    provider = provider_at(sim.url)
    post(provider)
    sim.faults.set(query_unknown_status="reviewing")
    answer = provider.query("image2video", "ours")
    assert (answer.provider_task.status, answer.provider_task.word) == (None, "reviewing")


def test_pages_of_the_list(sim: Simulator) -> None:
    """Newest first, as the simulator has it from Kling; one kind, and an empty page behind the last."""
    provider = provider_at(sim.url)
    sim.faults.set(never=True)
    references = [f"{number:032x}" for number in range(5)]
    for reference in references:
        post(provider, external_task_id=reference)
    pages = [provider.list_page("image2video", number, 2) for number in (1, 2, 3, 4)]
    listed = [[one.reference for one in page.snapshots] for page in pages if isinstance(page, Listed)]
    assert listed == [references[:2:-1], references[2:0:-1], references[:1], []]
    assert provider.list_page("text2video", 1, 2) == Listed([])
    assert provider.list_page("image2video", 1001, 2) == QueryFailed("HTTP 400, code 1201")
    sim.faults.set(auth_error=1)
    assert provider.list_page("image2video", 1, 2) == QueryFailed("HTTP 401, code 1002")
    sim.faults.set(query_garbage="truncated")
    assert provider.list_page("image2video", 1, 2) == QueryFailed("HTTP 200 without a readable body")


# -- the key


def test_a_rotated_key_is_fetched_once(sim: Simulator) -> None:
    keys = Keys("old", KEY)
    assert isinstance(post(provider_at(sim.url, keys)), Accepted)
    assert (len(sim.ledger.posts), keys.refreshes) == (2, 1)
    keys = Keys("old", KEY)
    assert isinstance(provider_at(sim.url, keys).query("image2video", "ours"), Found)
    assert keys.refreshes == 1


@pytest.mark.parametrize("keys", [Keys("old"), Keys("old", "older", KEY)])
def test_a_key_that_stays_wrong_ends_it(sim: Simulator, keys: Keys) -> None:
    posts = min(2, len(keys.values))
    outcome = post(provider_at(sim.url, keys))
    assert isinstance(outcome, AccountBlocked)
    assert outcome.authentication
    assert (len(sim.ledger.posts), keys.refreshes) == (posts, 1)


@pytest.mark.parametrize("fault", [{"arrears": True}, {"no_room": True}, {"submit_5xx": 500}, {"drop_after": True}])
def test_only_an_authentication_error_is_repeated(sim: Simulator, fault: dict[str, Any]) -> None:
    sim.faults.set(**fault)
    post(provider_at(sim.url, Keys(KEY, "another")))
    assert len(sim.ledger.posts) == 1


def test_a_store_that_fails_after_the_refusal_changes_nothing(sim: Simulator) -> None:
    def keys(refresh: bool) -> str:
        if refresh:
            raise ConnectionError("the secret cannot be read")
        return "old"

    assert isinstance(post(provider_at(sim.url, keys)), AccountBlocked)
    assert provider_at(sim.url, keys).query("image2video", "1") == QueryFailed("HTTP 401, code 1002")


@pytest.mark.parametrize("key", ["", "a b", "a\nb", "a\r\nX-Evil: 1", "schlüssel", "\0"])
def test_a_key_that_fits_into_no_header_is_noticed_before_the_claim(sim: Simulator, key: str) -> None:
    provider = provider_at(sim.url, Keys(key))
    with pytest.raises(SettingsError, match="make provider-key"):
        provider.prepare()
    assert isinstance(post(provider), NotSent)
    assert sim.ledger.posts == []


def test_proxies_of_the_environment_are_not_used(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert isinstance(post(provider_at(sim.url)), Accepted)


# -- profiles


def test_profiles() -> None:
    assert profile("cometapi").base_url == "https://api.cometapi.com"
    assert profile("kling", "http://localhost:8080/x/").base_url == "http://localhost:8080/x"
    with pytest.raises(SettingsError, match=r"PROVIDER: must be one of cometapi.* \(got 'nobody'\)"):
        profile("nobody")
    for bad in ("localhost:8080", "ftp://a.b", "https://", "https://key@host", "https://a b"):
        with pytest.raises(SettingsError, match="KLING_BASE_URL"):
            profile("kling", bad)
