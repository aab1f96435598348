"""Test that every place has the version of pyproject.toml."""

import json
import re
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import kling_relay
import pytest
import yaml
from kling_relay.provider.http import Wire

from local.stack.deploy_template import load_template

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_package_has_the_projects_version() -> None:
    """The layer has no pyproject.toml, so the package carries a copy."""
    assert kling_relay.__version__ == VERSION
    assert f"kling-relay/{VERSION}" == kling_relay.USER_AGENT


def test_the_stack_states_the_version() -> None:
    assert load_template()["Outputs"]["Version"]["Value"] == VERSION


def test_the_description_of_the_api_has_the_version() -> None:
    """functions/api_docs/openapi.json is made from docs/openapi.yaml: tests/contract/test_openapi.py."""
    assert yaml.safe_load((ROOT / "docs/openapi.yaml").read_text())["info"]["version"] == VERSION
    assert json.loads((ROOT / "functions/api_docs/openapi.json").read_text())["info"]["version"] == VERSION


def test_the_changelog_describes_the_version() -> None:
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert versions[1] == VERSION


@pytest.mark.enable_socket
def test_the_provider_sees_the_version() -> None:
    """Webhooks and downloads have the same header: tests/unit/transfer/fetch/test_posts.py."""
    seen: list[str] = []

    class Provider(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["User-Agent"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing."""

    with HTTPServer(("127.0.0.1", 0), Provider) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert Wire().get(f"http://127.0.0.1:{server.server_port}/", "key", 60) == (200, {})
    assert seen == [f"kling-relay/{VERSION}"]
