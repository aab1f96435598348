"""List a stack's provider accounts for its operator: which have a key, and their open tasks."""

from typing import Any

from kling_relay.dynamodb import plain
from kling_relay.provider.credentials import ANY_ACCOUNT, entries, key_in
from kling_relay.services import Services
from kling_relay.settings import SettingsError
from kling_relay.tasks.task import Phase

_MAX_READ = 2_000  # open tasks, the oldest first


def accounts(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """{"action": "accounts"}: {"accounts": [{"account", "current", "has_key", "open", "in_doubt", "parked"}], "whole"}.

    `current`: new tasks are sent there. `open` counts the tasks that were sent there and whose client sees no end;
    `in_doubt` and `parked` are among them. `whole`: False if there are more open tasks than one call reads.
    """
    ids = services.backlog.oldest_open(_MAX_READ)
    rows = services.table.rows.get_all(
        [f"task#{one}" for one in ids], ["pk", "phase", "account", "attempt", "parked_at"]
    )
    current, keys = services.account, _keys(services)
    by_account = {current: {"open": 0, "in_doubt": 0, "parked": 0}}
    for row in rows.values():
        if not plain(row["attempt"]):  # it was not sent yet
            continue
        account = plain(row["account"]) if "account" in row else current
        counts = by_account.setdefault(account, {"open": 0, "in_doubt": 0, "parked": 0})
        counts["open"] += 1
        counts["in_doubt"] += plain(row["phase"]) == Phase.UNCONFIRMED
        counts["parked"] += "parked_at" in row
    listed = [
        {"account": name, "current": name == current, "has_key": bool(keys.get(name, keys.get(ANY_ACCOUNT))), **counts}
        for name, counts in sorted(by_account.items())
    ]
    return {"accounts": listed, "whole": len(ids) < _MAX_READ}


def _keys(services: Services) -> dict[str, str]:
    try:
        return {name: key_in(entry) for name, entry in entries(services.provider_secret()).items()}
    except SettingsError:  # nothing is stored yet
        return {}
