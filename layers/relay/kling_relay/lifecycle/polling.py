"""How long to wait for what, in seconds. Pure but for the jitter's dice."""

import random

POLL_SECONDS = 10.0  # even from the moment when a model usually finishes (p5) ...
POLL_SHARE = 1 / 8  # ... and this much of p5 where that is more: who waits for minutes feels no seconds ...
CALLED_BACK = 4  # times p5 passes before the first poll where callbacks come: nineteen renders in twenty end before
POLL_EVEN_UNTIL = 900.0  # ... until here; after that a sixtieth of the age, so that a day costs a few hundred polls
CALLBACK_GAP_SECONDS = 5.0  # a callback makes us ask the provider at most once in this time
LOOKUP_SECONDS = 5.0  # the first look for a POST whose outcome is unknown
PARKED_SECONDS = 300.0  # between looks once the settle window is over
WATCH_SECONDS = 6 * 3600.0  # between looks at an expired task
WATCH_UNTIL_SECONDS = 30 * 86_400.0  # the provider removes its files after 30 days
NO_ROOM_SECONDS = 30.0  # nothing is sent; shorter than the sweeper's minute, or its probe would come too early
COPY_SECONDS = 900.0  # the longest life of a copier: the timeout of ArchiveVideoFunction
GRACE_SECONDS = 90.0  # what is this late has been lost: the sweeper takes over


def poll_wait(age: float, p5: float) -> float:
    """Seconds until the next query of a task that was submitted `age` seconds ago and finishes after `p5` at the
    soonest."""
    if age < p5:
        return p5 - age
    return max(POLL_SECONDS, p5 * POLL_SHARE, age / 60 if age > POLL_EVEN_UNTIL else 0)


def backoff(tries: int, *, first: float, maximum: float) -> float:
    """Seconds before try number `tries + 1`: doubling from `first` up to `most`, half of it by chance, so that tasks
    which failed together do not come back together."""
    full = min(maximum, first * 2.0 ** max(0, min(tries, 30) - 1))
    return full / 2 + random.random() * full / 2  # nosec B311 # noqa: S311  (jitter, no secret)
