"""Make one HTTP call to the provider, bounded in time and size, with certainty about whether anything was sent."""

import json
import zlib
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from urllib3 import PoolManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from kling_relay import USER_AGENT
from kling_relay.transfer import pinned_connection
from kling_relay.transfer.deadline import Deadline

CONNECT_SECONDS = 3.05  # for the connection with its TLS handshake
MAX_ANSWER_BYTES = 2_000_000


class NotConnectedError(Exception):
    """Nothing was sent: no address, no connection, no certificate. The text is the cause's class."""


class BrokenError(Exception):
    """Something may have been sent, and no answer arrived. The text is the cause's class."""


@dataclass(slots=True)
class _Call:
    deadline: Deadline
    connecting: Deadline | None = None
    connected: bool = False


_CALL: ContextVar[_Call] = ContextVar("call")


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
        with closing(Deadline(CONNECT_SECONDS)) as call.connecting:
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


class Wire:
    """Call over one urllib3 pool, without proxy, cookies or netrc.

    No retry and no redirect: the key is sent once, to the profile's URL only.
    """

    def __init__(self) -> None:
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"}
        self._pools = PoolManager(headers=headers, retries=False)
        self._pools.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def post(self, url: str, key: str, seconds: float, body: dict[str, Any]) -> tuple[int, Any]:
        """Send over a new connection.

        An idle one, or one that was frozen with its Lambda, may be dead without our notice, and a paid POST over it
        would be in doubt.
        """
        self._pools.clear()
        return self._call("POST", url, key, seconds, body)

    def get(self, url: str, key: str, seconds: float) -> tuple[int, Any]:
        return self._call("GET", url, key, seconds)

    def _call(self, method: str, url: str, key: str, seconds: float, body: Any = None) -> tuple[int, Any]:
        """Return HTTP status and JSON (None if it is none), within CONNECT_SECONDS + `seconds`."""
        with closing(Deadline(CONNECT_SECONDS + seconds)) as deadline:
            call = _Call(deadline)
            mark = _CALL.set(call)
            try:
                return self._exchange(method, url, key, seconds, body)
            except (HTTPError, OSError, ValueError) as exc:
                raise (BrokenError if call.connected else NotConnectedError)(_cause(exc)) from exc
            finally:
                _CALL.reset(mark)

    def _exchange(self, method: str, url: str, key: str, seconds: float, body: Any) -> tuple[int, Any]:
        headers = {**self._pools.headers, "Authorization": f"Bearer {key}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body, allow_nan=False).encode()
        with closing(
            self._pools.urlopen(
                method,
                url,
                body=body,
                headers=headers,
                timeout=Timeout(connect=CONNECT_SECONDS, read=seconds),
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        ) as response:
            return response.status, _json(response.read(MAX_ANSWER_BYTES + 1))


def _json(raw: bytes) -> Any:
    """Parse the JSON of an answer; None if it is none.

    Some edges compress without a request to do so, and not all name it in a header. The first byte shows it: no JSON
    begins with that of a gzip or zlib stream.
    """
    try:
        if raw[:1] in (b"\x1f", b"\x78"):
            stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either of both
            raw = stream.decompress(raw, MAX_ANSWER_BYTES)
            if not stream.eof:  # cut off, or larger than an answer may be
                return None
        return json.loads(raw)
    except (ValueError, RecursionError, zlib.error):
        return None


def _cause(exc: BaseException) -> str:
    """Return the class of the root cause; the texts on the way contain addresses."""
    while (deeper := exc.__cause__ or exc.__context__) is not None:
        exc = deeper
    return type(exc).__name__
