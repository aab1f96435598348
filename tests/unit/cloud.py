"""Fixtures around world.py: `cloud` once a module, `world` once a test."""

from collections.abc import Iterator

import pytest
from moto import mock_aws

from tests.unit.world import Cloud, World


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with mock_aws():
        yield Cloud()


@pytest.fixture
def world(cloud: Cloud) -> World:
    return World(cloud)
