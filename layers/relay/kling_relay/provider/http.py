"""Make one HTTP call to the provider, bounded in time and size, with certainty about whether anything was sent."""

import json
import zlib
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import HTTPError

from kling_relay import USER_AGENT
from kling_relay.transfer.deadline import Deadline

if TYPE_CHECKING:  # `requests` is imported at the first call: many invocations make none
    from requests import Session

CONNECT_SECONDS = 3.05  # for the connection with its TLS handshake
MAX_ANSWER_BYTES = 2_000_000


class NotConnectedError(Exception):
    """Nothing was sent: no address, no connection, no certificate. The text is the cause's class."""


class BrokenError(Exception):
    """Something may have been sent, and no answer arrived. The text is the cause's class."""


class Wire:
    """Call the provider with `requests`, without proxy, cookie or netrc.

    No retry and no redirect: the key is sent once, to the profile's URL only.
    """

    def load(self) -> None:
        """Import `requests` now, and not within the first call."""
        _ = self._queries, self._posts

    def post(self, url: str, key: str, seconds: float, body: dict[str, Any]) -> tuple[int, Any]:
        """Send over a connection that is opened for this request and closed after it. One that has lain idle, or was
        frozen with its Lambda, may be dead without a sign, and a paid POST into it would be in doubt."""
        with closing(self._posts) as session:  # closes its connections; the next request opens another one
            return self._call(session, "POST", url, key, seconds, body)

    def get(self, url: str, key: str, seconds: float) -> tuple[int, Any]:
        return self._call(self._queries, "GET", url, key, seconds)

    @cached_property
    def _queries(self) -> "Session":
        """The session of the GETs, which may share a connection."""
        return _open_session()

    @cached_property
    def _posts(self) -> "Session":
        return _open_session()

    def _call(
        self, session: "Session", method: str, url: str, key: str, seconds: float, body: Any = None
    ) -> tuple[int, Any]:
        """Return HTTP status and JSON (None if it is none), within CONNECT_SECONDS + `seconds`."""
        from kling_relay.provider import http_adapter

        with (
            closing(Deadline(CONNECT_SECONDS + seconds)) as deadline,
            http_adapter.running(http_adapter.Call(deadline, lambda: Deadline(CONNECT_SECONDS))) as call,
        ):
            try:
                return _exchange(session, method, url, key, seconds, body)
            except Exception as exc:
                if call.connected:  # whatever it is: the request may have arrived
                    raise BrokenError(_cause(exc)) from exc
                if isinstance(exc, (HTTPError, OSError, ValueError)):  # those of `requests` are OSErrors
                    raise NotConnectedError(_cause(exc)) from exc
                raise


def _open_session() -> "Session":
    from kling_relay.provider import http_adapter

    headers = {"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"}
    return http_adapter.open_session(headers)


def _exchange(session: "Session", method: str, url: str, key: str, seconds: float, body: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    if body is not None:
        headers["Content-Type"] = "application/json"
        body = json.dumps(body, allow_nan=False).encode()
    with closing(
        session.request(
            method,
            url,
            data=body,
            headers=headers,
            timeout=(CONNECT_SECONDS, seconds),
            allow_redirects=False,
            stream=True,  # `requests` would read an answer of any size, and unpack it
        )
    ) as response:
        return response.status_code, _json(response.raw.read(MAX_ANSWER_BYTES + 1, decode_content=False))


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
