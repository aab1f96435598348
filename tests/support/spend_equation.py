"""Check the spend equation: the committed sum of a tenant's month equals the sum over its tasks, in any state."""

from collections import defaultdict

from kling_relay.dynamodb import plain

from tests.support.stack_in_memory import World


def verified_spend(world: World) -> dict[tuple[str, str], int]:
    """Return (tenant, month) -> committed thousandths of a unit, after a check against the sum over the tasks."""
    rows = world.dynamodb.scan(TableName=world.table.rows.name, ConsistentRead=True)["Items"]
    months = {}
    for row in rows:
        kind, _, rest = row["pk"]["S"].partition("#")
        if kind == "spend":
            tenant, _, month = rest.partition("#")
            months[tenant, month] = int(plain(row["committed"]))
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for task in world.tasks():
        assert (task.reserved is None) == (task.spend_month is None)
        if task.spend_month is not None:
            sums[task.tenant, task.spend_month] += task.committed
    assert months == dict(sums), "the money equation does not hold"
    return months
