"""One certificate authority a module, one internet a test."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from kling_relay import address, fetch

from tests.unit.fetch.internet import World
from tests.unit.loopback import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def world(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    context = fetch.trusting(str(authority.pem))
    with ExitStack() as stack:
        made = World(authority, stack)
        monkeypatch.setattr(address, "resolve", made.resolve)
        monkeypatch.setattr(fetch, "dial", made.dial)
        monkeypatch.setattr(fetch, "tls_context", lambda: context)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        yield made
