"""Read the time and sleep. No other module does either, so that tests control time."""

import time


class Clock:
    """Wall clock. Tests inject a clock that they set by hand."""

    def now_ms(self) -> int:
        """Return Unix time in milliseconds, the unit of every time that this package stores."""
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`."""
        time.sleep(seconds)
