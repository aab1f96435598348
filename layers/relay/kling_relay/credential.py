"""Tokens for providers whose secret is an AK/SK pair: made here, short-lived, and never stored."""

import json
from collections.abc import Callable

from kling_relay.settings import SettingsError

_NAMES = ("access_key", "secret_key")
_LIFE_SECONDS = 1800
_EARLY_SECONDS = 5  # it begins in the past, for a provider whose clock is behind ours
_RENEW_SECONDS = 60


class TokenSigner:
    """Stands where an API key does: gives a token, the same one until less than a minute of its life remains.

    `secret(refresh)` gives the stored pair, "access_key:secret_key" or JSON with these two names. `now`: Unix seconds.
    """

    def __init__(self, secret: Callable[[bool], str], now: Callable[[], float]) -> None:
        self._secret = secret
        self._now = now
        self._token, self._made_of, self._ends_at = "", "", 0.0

    def __call__(self, refresh: bool) -> str:
        secret, now = self._secret(refresh), int(self._now())
        if refresh or secret != self._made_of or self._ends_at - now < _RENEW_SECONDS:
            import jwt  # only for AK/SK pairs: nobody else pays for the import

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
        access_key = secret_key = ""
    if not all(isinstance(one, str) and one.strip() for one in (access_key, secret_key)):
        raise SettingsError('the provider\'s secret is no "access_key:secret_key": store it with `make provider-key`')
    return access_key.strip(), secret_key.strip()
