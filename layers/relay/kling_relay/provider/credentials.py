"""Read the provider's secret, and sign tokens for providers whose key is an AK/SK pair. Tokens are never stored.

The secret is a JSON object of account (provider.profiles.Account) to entry. An entry is the key alone, or an object
with the key as "key" (or as "access_key" and "secret_key") and, if the provider signs its callbacks, the
"webhook_secret": one, or several separated by blanks during a rotation. `*` is the entry of every account without one.
A secret that is an entry itself is read as `*`: the format before there were several accounts.
"""

import json
from collections.abc import Callable
from typing import Any

from kling_relay.settings import SettingsError

_NAMES = ("access_key", "secret_key")
_LIFE_SECONDS = 1800
_EARLY_SECONDS = 5  # it begins in the past, for a provider whose clock is behind ours
_RENEW_SECONDS = 60


ANY_ACCOUNT = "*"


def entries(secret: str) -> dict[str, str]:
    """Return the stored secret as account -> entry, in either format; empty if nothing is stored."""
    held = _object(secret)
    if held is None or held.keys() & {"key", "webhook_secret", *_NAMES}:
        return {ANY_ACCOUNT: secret} if secret else {}
    return {name: entry if isinstance(entry, str) else json.dumps(entry) for name, entry in held.items()}


def entry_of(secret: str, account: str) -> str:
    """Return the entry of `account` in a stored secret, empty if it has none."""
    held = entries(secret)
    return held.get(account, held.get(ANY_ACCOUNT, ""))


def key_in(secret: str) -> str:
    """Return the key in an entry, empty if it has none; a pair in its stored format."""
    held = _object(secret)
    if held is None or _NAMES[0] in held:
        return secret
    key = held.get("key", "")
    return key.strip() if isinstance(key, str) else ""


def webhook_secrets_in(secret: str) -> list[str]:
    """Return the secrets in an entry that the provider may sign callbacks with; none if it signs nothing."""
    held = (_object(secret) or {}).get("webhook_secret")
    return held.split() if isinstance(held, str) else []


def _object(secret: str) -> dict[str, Any] | None:
    try:
        held = json.loads(secret) if secret.startswith("{") else None
    except (ValueError, RecursionError):
        return None
    return held if isinstance(held, dict) else None


class TokenSigner:
    """Replace an API key: return a token, the same one until less than a minute of its life remains.

    `secret(refresh)` returns the stored pair, "access_key:secret_key" or JSON with these two names. `now`: Unix
    seconds.
    """

    def __init__(self, secret: Callable[[bool], str], now: Callable[[], float]) -> None:
        self._secret = secret
        self._now = now
        self._token, self._made_of, self._ends_at = "", "", 0.0

    def __call__(self, refresh: bool) -> str:
        secret, now = self._secret(refresh), int(self._now())
        if refresh or secret != self._made_of or self._ends_at - now < _RENEW_SECONDS:
            import jwt  # only for AK/SK pairs: other calls do not pay for the import

            access_key, secret_key = _pair(secret)
            ends_at = now + _LIFE_SECONDS
            claims = {"iss": access_key, "exp": ends_at, "nbf": now - _EARLY_SECONDS}
            self._token = jwt.encode(claims, secret_key, algorithm="HS256")
            self._made_of, self._ends_at = secret, ends_at
        return self._token


def _pair(secret: str) -> tuple[str, str]:
    try:
        held = json.loads(secret) if secret.startswith("{") else dict(zip(_NAMES, secret.split(":"), strict=True))
        access_key, secret_key = (held[name] for name in _NAMES)
    except (ValueError, KeyError):
        access_key, secret_key = "", ""
    if not all(isinstance(one, str) and one.strip() for one in (access_key, secret_key)):
        raise SettingsError('the provider\'s secret must be "access_key:secret_key"; store it with `make provider-key`')
    return access_key.strip(), secret_key.strip()
