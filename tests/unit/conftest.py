"""Unit tests have no network: a forgotten fake fails at once. `@pytest.mark.enable_socket` lets a test use loopback."""

import socket

import pytest
from kling_relay import address, look
from kling_relay.fetch import FetchError
from pytest_socket import disable_socket, enable_socket

from tests.unit.cloud import cloud, in_moto, world  # noqa: F401  (fixtures)
from tests.unit.inbox import queue  # noqa: F401  (fixture)
from tests.unit.planted import garden  # noqa: F401  (fixture)
from tests.unit.simulated import sim, simulator  # noqa: F401  (fixtures)
from tests.unit.tables import lose_answers, table  # noqa: F401  (fixtures)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    if request.node.get_closest_marker("enable_socket") is None:
        disable_socket(allow_unix_socket=True)
        monkeypatch.setattr(address, "resolve", _unknown_host)  # it is asked in a thread, whose errors fail nothing
    yield
    enable_socket()


@pytest.fixture(autouse=True)
def _no_image_host_answers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a resolver is asked; test_look.py puts the real thing back."""
    if request.node.get_closest_marker("enable_socket") is None:
        monkeypatch.setattr(look, "read_start", _refuse)


def _unknown_host(host: str) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "no network")


def _refuse(url: str, **_: object) -> tuple[bytes, int | None]:
    raise FetchError("network")
