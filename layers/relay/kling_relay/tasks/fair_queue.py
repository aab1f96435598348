"""Read the waiting tasks by tenant, in bounded time for any number of tasks: the index `by_turn`.

`queue`, "open" or "waiting", is its hash key. `turn`, "{tenant}#{birth}", is its range key: the tasks of a tenant are
adjacent, oldest first. A row gets its `turn` when it is created, and keeps it. A row of an older version has none.
"""

from itertools import groupby

from kling_relay.dynamodb import Rows, plain, value

INDEX = "by_turn"
_BEHIND = "$"  # follows '#'; no tenant's name holds either, or a character that sorts between them


def turn(tenant: str, birth: str) -> str:
    """Return the attribute `turn` of a task; `birth` is "{created_at:013}#{id}"."""
    return f"{tenant}#{birth}"


def oldest_of_each(rows: Rows, last: str, since: int, tenants: int, each: int) -> list[tuple[str, str]]:
    """Return (id, tenant) of the oldest waiting tasks of several tenants.

    It returns at most about `each` tasks of each tenant, of at most about `tenants` tenants. Tenants are sorted by
    name, starting after `last` and wrapping around once. Tasks created before `since` (ms) are left out. `tenants`
    bounds the number of queries; the backlog does not affect it.
    """
    queued: dict[str, list[str]] = {}
    position, wrapped = last + _BEHIND, False
    for _ in range(2 * tenants + 2):  # each tenant may need a second one, behind tasks that are too old
        page = _page(rows, position, each)
        full = len(page) == each
        groups = [(tenant, [birth for _, birth in group]) for tenant, group in groupby(page, key=lambda one: one[0])]
        # the last tenant may continue on the next page
        for tenant, births in groups[:-1] if full and len(groups) > 1 else groups:
            if wrapped and tenant > last:
                return _flat(queued)
            young = [birth.partition("#")[2] for birth in births if int(birth.partition("#")[0]) >= since]
            if young:
                queued[tenant] = young
            ended = young or not full or len(groups) > 1
            position = tenant + _BEHIND if ended else turn(tenant, f"{since:013}")
        if len(queued) >= tenants or (not full and (wrapped or not last)):
            break
        if not full:
            position, wrapped = _BEHIND, True
    return _flat(queued)


def _page(rows: Rows, position: str, limit: int) -> list[tuple[str, str]]:
    """Return (tenant, birth) of at most `limit` waiting tasks whose `turn` is after `position`."""
    answer = rows.client.query(
        TableName=rows.name,
        IndexName=INDEX,
        KeyConditionExpression="#queue = :waiting AND #turn > :place",
        ExpressionAttributeNames={"#queue": "queue", "#turn": "turn"},
        ExpressionAttributeValues={":waiting": value("waiting"), ":place": value(position)},
        Limit=limit,
    )
    turns = [str(plain(item["turn"])).partition("#") for item in answer["Items"]]
    return [(tenant, birth) for tenant, _, birth in turns]


def _flat(queued: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(task_id, tenant) for tenant, ids in queued.items() for task_id in ids]
