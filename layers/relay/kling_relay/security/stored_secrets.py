"""Read the stack's secrets, and keep values that are read from AWS for some minutes."""

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, TypeVar

from botocore.exceptions import ClientError

from kling_relay.observability import logger
from kling_relay.security.cloudfront_signer import DeliveryKey
from kling_relay.settings import Settings, SettingsError

_SECRET_SECONDS = 300.0  # a rotated secret is in use everywhere after this, or as soon as the old one fails

_REFRESH_SECONDS = 5.0  # an earlier request is answered from memory: forged callbacks must not cost a read each

T = TypeVar("T")


class Cached(Generic[T]):
    """A value that is fetched again once it is older than `seconds` by the clock `now`."""

    def __init__(
        self,
        fetch: Callable[[], T],
        seconds: float = _SECRET_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._now = now
        self._kept: tuple[T, float] | None = None
        self._refreshed_at: float | None = None

    def get(self, refresh: bool = False) -> T:
        """Return the value. `refresh` bypasses the cache, at most once in a few seconds.

        If a refresh fails, the cached value stays in use.
        """
        now = self._now()
        if self._kept is None or now - self._kept[1] > self._seconds:
            self._kept = (self._fetch(), now)
        elif refresh and (self._refreshed_at is None or now - self._refreshed_at >= _REFRESH_SECONDS):
            self._refreshed_at = now
            try:
                self._kept = (self._fetch(), now)
            except Exception as exc:
                logger.warning("secret_refresh_failed", extra={"error": type(exc).__name__})
        return self._kept[0]


class StoredSecrets:
    """Read the secrets that `settings` names. `client` returns a Secrets Manager client; the first read calls it."""

    def __init__(self, settings: Settings, client: Callable[[], Any]) -> None:
        self._settings = settings
        self._client = client

    @cached_property
    def provider(self) -> Cached[str]:
        """The secret with the keys of all provider accounts. A read raises SettingsError if it has no value."""
        return Cached(lambda: self._required("provider_key_secret_id", "store it with `make provider-key`"))

    @cached_property
    def relay(self) -> Cached[str]:
        """The relay's own signing keys, as JSON. A read raises SettingsError if they are missing."""
        return Cached(lambda: self._required("relay_secret_id", "it belongs to the stack: deploy it again"))

    @cached_property
    def delivery(self) -> Cached[DeliveryKey | None]:
        """The key that signs video URLs; None if the stack has no distribution, or its secret has no value."""
        return Cached(self._read_delivery_key)

    def _read_delivery_key(self) -> DeliveryKey | None:
        if not (name := self._settings.delivery_key_secret_id) or (text := self._read(name)) is None:
            return None
        return DeliveryKey.read(text)

    def _required(self, setting: str, remedy: str) -> str:
        value = self._read(self._settings.need(setting))
        if value is None:
            raise SettingsError(f"the secret behind {setting.upper()} has no value: {remedy}")
        return value

    def _read(self, secret_id: str) -> str | None:
        """Return the value of a secret; None if it has none yet."""
        try:
            value: str = self._client().get_secret_value(SecretId=secret_id)["SecretString"]
        except ClientError as exc:
            if exc.response["Error"]["Code"] == "ResourceNotFoundException":
                return None
            raise
        return value.strip()
