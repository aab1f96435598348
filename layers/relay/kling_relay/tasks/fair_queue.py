"""Reads the waiting tasks by tenant, whatever their number: the index `by_turn`.

`queue`, "open" or "waiting", is its hash key. `turn`, "{tenant}#{birth}", is its range key: the tasks of a tenant lie
together, oldest first. A row gets its `turn` when it is made, and keeps it. A row of an older version has none.
"""

from itertools import groupby

from kling_relay.dynamodb import Rows, plain, value

INDEX = "by_turn"
_BEHIND = "$"  # follows '#', and no name of a tenant holds either or anything that sorts between them


def turn(tenant: str, birth: str) -> str:
    """The attribute `turn` of a task; `birth` is "{created_at:013}#{id}"."""
    return f"{tenant}#{birth}"


def oldest_of_each(rows: Rows, last: str, since: int, tenants: int, each: int) -> list[tuple[str, str]]:
    """(id, tenant) of waiting tasks: at most about `each` of the oldest of each tenant, of at most about `tenants`
    tenants. Tenants come in the order of their names, from the one behind `last` and once around. Tasks that were
    created before `since` (ms) are left out. The number of queries is bounded by `tenants`, not by the backlog."""
    found: dict[str, list[str]] = {}
    place, around = last + _BEHIND, False
    for _ in range(2 * tenants + 2):  # each tenant may need a second one, behind tasks that are too old
        page = _page(rows, place, each)
        full = len(page) == each
        groups = [(tenant, [birth for _, birth in group]) for tenant, group in groupby(page, key=lambda one: one[0])]
        for tenant, births in groups[:-1] if full and len(groups) > 1 else groups:  # the last one may go on
            if around and tenant > last:
                return _flat(found)
            young = [birth.partition("#")[2] for birth in births if int(birth.partition("#")[0]) >= since]
            if young:
                found[tenant] = young
            ended = young or not full or len(groups) > 1
            place = tenant + _BEHIND if ended else turn(tenant, f"{since:013}")
        if len(found) >= tenants or (not full and (around or not last)):
            break
        if not full:
            place, around = _BEHIND, True
    return _flat(found)


def _page(rows: Rows, place: str, limit: int) -> list[tuple[str, str]]:
    """(tenant, birth) of at most `limit` waiting tasks whose `turn` is behind `place`."""
    answer = rows.client.query(
        TableName=rows.name,
        IndexName=INDEX,
        KeyConditionExpression="#queue = :waiting AND #turn > :place",
        ExpressionAttributeNames={"#queue": "queue", "#turn": "turn"},
        ExpressionAttributeValues={":waiting": value("waiting"), ":place": value(place)},
        Limit=limit,
    )
    turns = [str(plain(item["turn"])).partition("#") for item in answer["Items"]]
    return [(tenant, birth) for tenant, _, birth in turns]


def _flat(found: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(task_id, tenant) for tenant, ids in found.items() for task_id in ids]
