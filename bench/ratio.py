"""Compute ratios that tolerate a noisy machine: both sides are measured in turn, many times, and compared in pairs."""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_DRAWS = 2000  # of the bootstrap
_SEED = 20_261_127


@dataclass(frozen=True, slots=True)
class Ratio:
    """Hold `ours` and `reference` in `unit`, and their `ratio`.

    95 % of bootstrap samples have it between `low` and `high`.
    """

    name: str
    ours: float
    reference: float
    ratio: float
    low: float
    high: float
    unit: str

    def as_json(self) -> dict[str, float | str]:
        return {"ours": self.ours, "reference": self.reference, "ratio": self.ratio, "unit": self.unit}


def in_turn(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call each case `rounds` times, in another order every round, and return the values of each."""
    dice, given = random.Random(_SEED), {name: list[float]() for name in cases}  # nosec B311 # noqa: S311
    for _ in range(rounds):
        for name in dice.sample(list(cases), len(cases)):
            given[name].append(cases[name]())
    return given


def compared(name: str, ours: Sequence[float], reference: Sequence[float], unit: str) -> Ratio:
    """Return the median of the ratios of pairs that were measured in the same round."""
    pairs = [one / other for one, other in zip(ours, reference, strict=True)]
    dice = random.Random(_SEED)  # nosec B311 # noqa: S311
    drawn = sorted(statistics.median(dice.choices(pairs, k=len(pairs))) for _ in range(_DRAWS))
    low, high = drawn[int(_DRAWS * 0.025)], drawn[int(_DRAWS * 0.975)]
    middle = statistics.median(pairs)
    return Ratio(name, statistics.median(ours), statistics.median(reference), middle, low, high, unit)


def counted(name: str, ours: float, reference: float, unit: str) -> Ratio:
    """Return the ratio of two counts, which are the same in every run."""
    ratio = ours / reference
    return Ratio(name, ours, reference, ratio, ratio, ratio, unit)
