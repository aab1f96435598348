"""Use the fixtures of tests/unit for the contract tests."""

from tests.support.stack_fixtures import cloud  # noqa: F401  (fixture)
