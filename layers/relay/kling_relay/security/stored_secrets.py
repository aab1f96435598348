"""Cache values that are read from AWS for some minutes."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from kling_relay.observability import logger

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
