"""Disable the network for unit tests: a missing fake fails at once. `@pytest.mark.enable_socket` allows loopback."""

import socket

import pytest
from kling_relay.api import preflight
from kling_relay.transfer import ssrf_rules
from kling_relay.transfer.fetch_error import FetchError
from pytest_socket import disable_socket, enable_socket

from tests.support.row_builders import builder  # noqa: F401  (fixture)
from tests.support.s3_inbox import queue  # noqa: F401  (fixture)
from tests.support.simulator_fixtures import sim, simulator  # noqa: F401  (fixtures)
from tests.support.stack_fixtures import cloud, in_moto, world  # noqa: F401  (fixtures)
from tests.support.table_fixtures import drop_response, table  # noqa: F401  (fixtures)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    if request.node.get_closest_marker("enable_socket") is None:
        disable_socket(allow_unix_socket=True)
        monkeypatch.setattr(ssrf_rules, "resolve", _unknown_host)  # it is asked in a thread, whose errors fail nothing
    yield
    enable_socket()


@pytest.fixture(autouse=True)
def _no_image_host_answers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a resolver is asked; test_look.py puts the real thing back."""
    if request.node.get_closest_marker("enable_socket") is None:
        monkeypatch.setattr(preflight, "read_start", _refuse)


def _unknown_host(host: str) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "no network")


def _refuse(url: str, **_: object) -> tuple[bytes, int | None]:
    raise FetchError("network")
