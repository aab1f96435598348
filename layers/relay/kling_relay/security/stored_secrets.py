"""Keep values that are read from AWS for some minutes."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from kling_relay.observability import logger

_SECRET_SECONDS = 300.0  # a rotated secret is in use everywhere after this, or when the old one is of no use

_REFRESH_SECONDS = 5.0  # one that is asked for sooner comes from memory: forgers must not cost a read each

T = TypeVar("T")


class Cached(Generic[T]):
    """A value that is fetched again when it is older than `seconds` by the clock `now`."""

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
        """The value. `refresh`: past the cache, but once in a few seconds only, and what there was stays good where it
        cannot be fetched just then."""
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
