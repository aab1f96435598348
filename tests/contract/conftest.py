"""All of test_schemathesis.py on one worker, where its cases are counted: schemathesis makes its tests without the
module's marks."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name == "test_schemathesis.py":
            item.add_marker(pytest.mark.xdist_group("schemathesis"))
