"""Contracts are held by the worlds of tests/unit."""

from tests.support.stack_fixtures import cloud  # noqa: F401  (fixture)
