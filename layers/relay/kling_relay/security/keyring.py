"""Derive keys from the stack's one secret, so that the table holds nothing worth stealing."""

import hashlib
import hmac
from collections.abc import Callable, Mapping

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def base62(raw: bytes, length: int) -> str:
    """Encode `raw` as `length` characters that survive URLs, shells and double clicks."""
    number = int.from_bytes(raw, "big")
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(digits)


def _age(kid: str) -> tuple[int, str]:
    return len(kid), kid


class Keyring:
    """The versions of the stack's secret: key id -> secret text. The greatest key id signs; all of them verify.

    `newest()` reads them again for a key id that is not on the ring: it may have been added since the last read.
    """

    def __init__(self, versions: Mapping[str, str], newest: Callable[[], Mapping[str, str]] | None = None) -> None:
        self.versions = versions
        self._newest = newest

    def __contains__(self, kid: str) -> bool:
        if kid not in self.versions and self._newest is not None:
            self.versions = self._newest()
        return kid in self.versions

    @property
    def current(self) -> str:
        return max(self.versions, key=_age)

    @property
    def oldest(self) -> str:
        """The oldest key id, for values that must not change when a version is added."""
        return min(self.versions, key=_age)

    def mac(self, kid: str, purpose: str, text: str) -> bytes:
        """Compute the HMAC-SHA256 of `text` under the key for `purpose`. Raises KeyError for an unknown `kid`."""
        return hmac.digest(
            self.versions[kid].encode(), f"{purpose}\0{text}".encode("utf-8", "surrogatepass"), hashlib.sha256
        )
