"""Fetch a URL that another party chose. No other module makes such a request.

Every hop passes the rules of transfer/ssrf_rules.py, and the connection goes to the IP address that was checked. Bytes
and wall-clock time are bounded, no matter how the server behaves. An error is a class: it never contains the URL (a
signed one is a secret), the address or the server's text.

It uses `http.client` and not urllib3's connection, because that one logs the whole URL if a server's headers are
malformed. It reads no proxy, netrc or CA setting of the environment.
"""

import http.client
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin

from kling_relay import USER_AGENT
from kling_relay.transfer import ssrf_rules, url_escaping
from kling_relay.transfer.deadline import Deadline
from kling_relay.transfer.fetch_error import FetchError
from kling_relay.transfer.pinned_connection import PinnedConnection
from kling_relay.transfer.ssrf_rules import AddressError

MAX_REDIRECTS = 5  # a relay's own address, its CDN, a region and a signature take three
READ_BYTES = 1 << 20

# IANA's names of encodings that change the bytes. Other names do not, such as the "aws-chunked" that S3 keeps of an
# upload: the bytes are plain, and their reader checks their format.
_ENCODINGS = {
    *("aes128gcm", "br", "compress", "dcb", "dcz", "deflate", "exi", "gzip", "pack200-gzip", "x-compress", "x-gzip"),
    "zstd",
}
_HEADERS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}


class Download:
    """The body of a response that holds the whole file, read once from front to end.

    `length`: bytes that the server announced, None if it announced none. `framed`: the protocol marks the end of the
    body (a length, or chunks), not only the end of the connection. `content_type`: the server's claim, or "".
    """

    def __init__(self, response: http.client.HTTPResponse, max_bytes: int, deadline: Deadline) -> None:
        self.length = _announced_length(response)
        self.framed = response.chunked or self.length is not None
        self.content_type = response.headers.get("Content-Type", "")
        self._response = response
        self._max_bytes = max_bytes
        self._deadline = deadline
        self._received = 0
        if self.length is not None and self.length > max_bytes:
            raise FetchError("too_large")

    def read(self, size: int = READ_BYTES) -> bytes:
        """Return up to `size` bytes (at most 1 MiB a call), b"" at the proven end.

        Raises FetchError: `truncated` if fewer bytes arrived than announced, `too_large`, `timeout`, `tls`.
        """
        size = min(size if size > 0 else READ_BYTES, READ_BYTES, self._max_bytes - self._received + 1)
        with _as_fetch_errors(self._deadline, broken="truncated"):
            data = self._response.read(size)
        self._received += len(data)
        if self._received > self._max_bytes:
            raise FetchError("too_large")
        if not data and self.length is not None and self._received < self.length:
            raise FetchError("truncated")
        return data


@contextmanager
def open_url(
    url: str,
    *,
    max_bytes: int,
    deadline_seconds: float,
    trusted_origin: str | None = None,
    check_host: Callable[[str], None] | None = None,
    authorization: Callable[[], str] | None = None,
) -> Iterator[Download]:
    """GET `url` and yield its body: at most `max_bytes` bytes, within `deadline_seconds` of wall-clock time.

    The deadline covers everything from the first DNS query to the last `read`. It also stops a server that sends a byte
    now and then. The bytes on the wire are bounded too, by `max_bytes` plus 64 KiB.

    `trusted_origin` is an origin that the operator chose (scheme://host:port; a path is ignored). A URL there skips the
    rules, so plain http and loopback are allowed. A redirect away from it must pass every rule. `check_host` receives
    every other host before it is resolved, and may raise AddressError. `authorization` returns the Authorization header
    for `trusted_origin`. The header is sent only after a 401 to `url` itself, never after a redirect.

    Raises FetchError; ValueError for limits that are not positive.
    """
    if max_bytes <= 0 or deadline_seconds <= 0:
        raise ValueError("max_bytes and deadline_seconds must be positive")
    with ExitStack() as stack:
        deadline = stack.enter_context(closing(Deadline(deadline_seconds)))
        fetch = _Fetch(deadline, max_bytes, stack)
        yield Download(_follow(fetch, url, trusted_origin, check_host, authorization), max_bytes, deadline)


def read_start(url: str, *, size: int, deadline_seconds: float) -> tuple[bytes, int | None]:
    """Return the first bytes of `url`, up to `size`, and the length of the whole file if the server states it.

    The rules are those of `open_url`. It follows no redirect, and stops after `size` bytes if a server does not support
    ranges. Raises FetchError.
    """
    with ExitStack() as stack:
        deadline = stack.enter_context(closing(Deadline(deadline_seconds)))
        response = _get(_Fetch(deadline, size, stack), url, False, {"Range": f"bytes=0-{size - 1}"})
        length = _announced_length(response) if response.status == 200 else _whole_length(response)
        _check_plain(response, 200, 206)
        with _as_fetch_errors(deadline, broken="truncated"):
            data = response.read(size)  # less than `size` only at the end
        if length is not None and len(data) < min(size, length):
            raise FetchError("truncated")
        return data, length


@dataclass(frozen=True, slots=True)
class Receipt:
    """The response to a `post`: its status, and the seconds of its Retry-After, if any."""

    status: int
    retry_after: int | None


def post(url: str, body: bytes, headers: dict[str, str], *, deadline_seconds: float, local: bool = False) -> Receipt:
    """POST `body` to `url` by the rules of `open_url`. It follows no redirect and reads no response body.

    `local` allows an address on loopback, by plain http and on any port: for rehearsals on one machine. Raises
    FetchError.
    """
    with ExitStack() as stack:
        deadline = stack.enter_context(closing(Deadline(deadline_seconds)))
        with _as_fetch_errors(deadline):
            trusted = local and ssrf_rules.origin(ssrf_rules.parse(url))[1] in ssrf_rules.LOOPBACK
        response = _send(_Fetch(deadline, 0, stack), "POST", url, trusted, headers, body)
        retry_after = response.headers.get("Retry-After", "").strip()
        return Receipt(response.status, int(retry_after) if re.fullmatch("[0-9]{1,9}", retry_after) else None)


@dataclass(frozen=True, slots=True)
class _Fetch:
    """State shared by all hops of one fetch. `stack` closes everything that they open."""

    deadline: Deadline
    max_bytes: int
    stack: ExitStack


def _follow(
    fetch: _Fetch,
    url: str,
    trusted_origin: str | None,
    check_host: Callable[[str], None] | None,
    authorization: Callable[[], str] | None,
) -> http.client.HTTPResponse:
    """Return the response with the whole file, after the redirects."""
    trusted = trusted_origin is not None
    for _ in range(MAX_REDIRECTS + 1):
        with _as_fetch_errors(fetch.deadline):
            # Trust does not return: another origin must not redirect into the trusted one.
            origin = ssrf_rules.origin(ssrf_rules.parse(url))
            trusted = trusted and origin == ssrf_rules.origin(ssrf_rules.parse(trusted_origin or ""))
            if check_host is not None and not trusted:
                check_host(origin[1])
        response = _get(fetch, url, trusted, {})
        if response.status == 401 and trusted and authorization is not None and (key := authorization()):
            response = _get(fetch, url, trusted, {"Authorization": key})
        authorization = None
        if response.status not in (301, 302, 303, 307, 308):
            _check_plain(response, 206 if _is_whole_range(response) else 200)
            return response
        url = _redirected(url, response.headers.get("Location"))
    raise FetchError("bad_response")


def _get(fetch: _Fetch, url: str, trusted: bool, headers: dict[str, str]) -> http.client.HTTPResponse:
    return _send(fetch, "GET", url, trusted, headers, None)


def _send(
    fetch: _Fetch, method: str, url: str, trusted: bool, headers: dict[str, str], body: bytes | None
) -> http.client.HTTPResponse:
    """Return the response to one request, with any status."""
    with _as_fetch_errors(fetch.deadline):
        parsed = ssrf_rules.parse(url)
        ip_address = ssrf_rules.checked(parsed, trusted=trusted, seconds=fetch.deadline.seconds_left())
        connection = PinnedConnection(ssrf_rules.origin(parsed), ip_address, fetch.deadline, fetch.max_bytes)
        fetch.stack.enter_context(closing(connection))
        connection.request(method, parsed.request_uri, body, {**_HEADERS, **headers})
        return fetch.stack.enter_context(closing(connection.getresponse()))


def _check_plain(response: http.client.HTTPResponse, *statuses: int) -> None:
    if response.status not in statuses:
        raise FetchError("status", response.status)
    names = response.headers.get("Content-Encoding", "").lower().split(",")
    if _ENCODINGS & {name.strip() for name in names}:
        raise FetchError("bad_response")


def _is_whole_range(response: http.client.HTTPResponse) -> bool:
    """Return whether a 206 response, which was not requested, holds every byte."""
    span = re.fullmatch(r"bytes 0-([0-9]{1,18})/([0-9]{1,18})", response.headers.get("Content-Range", "").strip())
    if response.status != 206 or span is None:
        return False
    return int(span[1]) + 1 == int(span[2]) and _announced_length(response) in (None, int(span[2]))


def _whole_length(response: http.client.HTTPResponse) -> int | None:
    """Return the length of the whole file, of which a 206 response holds the start."""
    if response.status != 206:
        return None
    span = re.fullmatch(r"bytes 0-[0-9]{1,18}/(?:([0-9]{1,18})|\*)", response.headers.get("Content-Range", "").strip())
    if span is None:
        raise FetchError("bad_response")
    return int(span[1]) if span[1] else None


def _redirected(url: str, location: str | None) -> str:
    location = _as_sent(location or "").strip(" ").replace(" ", "%20")
    if not location or not ssrf_rules.is_clean(location):  # before the join, which would drop line breaks silently
        raise FetchError("bad_response")
    try:
        return url_escaping.escaped(urljoin(url, location))
    except ValueError:
        raise FetchError("refused_url") from None


def _as_sent(header: str) -> str:
    """Decode a header that http.client reads as Latin-1 and servers write as UTF-8."""
    try:
        return header.encode("latin-1").decode()
    except ValueError:
        return header


def _announced_length(response: http.client.HTTPResponse) -> int | None:
    values = set(response.headers.get_all("Content-Length", []))
    if response.chunked or not values:
        return None
    value = values.pop()
    if values or not re.fullmatch(r"[0-9]{1,18}", value):
        raise FetchError("bad_response")
    return int(value)


@contextmanager
def _as_fetch_errors(deadline: Deadline, *, broken: str = "network") -> Iterator[None]:
    """Convert network errors into a FetchError without data about the target."""
    reason = ""
    try:
        yield
    except AddressError as error:
        reason = error.reason
    except TimeoutError:
        reason = "timeout"
    except ssl.SSLError:
        reason = "tls"
    except (OSError, http.client.HTTPException):
        reason = broken
    if deadline.passed:
        reason = "timeout"  # the shutdown looks like an end of the body, or like any error
    if reason:
        raise FetchError(reason) from None
