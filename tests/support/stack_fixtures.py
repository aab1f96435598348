"""Provide fixtures around stack_in_memory.py: `cloud` per module, `world` per test."""

from collections.abc import Iterator

import pytest
from moto import mock_aws

from tests.support.fake_cloud import MemoryCloud
from tests.support.fake_dynamodb import FakeDynamoDB
from tests.support.stack_in_memory import Cloud, World


@pytest.fixture(scope="module")
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud | MemoryCloud]:
    """Provide moto, or the cloud in memory if the module has IN_MEMORY.

    IN_MEMORY is for tests of the relay's behaviour, not of DynamoDB's. It is held equal to moto
    (tests/reliability/test_dynamo.py) and takes a twentieth of the time. TABLE_IN_MEMORY leaves the buckets in moto,
    for tests that need their versions and pages.
    """
    if getattr(request.module, "IN_MEMORY", False):
        yield MemoryCloud()
        return
    with mock_aws():
        made = Cloud()
        if getattr(request.module, "TABLE_IN_MEMORY", False):
            made.dynamodb = FakeDynamoDB()
        yield made


@pytest.fixture
def world(cloud: Cloud) -> World:
    return World(cloud)


@pytest.fixture
def in_moto() -> Iterator[World]:
    """Provide moto to single tests of such a module that need more of AWS."""
    with mock_aws():
        yield World(Cloud())
