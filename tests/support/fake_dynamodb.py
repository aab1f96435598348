"""Play DynamoDB in memory: the part that the relay uses, a hundred times as fast as moto, and with a history.

test_dynamo.py proves it equal to moto. In addition to moto, transactions honour their ClientRequestToken, `history`
holds every version of every item, and its indexes are delayed if `lag` is set (dynamodb_indexes.py).
"""

from typing import Any

from tests.support import dynamodb_expressions
from tests.support.dynamodb_expressions import Item
from tests.support.dynamodb_indexes import Index, Lag
from tests.support.stack_in_memory import client_error

MAX_KEY_BYTES = 2048
MAX_ITEM_BYTES = 400 * 1024


class FakeDynamoDB:
    """Play a boto3 client. Tables have one key, `pk`."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Item]] = {}
        self.indexes: dict[str, dict[str, Index]] = {}  # by table and name
        self.lag: Lag | None = None
        self.kinds: dict[str, str] = {}  # of the keys of the indexes: "S" or "N"
        self.history: list[tuple[Item | None, Item]] = []  # (before, after)
        self._done: dict[str, Any] = {}  # transactions by token

    def create_table(self, *, TableName: str, **properties: Any) -> dict[str, Any]:
        assert [key["AttributeName"] for key in properties["KeySchema"]] == ["pk"]
        self.tables[TableName] = {}
        made = {index["IndexName"]: Index(index) for index in properties["GlobalSecondaryIndexes"]}
        self.indexes[TableName] = made
        self.kinds = {one["AttributeName"]: one["AttributeType"] for one in properties["AttributeDefinitions"]}
        return {}

    # -- reads

    def get_item(self, *, TableName: str, Key: Item, ConsistentRead: bool) -> dict[str, Any]:
        item = self.tables[TableName].get(Key["pk"]["S"])
        return {} if item is None else {"Item": dict(item)}

    def batch_get_item(self, *, RequestItems: dict[str, Any]) -> dict[str, Any]:
        ((table, asked),) = RequestItems.items()
        found = [self.tables[table].get(key["pk"]["S"]) for key in asked["Keys"]]
        items = [dict(item) for item in found if item is not None]
        if "ProjectionExpression" in asked:
            names = asked.get("ExpressionAttributeNames", {})
            fields = [names.get(field, field) for field in asked["ProjectionExpression"].replace(" ", "").split(",")]
            items = [{field: item[field] for field in fields if field in item} for item in items]
        return {"Responses": {table: items}, "UnprocessedKeys": {}}

    def scan(self, *, TableName: str, IndexName: str = "", **options: Any) -> dict[str, Any]:
        """In the order of `pk`. What is read of an index are its keys."""
        found: list[Item] = list(self.tables[TableName].values())
        if IndexName:
            index = self._index(TableName, IndexName)
            found = [{name: item[name] for name in index.keys} for item in index.every()]
        if not options.keys() - {"ConsistentRead"}:
            return {"Items": [dict(item) for item in found], "Count": len(found)}
        start = options.get("ExclusiveStartKey", {"pk": {"S": ""}})["pk"]["S"]
        rest = sorted((item for item in found if item["pk"]["S"] > start), key=lambda item: str(item["pk"]["S"]))
        page = rest[: options.get("Limit", len(rest))]
        holds, _ = dynamodb_expressions.condition(options["FilterExpression"])
        kept = [item for item in page if holds(item, {}, options["ExpressionAttributeValues"])]
        answer: dict[str, Any] = {"Items": [{options["ProjectionExpression"]: one["pk"]} for one in kept]}
        more = {"LastEvaluatedKey": page[-1]} if len(page) < len(rest) else {}
        return {**answer, "Count": len(kept), **more}

    def query(self, *, TableName: str, IndexName: str, KeyConditionExpression: str, **options: Any) -> dict[str, Any]:
        index = self._index(TableName, IndexName)
        found = index.find(KeyConditionExpression, options)
        page = list(index.items(found[: options.get("Limit", len(found))]))
        answer: dict[str, Any] = {"Count": len(page)}
        if options.get("Select") != "COUNT":
            answer["Items"] = [{name: one[name] for name in index.shown & one.keys()} for one in page]
        if len(page) < len(found):
            answer["LastEvaluatedKey"] = {name: page[-1][name] for name in index.keys}
        return answer

    def _index(self, table: str, name: str) -> Index:
        index = self.indexes[table].get(name)
        if index is None:
            raise client_error("ValidationException", "Query")
        if self.lag is not None:
            index.catch_up(self.lag.now())
        return index

    # -- writes

    def put_item(self, *, TableName: str, Item: Item) -> dict[str, Any]:
        self._commit(TableName, dict(Item))
        return {}

    def update_item(self, *, TableName: str, Key: Item, **options: Any) -> dict[str, Any]:
        before = self.tables[TableName].get(Key["pk"]["S"])
        after = self._after(before, {"TableName": TableName, "Key": Key, **options})
        if after is None:
            shown = {"Item": dict(before)} if before and "ReturnValuesOnConditionCheckFailure" in options else {}
            raise client_error("ConditionalCheckFailedException", "UpdateItem", **shown)
        self._commit(TableName, after)
        return {"Attributes": dict(after)} if options.get("ReturnValues") == "ALL_NEW" else {}

    def transact_write_items(self, *, TransactItems: list[Any], ClientRequestToken: str) -> dict[str, Any]:
        if ClientRequestToken in self._done:
            if self._done[ClientRequestToken] != TransactItems:
                raise client_error("IdempotentParameterMismatchException", "TransactWriteItems")
            return {}
        writes, reasons = [], []
        for item in TransactItems:
            ((kind, part),) = item.items()
            assert kind in ("Put", "Update", "ConditionCheck"), kind
            key = part["Item"]["pk"]["S"] if kind == "Put" else part["Key"]["pk"]["S"]
            after = self._after(self.tables[part["TableName"]].get(key), part)
            reasons.append({"Code": "ConditionalCheckFailed" if after is None else "None"})
            if after is not None and kind != "ConditionCheck":
                writes.append((part["TableName"], after))
        pks = [after["pk"]["S"] for _, after in writes]
        assert len(pks) == len(set(pks)), "one item twice in a transaction"
        if any(reason["Code"] != "None" for reason in reasons):
            raise client_error("TransactionCanceledException", "TransactWriteItems", CancellationReasons=reasons)
        for table, after in writes:
            self._commit(table, after)
        self._done[ClientRequestToken] = TransactItems
        return {}

    def _after(self, before: Item | None, part: dict[str, Any]) -> Item | None:
        """Return the item after a write, or None if its condition fails."""
        names, values = part.get("ExpressionAttributeNames", {}), part.get("ExpressionAttributeValues", {})
        used: set[str] = set()
        holds = True
        if "ConditionExpression" in part:
            condition, used = dynamodb_expressions.condition(part["ConditionExpression"])
            holds = condition(before or {}, names, values)
        after = part.get("Item") or before or dict(part["Key"])
        if "UpdateExpression" in part:
            change, more = dynamodb_expressions.update(part["UpdateExpression"])
            used = used | more
            after = change(after, names, values) if holds else after
        if used != names.keys() | values.keys():
            raise client_error("ValidationException", "a name or value that is unused or missing")
        return dict(after) if holds else None

    def _commit(self, table: str, after: Item) -> None:
        for name, kind in self.kinds.items():
            if name in after and not after[name].get(kind):
                raise client_error("ValidationException", f"type of {name}, or nothing in it")
        pk = after["pk"]["S"]
        if len(pk.encode()) > MAX_KEY_BYTES or len(repr(after)) > MAX_ITEM_BYTES:
            raise client_error("ValidationException", "size")
        self.history.append((self.tables[table].get(pk), after))
        self.tables[table][pk] = after
        for index in self.indexes[table].values():
            index.write(after, None if self.lag is None else self.lag.seen_at())
