"""One simulator a module, reset before each test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from local.simulator import Simulator
from tests.support.simulator_client import KEY, Receiver


@pytest.fixture(scope="module")
def running() -> Iterator[Simulator]:
    with Simulator(key=KEY, render_seconds=0.25, render_size=160) as simulator:
        yield simulator


@pytest.fixture
def sim(running: Simulator) -> Simulator:
    running.reset()
    return running


@pytest.fixture
def receiver() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.daemon_threads = True
    server.got = []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
