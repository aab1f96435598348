"""Provide fixtures of the provider's simulator: `simulator` per module, `sim` per test, with a reset ledger."""

from collections.abc import Iterator

import pytest

from local.simulator import Simulator
from local.stack.stack import SIMULATOR_KEY


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(key=SIMULATOR_KEY, render_seconds=0.2, render_size=64) as running:
        yield running


@pytest.fixture
def sim(simulator: Simulator) -> Simulator:
    simulator.reset()
    return simulator
