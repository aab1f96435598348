"""Answer ``GET /account/costs`` with the resource packs of the simulated account."""

from __future__ import annotations

import time
from urllib.parse import parse_qs

from local.simulator.account import Account
from local.simulator.dialects import Answer, Refusal, envelope, refuse
from local.simulator.ledger import now_ms

SECONDS_BETWEEN = 1.0  # between two requests; an earlier one is refused
MONTH_MS = 30 * 86_400_000


class Costs:
    """Answer as Kling's documents describe it.

    Both times are required. One request a second is allowed. A second envelope is inside the first. An account without
    a pack has no list. The remaining quantity is hours old. The values are a guess.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._asked = -SECONDS_BETWEEN
        self._bought = now_ms()

    def answer(self, query: str) -> Answer:
        given = parse_qs(query)
        for name in ("start_time", "end_time"):
            if not given.get(name, [""])[0].isdecimal():
                return refuse(Refusal(400, 1201, f"{name} must be a time in milliseconds"))
        now = time.monotonic()
        if now - self._asked < SECONDS_BETWEEN:
            return refuse(Refusal(429, 1302, "API requests too fast"))
        self._asked = now
        packs = {} if self._account.pays_in == "cash" else {"resource_pack_subscribe_infos": [self._pack()]}
        return envelope({"code": 0, "msg": "success", **packs})

    def _pack(self) -> dict[str, object]:
        """Return one pack; its name contains the number of parallel tasks."""
        return {
            "resource_pack_name": f"Video-10000Units-{self._account.slots or 5}Con-12Months",
            "resource_pack_id": "simulated-pack",
            "resource_pack_type": "decreasing_total",
            "total_quantity": 10000.0,
            "remaining_quantity": 10000.0,  # without the tasks of the last hours
            "purchase_time": self._bought,
            "effective_time": self._bought,
            "invalid_time": self._bought + 12 * MONTH_MS,
            "status": "online",
        }
