"""Decide when a failed webhook is sent again, and when it is given up. Pure, except for random jitter.

Standard Webhooks recommends the schedule: ten attempts within about three days.
"""

import random
from dataclasses import replace

from kling_relay.tasks.notification import Notice

SLOTS = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before each attempt: 75.6 h at least."""
_JITTER = 0.2
SHORTEST_PUT_OFF = 15  # seconds until the next attempt of a webhook that could not be tried now
LONGEST_PUT_OFF = 3_600
MAX_RETRY_AFTER = 86_400  # seconds that a receiver may postpone the next attempt


def count_attempt(notice: Notice, now: int) -> Notice:
    """Count an attempt before it is made, so that an attempt that never returns counts and uses its slot."""
    tries = notice.tries + 1
    slot = SLOTS[tries] if tries < len(SLOTS) else 0
    # Later, never sooner: a receiver that is back after three days still gets the last one.
    pause = slot * (1 + random.uniform(0, _JITTER))  # nosec B311 # noqa: S311  (jitter, no secret)
    return replace(notice, tries=tries, next_at=now + int(pause * 1000))


def postpone(notice: Notice, now: int) -> Notice:
    """Postpone a webhook that cannot be tried now, which counts as no attempt.

    An older notice waits longer, so that thousands of one tenant do not return every minute.
    """
    pause = min(max(SHORTEST_PUT_OFF, (now - notice.at) / 4000), LONGEST_PUT_OFF)
    pause *= 1 + random.uniform(0, _JITTER)  # nosec B311 # noqa: S311  (jitter, no secret)
    return replace(notice, next_at=now + int(pause * 1000))


def after_attempt(notice: Notice, answer: str, *, status: int | None, retry_after: int | None, now: int) -> Notice:
    """Return a notice after an attempt. `status`: the receiver's HTTP status, None without an answer.

    `retry_after` (s): the receiver's Retry-After. Standard Webhooks: 2xx is success, 410 stops, all else is retried.
    """
    notice = replace(notice, answer=answer)
    if status is not None and 200 <= status < 300:
        return replace(notice, webhook="delivered")
    if status == 410:
        return replace(notice, webhook="gone")
    if notice.tries >= len(SLOTS):
        return replace(notice, webhook="given_up")
    if retry_after is not None:
        earliest = now + min(retry_after, MAX_RETRY_AFTER) * 1000
        return replace(notice, next_at=max(notice.next_at, earliest))
    return notice


def restarted(notice: Notice, now: int) -> Notice:
    """Return a notice that an operator sends again, with all its attempts."""
    return replace(notice, webhook="due", tries=0, next_at=now, answer="")
