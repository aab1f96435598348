"""Call a provider in tests."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kling_relay.provider.client import Provider
from kling_relay.provider.profiles import profile

from local.stack.stack import SIMULATOR_KEY
from tests.support.image_files import png, text
from tests.support.loopback_servers import Handler, serve

KEY = SIMULATOR_KEY
BODY = {"image": text(png(320, 320)), "model_name": "kling-v3", "external_task_id": "ours"}


class Keys:
    """Play the stored key: each refresh returns the next of `values`."""

    def __init__(self, *values: str) -> None:
        self.values = list(values)
        self.refreshes = 0

    def __call__(self, refresh: bool) -> str:
        if refresh:
            self.refreshes += 1
            self.values = self.values[1:] or self.values
        return self.values[0]


def provider_at(url: str, keys: Callable[[bool], str] | None = None, name: str = "kling") -> Provider:
    return Provider(profile(name, url), keys or Keys(KEY))


def post(provider: Provider, seconds: float = 60, **fields: Any) -> Any:
    return provider.submit("image2video", {**BODY, **fields}, read_seconds=seconds)


@contextmanager
def scripted_server(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[tuple[Provider, list[str]]]:
    """Yield a provider whose server is scripted, and the list of its requests."""
    seen: list[str] = []

    def noted(connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        rest = int(headers.get("content-length", 0))
        while rest > 0:
            rest -= len(connection.recv(min(rest, 65536)))
        seen.append(f"{headers[':method']} {path} {headers.get('authorization')}")
        handler(connection, path, headers)

    with serve(noted, tls) as port:
        yield provider_at(f"http{'s' if tls else ''}://127.0.0.1:{port}"), seen
