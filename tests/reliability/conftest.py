"""Use the fixtures of tests/unit for the campaigns, without a network."""

from tests.reliability.campaign import campaign  # noqa: F401  (fixture)
from tests.reliability.internet import authority, internet  # noqa: F401  (fixtures)
from tests.support.stack_fixtures import cloud, world  # noqa: F401  (fixtures)
from tests.unit.conftest import _no_image_host_answers, _no_network  # noqa: F401  (fixtures)
