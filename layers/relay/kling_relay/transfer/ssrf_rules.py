"""Where an address that somebody else chose may lead: the rules, without the fetch.

Such an address may be an attack on what only this process can reach: the Lambda runtime on loopback, link-local
metadata. So it is taken by rules and never by trust: https on port 443, a DNS name or a plain IPv4 literal, nothing
that two parsers could read in two ways, and every answer of the resolver public.
"""

import ipaddress
import re
import socket
import threading
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

Origin = tuple[str, str, int]  # scheme, host, port

LOOPBACK = ("127.0.0.1", "localhost")
MAX_URL = 8192  # characters; signed URLs reach a few thousand
RESOLVE_SECONDS = 5.0

_AUTHORITY = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")  # what some resolvers read as an IPv4 address
# IANA's special-purpose registry (also the ranges in it that are globally reachable: no file server lives there),
# multicast, reserved, and Azure's host agent, the one cloud-internal address outside of them.
_DENIED = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
]
_DENIED_NETWORKS = [ipaddress.IPv4Network(network) for network in _DENIED]


# Names that no public resolver answers: RFC 6761, 6762 and 8375, ICANN's .internal (2024), and those that ICANN has
# promised never to delegate. A name of one label is a host on somebody's network too.
_INTERNAL_NAMES = ("localhost", "local", "home.arpa", "internal", "localdomain", "lan", "home", "corp")


class AddressError(Exception):
    """An address that is not connected to. `reason`, which is all of the text: `refused_url` (its form),
    `refused_host` (its name), `refused_address` (where it leads), `unresolved`, `timeout`. Never the URL: a signed one
    is a secret."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parse(url: str) -> Url:
    """The parts of an http or https URL with a plain host and no userinfo. Connects and resolves nothing.

    Raises AddressError `refused_url`.
    """
    authority = _AUTHORITY.match(url) if isinstance(url, str) and is_clean(url) else None
    # Both are looked for here: the parser forgives userinfo that is empty, and decodes a host.
    if authority is None or "@" in authority[1] or "%" in authority[1]:
        raise AddressError("refused_url")
    try:
        parsed = parse_url(url)
    except LocationParseError:
        raise AddressError("refused_url") from None
    if not parsed.host or not _HOST.fullmatch(parsed.host):
        raise AddressError("refused_url")
    if _NUMERIC.fullmatch(parsed.host):
        try:
            ipaddress.IPv4Address(parsed.host)
        except ValueError:
            raise AddressError("refused_url") from None
    return parsed


def origin(url: Url) -> Origin:
    """Scheme, host and port (the scheme's own when none is written)."""
    scheme, host = url.scheme or "", url.host or ""
    return scheme, host, url.port if url.port is not None else (443 if scheme == "https" else 80)


def check_form(url: Url) -> None:
    """What can be said without a resolver: https on port 443, and no literal address that is not public. Raises
    AddressError."""
    scheme, host, port = origin(url)
    if (scheme, port) != ("https", 443):
        raise AddressError("refused_url")
    if _NUMERIC.fullmatch(host) and not is_public(host):
        raise AddressError("refused_address")


def checked(url: Url, *, trusted: bool, seconds: float) -> str:
    """The one IPv4 address to connect to: all answers of the resolver are checked, the first is taken.

    Resolves once, for at most `seconds`; whoever connects has to use this address and not the name again. A `trusted`
    origin is only resolved. Raises AddressError.
    """
    _, host, _ = origin(url)
    if not trusted:
        check_form(url)
    addresses = _resolve_in_time(host, min(seconds, RESOLVE_SECONDS))
    if not trusted and not all(map(is_public, addresses)):
        raise AddressError("refused_address")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IPv4 address is one that a server on the public internet can have."""
    parsed = ipaddress.IPv4Address(address)
    return not any(parsed in network for network in _DENIED_NETWORKS)


def is_internal(host: str) -> bool:
    """Return whether `host`, a name or literal address without brackets, can be no server on the public internet.

    Resolves nothing. Reads every numeric form that the C library's resolver reads (127.1, 0x7f000001).
    """
    host = unicodedata.normalize("NFKC", unquote(host)).replace("\u3002", ".").lower().rstrip(".")
    if ":" in host:
        try:
            literal = ipaddress.IPv6Address(host)
        except ValueError:
            return True
        return not is_public(str(literal.ipv4_mapped)) if literal.ipv4_mapped else not literal.is_global
    if _NUMERIC.fullmatch(host):
        try:
            return not is_public(socket.inet_ntoa(socket.inet_aton(host)))
        except OSError:
            return True
    return "." not in host or is_below(host, _INTERNAL_NAMES)


def check_reachable(url: str) -> None:
    """Raise AddressError if `url` leads to no server on the public internet, or cannot be parsed. Resolves nothing."""
    try:
        host = urlsplit(
            url
        ).hostname  # urllib3 reads no international name without a package that the layer has not got
    except ValueError:
        raise AddressError("refused_url") from None
    if not host or is_internal(host):
        raise AddressError("refused_host")


def is_below(host: str, names: Iterable[str]) -> bool:
    """Whether a host is one of `names`, or lies below one of them."""
    return any(host == name or host.endswith(f".{name}") for name in names)


def is_clean(text: str) -> bool:
    """No blank, control character or backslash, and not too long."""
    return len(text) <= MAX_URL and text.isprintable() and " " not in text and "\\" not in text


def resolve(host: str) -> list[str]:
    """Every IPv4 address of a name. IPv4 alone, so that no form of an IPv4 address hides in an IPv6 one."""
    return [str(answer[4][0]) for answer in socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)]


def _resolve_in_time(host: str, seconds: float) -> list[str]:
    """In a thread of its own: getaddrinfo has no timeout, and a hostile name server can be slow."""
    addresses: list[str] = []

    def ask() -> None:
        with suppress(OSError):
            addresses.extend(resolve(host))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise AddressError("timeout")
    if not addresses:
        raise AddressError("unresolved")
    return addresses
