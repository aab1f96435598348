"""Rows of the one table: values as DynamoDB wants them, and the conditional writes that every concept shares."""

import random
import re
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from botocore.exceptions import ClientError

# Two transactions on one row at once: DynamoDB cancels one of them, and the SDK does not repeat it.
_TRANSIENT = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
_CONFLICT_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 0.8, 0.8)  # at most: by chance less, so that all do not come again
_BATCH_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, None)
_MAX_KEYS = 100  # of one BatchGetItem

T = TypeVar("T")


class ConflictError(Exception):
    """Somebody else moved the row first. Normal: read it again and decide anew."""


class Rows:
    """The table `name` through a low-level DynamoDB `client`."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name

    def get(self, pk: str) -> dict[str, Any] | None:
        """The item as it is now (a strongly consistent read)."""
        item: dict[str, Any] | None = self.client.get_item(
            TableName=self.name, Key={"pk": {"S": pk}}, ConsistentRead=True
        ).get("Item")
        return item

    def get_all(self, pks: list[str], only: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """The items of `pks`, each named once, as they are now, by pk; those that are gone are left out. `only`: the
        attributes to read, pk among them; without it all."""
        names = {f"#{name}": name for name in only}
        part = {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names} if only else {}
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(pks), _MAX_KEYS):
            keys = [{"pk": value(pk)} for pk in pks[start : start + _MAX_KEYS]]
            for pause in _BATCH_PAUSES:
                wanted = {"Keys": keys, "ConsistentRead": True, **part}
                answer = self.client.batch_get_item(RequestItems={self.name: wanted})
                found |= {plain(item["pk"]): item for item in answer["Responses"].get(self.name, [])}
                keys = answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
                if not keys:
                    break
                if pause is None:
                    raise RuntimeError(f"{len(keys)} rows could not be read: the table is too busy")
                time.sleep(pause)
        return found

    def put_new(self, item: dict[str, Any]) -> dict[str, Any]:
        """The part of a transaction that writes `item` where there is none of its key."""
        return {"Put": {"TableName": self.name, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}}

    def expression(self, pk: str, update: str, condition: str, **values: Any) -> dict[str, Any]:
        """A conditional update. Attributes are `#name` in its texts, values `:name`."""
        given = {f":{name}": value(one) for name, one in values.items()}
        return {
            "TableName": self.name,
            "Key": {"pk": {"S": pk}},
            "UpdateExpression": update,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {f"#{name}": name for name in re.findall(r"#(\w+)", f"{update} {condition}")},
            **({"ExpressionAttributeValues": given} if given else {}),  # DynamoDB refuses an empty one
        }

    def update(self, expression: dict[str, Any], mark: str = "write") -> dict[str, Any]:
        """One conditional update that sets the attribute `mark` to a new token; the row after it. Raises ConflictError.

        A failed condition whose old row carries that token is our own write, repeated by the SDK because the first
        answer was lost: success. Writers that may come between have another mark, so that they do not hide it.
        """
        try:
            answer = _patiently(
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
        """One conditional update whose loss is no news: False where its condition did not hold."""
        try:
            _patiently(lambda: self.client.update_item(**self.expression(pk, update, condition, **values)))
        except ClientError as exc:
            if not condition_failed(exc):
                raise
            return False
        return True

    def transact(self, items: list[dict[str, Any]], token: str) -> None:
        """All of `items` or none; repeated while another transaction is at the same rows."""
        _patiently(lambda: self.client.transact_write_items(TransactItems=items, ClientRequestToken=token))


def new_token() -> str:
    """Marks a write as ours."""
    return uuid.uuid4().hex


def value(given: Any) -> dict[str, Any]:
    """`given`, a number or a text, as DynamoDB wants it. Half surrogates, which it refuses, become '?'."""
    return {"N": str(given)} if isinstance(given, int) else {"S": str(given).encode(errors="replace").decode()}


def plain(stored: dict[str, Any]) -> Any:
    return int(stored["N"]) if "N" in stored else stored["S"]


def condition_failed(exc: ClientError) -> bool:
    """Whether a condition of ours, and nothing else, refused the write."""
    if exc.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
        return True
    return _cancellations(exc) == {"ConditionalCheckFailed"}


def failed_parts(exc: ClientError) -> set[int]:
    """The places of a transaction's parts whose conditions did not hold."""
    reasons = exc.response.get("CancellationReasons", [])
    return {place for place, reason in enumerate(reasons) if reason.get("Code") == "ConditionalCheckFailed"}


def conflicted(exc: ClientError) -> bool:
    """Whether a transaction on the same row was in the way: the same write may succeed in a moment."""
    code = exc.response.get("Error", {}).get("Code")
    return code == "TransactionConflictException" or bool(_TRANSIENT & _cancellations(exc))


def _cancellations(exc: ClientError) -> set[Any]:
    """Why a transaction was cancelled: the codes of the parts that were at fault."""
    return {reason.get("Code") for reason in exc.response.get("CancellationReasons", [])} - {None, "None"}


def _patiently(write: Callable[[], T]) -> T:
    """What `write` returns; it is repeated while another transaction is at the same rows."""
    for pause in _CONFLICT_PAUSES:
        try:
            return write()
        except ClientError as exc:
            if not conflicted(exc):
                raise
            time.sleep(random.uniform(0, pause))  # nosec B311 # noqa: S311  (jitter, no secret)
    return write()
