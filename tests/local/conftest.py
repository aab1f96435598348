"""Start one simulator per module, reset before each test."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from local.simulator import Simulator
from tests.support.simulator_client import KEY, CallbackReceiver


@pytest.fixture(scope="module")
def running() -> Iterator[Simulator]:
    with Simulator(key=KEY, render_seconds=0.25, render_size=160) as simulator:
        yield simulator


@pytest.fixture
def sim(running: Simulator) -> Simulator:
    running.reset()
    return running


@pytest.fixture
def receiver() -> Iterator[CallbackReceiver]:
    server = CallbackReceiver()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
