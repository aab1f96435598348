"""Provide one certificate authority per module, and one internet per test."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from kling_relay.transfer import pinned_connection, ssrf_rules

from tests.support.loopback_servers import Authority
from tests.unit.transfer.fetch.internet import World


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def world(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    context = pinned_connection.trusting(str(authority.pem))
    with ExitStack() as stack:
        made = World(authority, stack)
        monkeypatch.setattr(ssrf_rules, "resolve", made.resolve)
        monkeypatch.setattr(pinned_connection, "dial", made.dial)
        monkeypatch.setattr(pinned_connection, "tls_context", lambda: context)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        yield made
