"""Test the local stack's keys and ports: the same at every start, and the keys readable by their owner only."""

import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests

from local.stack import issued_keys
from local.stack.stack import Options, Stack

SECRETS = ("api_key", "access_key", "secret_key", "second_api_key")


@pytest.fixture(autouse=True)
def _files_of_an_open_user() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def costs(endpoint: dict[str, Any], token: str) -> int:
    """HTTP status of `GET /account/costs`, which answers whether a key is good."""
    with requests.Session() as session:
        session.trust_env = False
        url = f"{endpoint['api_url']}/account/costs?start_time=0&end_time=1"
        return session.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=20).status_code


def signed(endpoint: dict[str, Any]) -> str:
    """A token as Kling's own samples make it (docs of Kling's API)."""
    now = int(time.time())
    claims = {"iss": endpoint["access_key"], "exp": now + 1800, "nbf": now - 5}
    return jwt.encode(claims, endpoint["secret_key"], algorithm="HS256")


def started(state: Path, aws_port: int) -> tuple[dict[str, Any], list[str]]:
    """What a stack's endpoint.json held, and what was printed while it started."""
    said: list[str] = []
    with Stack(Options(port=0, aws_port=aws_port, wait_scale=0.05, state=state), said.append) as stack:
        endpoint = json.loads(stack.endpoint_file.read_text())
        assert mode(stack.endpoint_file) == mode(state / "keys.json") == 0o600
        for token in (endpoint["api_key"], endpoint["second_api_key"], signed(endpoint)):
            assert costs(endpoint, token) == 200
        assert costs(endpoint, endpoint["api_key"][:-1] + "!") == 401
    return endpoint, said


def test_a_checkout_keeps_its_keys_and_its_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    first, said = started(tmp_path, port)
    assert first["aws_endpoint_url"] == f"http://localhost:{port}" and not [line for line in said if "in use" in line]
    with socket.create_server(("127.0.0.1", port)):
        second, said = started(tmp_path, port)
    other = int(second["aws_endpoint_url"].rpartition(":")[2])
    assert other != port
    assert f"port {port} (AWS_PORT) is in use: the emulator listens on {other}" in said
    assert [first[name] for name in SECRETS] == [second[name] for name in SECRETS]
    assert len({first[name] for name in SECRETS}) == len(SECRETS)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"relay_secret": "{}", "rows": [], "keys": {"demo": {}}}'])
def test_a_file_that_holds_no_keys_is_replaced(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    issued = {"relay_secret": "{}", "rows": [], "keys": {name: {"api_key": name} for name in issued_keys.TENANTS}}
    monkeypatch.setattr(issued_keys, "_issue", lambda *_: issued)
    assert issued_keys.keys(None, {}, path) == issued["keys"]  # type: ignore[arg-type]
    assert json.loads(path.read_text()) == issued and mode(path) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["keys.json"]
