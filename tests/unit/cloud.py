"""Fixtures around world.py: `cloud` once a module, `world` once a test."""

from collections.abc import Iterator

import pytest
from moto import mock_aws

from tests.reliability.memory import Memory
from tests.unit.world import Cloud, World


@pytest.fixture(scope="module")
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud | Memory]:
    """moto; where the module says IN_MEMORY, because its tests live through days, what is held equal to moto
    (tests/reliability/test_dynamo.py) and takes a twentieth of its time."""
    if getattr(request.module, "IN_MEMORY", False):
        yield Memory()
        return
    with mock_aws():
        yield Cloud()


@pytest.fixture
def world(cloud: Cloud) -> World:
    return World(cloud)


@pytest.fixture
def in_moto() -> Iterator[World]:
    """For single tests of such a module that need more of AWS than there is in memory."""
    with mock_aws():
        yield World(Cloud())
