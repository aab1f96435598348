"""Prevent SSRF: decide which URLs chosen by other parties may be fetched. Rules only, no fetch.

Such a URL may be an attack on addresses that only this process can reach: the Lambda runtime on loopback, link-local
metadata. So it must pass rules: https on port 443, a DNS name or a plain IPv4 literal, no text that two parsers could
read in two ways, and only public addresses in the resolver's answer.
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
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")  # some resolvers read these as an IPv4 address
# IANA's special-purpose registry, multicast, reserved, and Azure's host agent, the one cloud-internal address outside
# of them. The registry's globally reachable ranges are included: no file server uses them.
_DENIED = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
]
_DENIED_NETWORKS = [ipaddress.IPv4Network(network) for network in _DENIED]


# Names that no public resolver answers: RFC 6761, 6762 and 8375, ICANN's .internal (2024), and those that ICANN has
# promised never to delegate. A name of one label is a host on a private network too.
_INTERNAL_NAMES = ("localhost", "local", "home.arpa", "internal", "localdomain", "lan", "home", "corp")


class AddressError(Exception):
    """The URL is not connected to.

    `reason`, which is the whole text: `refused_url` (malformed), `refused_host` (the name), `refused_address` (not a
    public IP address), `unresolved`, `timeout`. The text never contains the URL: a signed one is a secret.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parse(url: str) -> Url:
    """Split an http or https URL with a plain host and no userinfo. It neither connects nor resolves.

    Raises AddressError `refused_url`.
    """
    authority = _AUTHORITY.match(url) if isinstance(url, str) and is_clean(url) else None
    # Both are checked here: the parser accepts empty userinfo, and decodes a host.
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
    """Return scheme, host and port (the scheme's default if the URL names none)."""
    scheme, host = url.scheme or "", url.host or ""
    return scheme, host, url.port if url.port is not None else (443 if scheme == "https" else 80)


def check_form(url: Url) -> None:
    """Check a URL without a resolver: https on port 443, and no literal address that is not public.

    Raises AddressError.
    """
    scheme, host, port = origin(url)
    if (scheme, port) != ("https", 443):
        raise AddressError("refused_url")
    if _NUMERIC.fullmatch(host) and not is_public(host):
        raise AddressError("refused_address")


def checked(url: Url, *, trusted: bool, seconds: float) -> str:
    """Return the one IPv4 address to connect to: all answers of the resolver are checked, the first is used.

    It resolves once, for at most `seconds`. The caller must connect to this address, and not resolve the name again. A
    `trusted` origin is only resolved. Raises AddressError.
    """
    _, host, _ = origin(url)
    if not trusted:
        check_form(url)
    addresses = _resolve_in_time(host, min(seconds, RESOLVE_SECONDS))
    if not trusted and not all(map(is_public, addresses)):
        raise AddressError("refused_address")
    return addresses[0]


def is_public(address: str) -> bool:
    """Return whether a server on the public internet can have this IPv4 address."""
    parsed = ipaddress.IPv4Address(address)
    return not any(parsed in network for network in _DENIED_NETWORKS)


def is_internal(host: str) -> bool:
    """Return whether `host`, a name or literal address without brackets, can be no server on the public internet.

    It resolves nothing. It reads every numeric form that the C library's resolver reads (127.1, 0x7f000001).
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
    """Raise AddressError if `url` leads to no server on the public internet, or is malformed. Resolves nothing."""
    try:
        host = urlsplit(url).hostname  # urllib3 reads no international name without a package that is not in the layer
    except ValueError:
        raise AddressError("refused_url") from None
    if not host or is_internal(host):
        raise AddressError("refused_host")


def is_below(host: str, names: Iterable[str]) -> bool:
    """Return whether a host is one of `names` or a subdomain of one."""
    return any(host == name or host.endswith(f".{name}") for name in names)


def is_clean(text: str) -> bool:
    """Return whether a text has no blank, control character or backslash, and at most MAX_URL characters."""
    return len(text) <= MAX_URL and text.isprintable() and " " not in text and "\\" not in text


def resolve(host: str) -> list[str]:
    """Return every IPv4 address of a name. IPv6 is excluded, so that no IPv4 address hides in an IPv6 one."""
    return [str(answer[4][0]) for answer in socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)]


def _resolve_in_time(host: str, seconds: float) -> list[str]:
    """Resolve in a separate thread: getaddrinfo has no timeout, and a hostile name server can be slow."""
    addresses: list[str] = []

    def lookup() -> None:
        with suppress(OSError):
            addresses.extend(resolve(host))

    thread = threading.Thread(target=lookup, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise AddressError("timeout")
    if not addresses:
        raise AddressError("unresolved")
    return addresses
