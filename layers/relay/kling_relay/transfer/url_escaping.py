"""Escape the URLs that providers write, for use in a request. Pure."""

import re
from urllib.parse import quote

_PARTS = re.compile(r"(https?://[^/?#\\\s]+)([/?#].*)", re.IGNORECASE)
_SAFE = "%!#$&'()*+,/:;=?@[]~"  # of RFC 3986; existing escapes are kept


def escaped(url: str) -> str:
    """Return the URL as a browser sends it: without outer blanks, with forbidden characters after the host as %XX.

    A text with a control character or half a surrogate is unchanged, and so is one without a host: both are refused
    later.
    """
    url = url.strip(" ")
    parts = _PARTS.fullmatch(url)
    return parts[1] + quote(parts[2], safe=_SAFE) if parts is not None and url.isprintable() else url
