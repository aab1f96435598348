"""Contracts are held by the worlds of tests/unit."""

from tests.unit.cloud import cloud  # noqa: F401  (fixture)
