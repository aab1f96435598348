"""Convert DynamoDB values and make the conditional writes that all row types share."""

import random
import re
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from botocore.exceptions import ClientError

# Two transactions on one row at the same time: DynamoDB cancels one of them, and the SDK does not retry it.
_TRANSIENT = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
# seconds at most: random jitter below that keeps writers from retrying together
_CONFLICT_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 0.8, 0.8)
_BATCH_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, None)
_MAX_KEYS = 100  # of one BatchGetItem

T = TypeVar("T")


class ConflictError(Exception):
    """Another writer changed the row first. This is normal: read the row again and decide anew."""


class Rows:
    """The table `name` through a low-level DynamoDB `client`."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name

    def get(self, pk: str) -> dict[str, Any] | None:
        """Return the current item (a strongly consistent read)."""
        item: dict[str, Any] | None = self.client.get_item(
            TableName=self.name, Key={"pk": {"S": pk}}, ConsistentRead=True
        ).get("Item")
        return item

    def get_all(self, pks: list[str], only: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """Return the current items of `pks` by pk, without those that do not exist. `pks` holds each key once.

        `only`: the attributes to read, pk included; without it all. Raises RuntimeError if the table throttles for too
        long.
        """
        names = {f"#{name}": name for name in only}
        part = {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names} if only else {}
        items: dict[str, dict[str, Any]] = {}
        for start in range(0, len(pks), _MAX_KEYS):
            keys = [{"pk": value(pk)} for pk in pks[start : start + _MAX_KEYS]]
            for pause in _BATCH_PAUSES:
                request = {"Keys": keys, "ConsistentRead": True, **part}
                answer = self.client.batch_get_item(RequestItems={self.name: request})
                items |= {plain(item["pk"]): item for item in answer["Responses"].get(self.name, [])}
                keys = answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
                if not keys:
                    break
                if pause is None:
                    raise RuntimeError(f"{len(keys)} rows could not be read: the table is too busy")
                time.sleep(pause)
        return items

    def put_new(self, item: dict[str, Any]) -> dict[str, Any]:
        """Build the part of a transaction that writes `item` if no row has its key."""
        return {"Put": {"TableName": self.name, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}}

    def expression(self, pk: str, update: str, condition: str, **values: Any) -> dict[str, Any]:
        """Build a conditional update. Its expressions write attributes as `#name` and values as `:name`."""
        attribute_values = {f":{name}": value(one) for name, one in values.items()}
        return {
            "TableName": self.name,
            "Key": {"pk": {"S": pk}},
            "UpdateExpression": update,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {f"#{name}": name for name in re.findall(r"#(\w+)", f"{update} {condition}")},
            # DynamoDB rejects an empty map.
            **({"ExpressionAttributeValues": attribute_values} if attribute_values else {}),
        }

    def update(self, expression: dict[str, Any], mark: str = "write") -> dict[str, Any]:
        """Make one conditional update that sets the attribute `mark` to a new token. Return the updated row.

        A failed condition is a success if the old row carries that token: the SDK repeated our own write because the
        first answer was lost. Concurrent writers use another mark, so that they do not hide it. Raises ConflictError.
        """
        try:
            answer = _retry_on_conflict(
                lambda: self.client.update_item(
                    **expression, ReturnValues="ALL_NEW", ReturnValuesOnConditionCheckFailure="ALL_OLD"
                )
            )
        except ClientError as exc:
            if not condition_failed(exc):
                raise
            old: dict[str, Any] = exc.response.get("Item", {})
            if old.get(mark) != expression["ExpressionAttributeValues"][f":{mark}"]:
                raise ConflictError from exc
            return old
        item: dict[str, Any] = answer["Attributes"]
        return item

    def update_if(self, pk: str, update: str, condition: str, **values: Any) -> bool:
        """Make one conditional update. Return False if its condition failed."""
        try:
            _retry_on_conflict(lambda: self.client.update_item(**self.expression(pk, update, condition, **values)))
        except ClientError as exc:
            if not condition_failed(exc):
                raise
            return False
        return True

    def transact(self, items: list[dict[str, Any]], token: str) -> None:
        """Write all of `items` or none. Retry while another transaction holds the same rows."""
        _retry_on_conflict(lambda: self.client.transact_write_items(TransactItems=items, ClientRequestToken=token))


def new_token() -> str:
    """Return a new token that identifies one write."""
    return uuid.uuid4().hex


def value(given: Any) -> dict[str, Any]:
    """Convert an int or a str to a DynamoDB value. Half surrogates, which DynamoDB rejects, become '?'."""
    return {"N": str(given)} if isinstance(given, int) else {"S": str(given).encode(errors="replace").decode()}


def plain(stored: dict[str, Any]) -> Any:
    """Convert a DynamoDB value to an int or a str."""
    return int(stored["N"]) if "N" in stored else stored["S"]


def condition_failed(exc: ClientError) -> bool:
    """Return whether a condition of the write failed, and nothing else did."""
    if exc.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
        return True
    return _cancellations(exc) == {"ConditionalCheckFailed"}


def failed_parts(exc: ClientError) -> set[int]:
    """Return the indexes of a transaction's parts whose conditions failed."""
    reasons = exc.response.get("CancellationReasons", [])
    return {index for index, reason in enumerate(reasons) if reason.get("Code") == "ConditionalCheckFailed"}


def conflicted(exc: ClientError) -> bool:
    """Return whether another transaction held the same row: the same write may succeed in a moment."""
    code = exc.response.get("Error", {}).get("Code")
    return code == "TransactionConflictException" or bool(_TRANSIENT & _cancellations(exc))


def _cancellations(exc: ClientError) -> set[Any]:
    """Return the codes of the parts that cancelled a transaction."""
    return {reason.get("Code") for reason in exc.response.get("CancellationReasons", [])} - {None, "None"}


def _retry_on_conflict(write: Callable[[], T]) -> T:
    """Return the result of `write`. Retry it while another transaction holds the same rows."""
    for pause in _CONFLICT_PAUSES:
        try:
            return write()
        except ClientError as exc:
            if not conflicted(exc):
                raise
            time.sleep(random.uniform(0, pause))  # nosec B311 # noqa: S311  (jitter, no secret)
    return write()
