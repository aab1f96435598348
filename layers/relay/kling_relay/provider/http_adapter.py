"""The session of `requests` that calls a provider: deadlines shut its sockets down, and it notes when it is connected.

Nothing is repeated and nothing is followed. Proxies, netrc, CA bundles of the environment and cookies are not used.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from kling_relay.transfer import pinned_connection
from kling_relay.transfer.deadline import Deadline

# It logs each request's URL at debug level, and as a warning, with the headers, if those of an answer are malformed.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)


@dataclass(slots=True)
class Call:
    """One request. `start_connecting` returns the deadline of a connection. `connected`: a byte may have been sent."""

    deadline: Deadline
    start_connecting: Callable[[], Deadline]
    connecting: Deadline | None = None
    connected: bool = False


_CALL: ContextVar[Call] = ContextVar("call")


@contextmanager
def running(call: Call) -> Iterator[Call]:
    """Apply the deadlines of `call` to the connections that are used inside."""
    mark = _CALL.set(call)
    try:
        yield call
    finally:
        _CALL.reset(mark)


class _Watched:
    """A connection whose socket the deadlines of the current call may shut down.

    A timeout of the socket itself restarts with every received byte.
    """

    sock: Any

    def _new_conn(self) -> Any:
        sock = super()._new_conn()  # type: ignore[misc]
        call = _CALL.get()
        for deadline in (call.deadline, call.connecting):
            if deadline is not None:
                deadline.guard(sock)
        return sock

    def connect(self) -> None:
        call = _CALL.get()
        with closing(call.start_connecting()) as call.connecting:
            super().connect()  # type: ignore[misc]
        call.connected = True

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # connected already: during this call (TLS), or kept alive from an earlier one
            call = _CALL.get()
            call.deadline.guard(self.sock)
            call.connected = True
        super().request(*args, **kwargs)  # type: ignore[misc]


class _Https(_Watched, HTTPSConnection):
    def connect(self) -> None:
        self.ssl_context = pinned_connection.tls_context()  # urllib3 would load the roots anew for every connection
        super().connect()


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = type("_Http", (_Watched, HTTPConnection), {})


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave it to the context of `_Https`: `requests` would add certifi's roots to it for every connection."""


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return no target: for any other, `requests` reads the whole body and parses the address, followed or not."""


def open_session(headers: Mapping[str, str]) -> requests.Session:
    """Return a session that sends `headers` and what a request adds, and nothing else."""
    session = _Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.clear()
    session.headers.update(headers)
    adapter = _Adapter(max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session
