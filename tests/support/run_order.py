"""Order the tests and group them by process, if several processes share them (`pytest -n 3 --dist loadfile`).

Tests that wait for a stack come first, so that the others run meanwhile, and no long test comes last.
"""

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

TOGETHER = ("tests/workflow/", "tests/emulator/")
"""Each folder goes to one process, which starts its stacks once."""
FIRST = (*TOGETHER, "tests/e2e/", "tests/local/", "tests/deployed/", "tests/reliability/", "tests/contract/")


class FolderScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FolderScheduling | None:
    return FolderScheduling(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((place for place, folder in enumerate(FIRST) if item.nodeid.startswith(folder)), len(FIRST))

    items.sort(key=place)
