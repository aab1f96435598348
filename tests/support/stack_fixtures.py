"""Fixtures around world.py: `cloud` once a module, `world` once a test."""

from collections.abc import Iterator

import pytest
from moto import mock_aws

from tests.support.fake_cloud import Memory
from tests.support.fake_dynamodb import Dynamo
from tests.support.stack_in_memory import Cloud, World


@pytest.fixture(scope="module")
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud | Memory]:
    """moto; where the module says IN_MEMORY, because its tests prove what the relay does and not what DynamoDB does,
    what is held equal to moto (tests/reliability/test_dynamo.py) and takes a twentieth of its time. TABLE_IN_MEMORY
    leaves the buckets in moto, for what needs their versions and pages."""
    if getattr(request.module, "IN_MEMORY", False):
        yield Memory()
        return
    with mock_aws():
        made = Cloud()
        if getattr(request.module, "TABLE_IN_MEMORY", False):
            made.dynamodb = Dynamo()
        yield made


@pytest.fixture
def world(cloud: Cloud) -> World:
    return World(cloud)


@pytest.fixture
def in_moto() -> Iterator[World]:
    """For single tests of such a module that need more of AWS than there is in memory."""
    with mock_aws():
        yield World(Cloud())
