"""Test that every call of the provider is counted by its outcome, for every purpose of the call."""

from typing import Any

import pytest
from kling_relay.observability import REASONS, Metric
from kling_relay.provider.client import Provider
from kling_relay.provider.outcomes import Accepted
from kling_relay.provider.profiles import profile
from kling_relay.security.stored_secrets import Cached
from kling_relay.services import Services
from kling_relay.settings import Settings, SettingsError

from local.simulator import Simulator
from tests.support.printed_metrics import published_metrics
from tests.support.provider_calls import KEY, Keys, post

pytestmark = pytest.mark.enable_socket


def counting(url: str, keys: Any = None) -> tuple[Provider, list[str]]:
    counted: list[str] = []
    return Provider(profile("kling", url), keys or Keys(KEY), counted.append), counted


@pytest.mark.parametrize(
    ("fault", "submit", "query", "list_"),
    [
        ({}, "ok", "ok", "ok"),
        ({"arrears": 1}, "account", "ok", "ok"),
        ({"no_room": 1}, "no_room", "ok", "ok"),
        ({"too_fast": 1}, "no_room", "ok", "ok"),
        ({"submit_5xx": 500}, "failed", "ok", "ok"),
        ({"drop_before": 1}, "failed", "ok", "ok"),
        ({"query_5xx": 503}, "ok", "failed", "failed"),
        ({"query_garbage": "html"}, "ok", "failed", "failed"),
        ({"auth_error": True}, "account", "account", "account"),
    ],
)
def test_outcomes(sim: Simulator, fault: dict[str, Any], submit: str, query: str, list_: str) -> None:
    provider, counted = counting(sim.url)
    sim.faults.set(**fault)
    post(provider)
    provider.query("image2video", "not-known")
    provider.list_page("image2video", 1, 10)
    assert counted == [submit, query, list_]


def test_a_refusal(sim: Simulator) -> None:
    provider, counted = counting(sim.url)
    post(provider, prompt="x" * 5000)
    provider.list_page("image2video", 1001, 10)
    assert counted == ["refused", "refused"]


def test_what_was_not_sent_has_failed() -> None:
    provider, counted = counting("http://127.0.0.1:9")
    post(provider), provider.query("image2video", "1"), provider.list_page("image2video", 1, 1)
    assert counted == ["failed"] * 3

    def keyless(refresh: bool) -> str:
        raise SettingsError("none is stored")

    provider, counted = counting("http://127.0.0.1:9", keyless)
    post(provider), provider.query("image2video", "1")
    assert counted == ["failed"] * 2


def test_a_key_that_was_changed_meanwhile_is_one_call(sim: Simulator) -> None:
    provider, counted = counting(sim.url, Keys("old", KEY))
    assert isinstance(post(provider), Accepted) and counted == ["ok"]


def test_the_relay_publishes_them(sim: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    services = Services(Settings(provider="kling", kling_base_url=sim.url))
    services.secrets.provider = Cached(lambda: KEY)
    services.provider.query("image2video", "not-known")
    sim.faults.set(query_5xx=500)
    services.provider.query("image2video", "not-known")
    assert published_metrics(capsys) == {"ProviderCalls/ok": [1], "ProviderCalls/failed": [1]}
    assert REASONS[Metric.PROVIDER_CALLS][0] == "outcome"
