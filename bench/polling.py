"""Compare the polling schedule for lost callbacks with a fixed interval that detects the end as early on average.

Simulates four log-normal distributions of render times. No provider publishes any, so these cover the range that users
report (docs/explanation/performance.md). `polling` is the worst of them.
"""

import math
import random
import statistics
from collections.abc import Callable, Iterator

from kling_relay.lifecycle.polling import poll_wait

from bench.ratio import Ratio, counted

_RENDERS = 20_000
_SEED = 20_261_127
# Median seconds, and the standard deviation of the logarithm.
_DISTRIBUTIONS = {"turbo": (40, 0.3), "standard": (120, 0.45), "professional": (200, 0.5), "long": (300, 0.6)}


def measure() -> Iterator[Ratio]:
    ratios = [_compared(name, *_DISTRIBUTIONS[name]) for name in _DISTRIBUTIONS]
    yield from ratios
    worst = max(ratios, key=lambda one: one.ratio)
    yield counted("polling", worst.ours, worst.reference, worst.unit)


def _compared(name: str, median: float, sigma: float) -> Ratio:
    dice = random.Random(_SEED)  # nosec B311 # noqa: S311
    renders = sorted(dice.lognormvariate(math.log(median), sigma) for _ in range(_RENDERS))
    p5 = renders[_RENDERS // 20]
    queries, delay = _polled(renders, lambda age: poll_wait(age, p5))
    fixed, _ = _polled(renders, lambda _: 2 * delay)  # a fixed interval is late by half its length on average
    return counted(f"polling_{name}", queries, fixed, f"queries, {delay:.1f} s late")


def _polled(renders: list[float], wait: Callable[[float], float]) -> tuple[float, float]:
    """Return the queries per render, and the average delay in seconds between its end and the last query."""
    counts, delays = [], []
    for render in renders:
        age, count = 0.0, 0
        while age < render:
            age += wait(age)
            count += 1
        counts.append(count)
        delays.append(age - render)
    return statistics.fmean(counts), statistics.fmean(delays)
