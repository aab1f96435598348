"""Provide the template as written, the template after the SAM transform, and the workflow's definition."""

from typing import Any

import pytest
import yaml

from local.stack.deploy_template import load_template
from local.stack.expand_template import transformed
from tests.template.rules import REPOSITORY


@pytest.fixture(scope="session")
def written() -> dict[str, Any]:
    return load_template()


@pytest.fixture(scope="session")
def template() -> dict[str, Any]:
    return transformed(load_template())


@pytest.fixture(scope="session")
def machine() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "statemachine/task_lifecycle.asl.yaml").read_text())
    return loaded
