"""Test that every TLS client of ours accepts the same certificates, on every Python.

Beliefs: RFC 5280 wants an authority key identifier (document). Public servers without one exist (guess). Python 3.13's
`ssl.create_default_context` refuses them (run).
"""

import ssl
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import SSLError
from kling_relay import aws_clients
from kling_relay.provider.http import NotConnectedError, Wire
from kling_relay.services import Services
from kling_relay.settings import Settings
from kling_relay.transfer import fetch, pinned_connection, ssrf_rules
from kling_relay.transfer.fetch import open_url
from kling_relay.transfer.fetch_error import FetchError

from tests.support.loopback_servers import Authority, respond, serve

pytestmark = pytest.mark.enable_socket


def provider_call(url: str) -> None:
    Wire().get(url, "key", 5)


def fetched(url: str) -> None:
    """A result file or an image; a webhook connects in the same way."""
    with open_url(url, max_bytes=10, deadline_seconds=5, trusted_origin=url) as download:
        download.read()


def aws_call(url: str) -> None:
    config = Config(retries={"total_max_attempts": 1}, region_name="us-east-1")
    client = Services(Settings(), session=Session()).client("s3", config)
    client.meta.events.register("before-sign", lambda request, **_: setattr(request, "url", url))
    client.list_buckets()


CLIENTS: dict[Callable[[str], None], type[Exception]] = {
    provider_call: NotConnectedError,
    fetched: FetchError,
    aws_call: SSLError,
}


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The one that all clients trust."""
    made = Authority(tmp_path)
    context = pinned_connection.trusting(str(made.pem))
    monkeypatch.setattr(pinned_connection, "tls_context", lambda: context)
    monkeypatch.setattr(aws_clients, "DEFAULT_CA_BUNDLE", str(made.pem))
    monkeypatch.setattr(ssrf_rules, "resolve", lambda host: ["127.0.0.1"])
    return made


def call(client: Callable[[str], None], context: ssl.SSLContext) -> list[str]:
    """The paths that the server was asked for."""
    asked: list[str] = []

    def answer(connection: Any, path: str, headers: dict[str, str]) -> None:
        asked.append(path)
        respond(connection, b"<x/>")

    with serve(answer, context) as port:
        client(f"https://127.0.0.1:{port}/")
    return asked


@pytest.mark.parametrize("sloppy", [False, True])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_certificate_without_a_key_identifier_is_accepted(
    client: Callable[[str], None], sloppy: bool, authority: Authority
) -> None:
    assert call(client, authority.server_context("127.0.0.1", sloppy=sloppy)) == ["/"]


@pytest.mark.parametrize("sloppy", [False, True])
@pytest.mark.parametrize("client", CLIENTS)
def test_another_name_or_authority_is_refused(
    client: Callable[[str], None], sloppy: bool, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    for context in (
        authority.server_context("evil.example.com", sloppy=sloppy),
        Authority(tmp_path / "other").server_context("127.0.0.1", sloppy=sloppy),
    ):
        with pytest.raises(CLIENTS[client], match=r"(?i)tls|ssl"):
            call(client, context)


def test_the_sloppy_certificate_fails_strict_verification(authority: Authority) -> None:
    """So that the first test proves what it says."""
    strict = pinned_connection.trusting(str(authority.pem))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pinned_connection, "tls_context", lambda: strict)
        assert call(fetched, authority.server_context("127.0.0.1")) == ["/"]
        with pytest.raises(FetchError, match="tls"):
            call(fetched, authority.server_context("127.0.0.1", sloppy=True))


def test_a_stricter_default_of_python_changes_nothing(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stricter(ssl.SSLContext):
        def __init__(self, protocol: int) -> None:
            self.verify_flags |= ssl.VERIFY_X509_STRICT

    flags = pinned_connection.trusting(str(authority.pem)).verify_flags
    monkeypatch.setattr(fetch, "ssl", SimpleNamespace(**{**vars(ssl), "SSLContext": Stricter}))
    assert pinned_connection.trusting(str(authority.pem)).verify_flags == flags == ssl.VERIFY_X509_TRUSTED_FIRST
