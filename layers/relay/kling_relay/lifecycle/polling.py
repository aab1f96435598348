"""Compute wait times and retry delays, in seconds. Pure, except for random jitter."""

import random

POLL_SECONDS = 10.0  # constant from the time when a model usually finishes (p5) ...
# ... and this share of p5 if that is more: a client that waits for minutes does not notice seconds ...
POLL_SHARE = 1 / 8
CALLED_BACK = 4  # times p5 before the first poll if callbacks arrive: nineteen of twenty renders end before that
POLL_EVEN_UNTIL = 900.0  # ... until here; after that a sixtieth of the age, so that a day costs a few hundred polls
CALLBACK_GAP_SECONDS = 5.0  # a callback triggers at most one query of the provider in this time
LOOKUP_SECONDS = 5.0  # before the first look-up of a POST whose outcome is unknown
PARKED_SECONDS = 300.0  # between look-ups after the settle window
WATCH_SECONDS = 6 * 3600.0  # between polls of an expired task
WATCH_UNTIL_SECONDS = 30 * 86_400.0  # the provider removes its files after 30 days
NO_ROOM_SECONDS = 30.0  # nothing is sent; shorter than the sweeper's minute, or its probe would come too early
COPY_SECONDS = 900.0  # the longest life of a copier: the timeout of ArchiveVideoFunction
GRACE_SECONDS = 90.0  # a task this late was lost: the sweeper takes over


def poll_wait(age: float, p5: float) -> float:
    """Return the seconds until the next query of a task.

    `age`: seconds since its submission. `p5`: seconds after which it finishes at the earliest.
    """
    if age < p5:
        return p5 - age
    return max(POLL_SECONDS, p5 * POLL_SHARE, age / 60 if age > POLL_EVEN_UNTIL else 0)


def backoff(tries: int, *, first: float, maximum: float) -> float:
    """Return the seconds before attempt number `tries + 1`: doubling from `first` up to `maximum`.

    Half of it is random, so that tasks which failed together do not retry together.
    """
    full = min(maximum, first * 2.0 ** max(0, min(tries, 30) - 1))
    return full / 2 + random.random() * full / 2  # nosec B311 # noqa: S311  (jitter, no secret)
