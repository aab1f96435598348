"""One HTTP call to the provider, bounded in time and size, and certain about whether anything was sent."""

import json
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import certifi
import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from kling_relay.deadline import Deadline

CONNECT_SECONDS = 3.05  # for the connection with its TLS handshake
MAX_ANSWER_BYTES = 2_000_000
CA_FILE = certifi.where()


class NotConnectedError(Exception):
    """Nothing was sent: no address, no connection, no certificate. The text is the cause's class."""


class BrokenError(Exception):
    """Something may have been sent, and no answer came back. The text is the cause's class."""


@dataclass(slots=True)
class _Call:
    deadline: Deadline
    connecting: Deadline | None = None
    connected: bool = False


_CALL: ContextVar[_Call] = ContextVar("call")


class _Watched:
    """A connection whose socket the deadlines of the running call may shut down: a timeout of the socket's own starts
    anew with every byte that drips in."""

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
        with closing(Deadline(CONNECT_SECONDS)) as call.connecting:
            super().connect()  # type: ignore[misc]
        call.connected = True

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # connected already: during this call (TLS), or kept alive from an earlier one
            call = _CALL.get()
            call.deadline.guard(self.sock)
            call.connected = True
        super().request(*args, **kwargs)  # type: ignore[misc]


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = type("_Http", (_Watched, HTTPConnection), {})


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = type("_Https", (_Watched, HTTPSConnection), {})


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


class Wire:
    """Calls over one `requests` session. No retry, redirect, proxy, cookie or netrc: the key goes where the profile
    says, once, and nowhere else."""

    def __init__(self) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update({"User-Agent": "kling-relay", "Accept": "application/json"})
        self._session.headers["Accept-Encoding"] = "identity"
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(max_retries=0))

    def post(self, url: str, key: str, seconds: float, body: dict[str, Any]) -> tuple[int, Any]:
        """Over a connection of its own: one that has lain idle, or was frozen with its Lambda, may be dead without our
        knowing, and a paid POST into it would be in doubt."""
        self._session.close()
        return self._call("POST", url, key, seconds, body)

    def get(self, url: str, key: str, seconds: float) -> tuple[int, Any]:
        return self._call("GET", url, key, seconds)

    def _call(self, method: str, url: str, key: str, seconds: float, body: Any = None) -> tuple[int, Any]:
        """HTTP status and JSON (None where it is none), within CONNECT_SECONDS + `seconds`."""
        with closing(Deadline(CONNECT_SECONDS + seconds)) as deadline:
            call = _Call(deadline)
            mark = _CALL.set(call)
            try:
                return self._exchange(method, url, key, seconds, body)
            except (requests.RequestException, HTTPError, OSError, ValueError) as exc:
                raise (BrokenError if call.connected else NotConnectedError)(_cause(exc)) from exc
            finally:
                _CALL.reset(mark)

    def _exchange(self, method: str, url: str, key: str, seconds: float, body: Any) -> tuple[int, Any]:
        with self._session.request(
            method,
            url,
            json=body,
            headers={"Authorization": f"Bearer {key}"},
            timeout=(CONNECT_SECONDS, seconds),
            allow_redirects=False,
            stream=True,
            verify=CA_FILE,
        ) as response:
            raw = response.raw.read(MAX_ANSWER_BYTES + 1, decode_content=False)
            try:
                payload = json.loads(raw)
            except (ValueError, RecursionError):
                payload = None
            return response.status_code, payload


def _cause(exc: BaseException) -> str:
    """The class of what went wrong at the bottom; the texts on the way hold addresses."""
    while (deeper := exc.__cause__ or exc.__context__) is not None:
        exc = deeper
    return type(exc).__name__
