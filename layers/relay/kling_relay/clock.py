"""The only place that knows what time it is."""

import time


class Clock:
    """Wall clock. Tests inject one that they move by hand."""

    def now_ms(self) -> int:
        """Unix time in milliseconds, the unit of every time that this package stores."""
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)
