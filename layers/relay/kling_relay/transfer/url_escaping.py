"""Addresses as providers write them, made fit for a request. Pure."""

import re
from urllib.parse import quote

_PARTS = re.compile(r"(https?://[^/?#\\\s]+)([/?#].*)", re.IGNORECASE)
_SAFE = "%!#$&'()*+,/:;=?@[]~"  # of RFC 3986; what is escaped already stays so


def escaped(url: str) -> str:
    """The address as a browser sends it: outer blanks dropped, and what no address may hold after its host as %XX.

    A text with a control character or half a surrogate stays as it is, and so does one without a host: both are refused
    later.
    """
    url = url.strip(" ")
    parts = _PARTS.fullmatch(url)
    return parts[1] + quote(parts[2], safe=_SAFE) if parts is not None and url.isprintable() else url
