"""The schedule of polls where no callback comes, against a fixed interval that finds the end as soon on the average.

Simulated over four log-normal distributions of render times: no provider publishes any, so these span what users report
(docs/explanation/performance.md). `polling` is the worst of them.
"""

import math
import random
import statistics
from collections.abc import Callable, Iterator

from kling_relay.lifecycle.polling import poll_wait

from bench.ratio import Ratio, counted

_RENDERS = 20_000
_SEED = 20_261_127
# Median seconds, and the spread of the logarithm.
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
    fixed, _ = _polled(renders, lambda _: 2 * delay)  # it comes half its interval late
    return counted(f"polling_{name}", queries, fixed, f"queries, {delay:.1f} s late")


def _polled(renders: list[float], wait: Callable[[float], float]) -> tuple[float, float]:
    """Queries for one render, and how many seconds after its end the last of them came."""
    counts, delays = [], []
    for render in renders:
        age, count = 0.0, 0
        while age < render:
            age += wait(age)
            count += 1
        counts.append(count)
        delays.append(age - render)
    return statistics.fmean(counts), statistics.fmean(delays)
