"""Store API keys: row `key#{key_id}`, and row `tenant-keys#{tenant}` with the ids of a tenant's keys, for lists."""

from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from kling_relay.dynamodb import Rows, condition_failed, plain, value

SCOPES = ("submit", "read")  # POST and DELETE; GET


@dataclass(frozen=True, slots=True)
class KeyRow:
    """The stored data of an API key, never the key itself. Times are Unix milliseconds.

    `valid_until` is not called `expires_at`, which is the table's time to live: an expired key stays, so that its owner
    gets the reason why it does not work.
    """

    key_id: str
    tenant: str
    hash: str
    version: str  # of the stack's secret
    created_at: int
    label: str = ""
    scopes: tuple[str, ...] = SCOPES
    valid_until: int | None = None
    revoked_at: int | None = None

    def state(self, now_ms: int) -> str:
        """Return "active", "expired" or "revoked" at `now_ms`."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.valid_until is None or now_ms < self.valid_until else "expired"


class Keys:
    """API keys in the table. Every read is strongly consistent and nothing is cached: a change takes effect at once."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def put(self, key: KeyRow) -> None:
        """Store a new key and list it under its tenant, in one transaction. An id is never used twice."""
        listed = {
            "TableName": self._rows.name,
            "Key": {"pk": value(f"tenant-keys#{key.tenant}")},
            "UpdateExpression": "ADD key_ids :ids",
            "ExpressionAttributeValues": {":ids": {"SS": [key.key_id]}},
        }
        try:
            self._rows.transact([self._rows.put_new(_item(key)), {"Update": listed}], token=f"key-{key.key_id}")
        except ClientError as exc:
            if not condition_failed(exc) or self.get(key.key_id) != key:  # ours: the answer to our own write was lost
                raise

    def get(self, key_id: str) -> KeyRow | None:
        """Return the row of a key, None if there is none."""
        item = self._rows.get(f"key#{key_id}")
        return None if item is None else _key(item)

    def of(self, tenant: str) -> list[KeyRow]:
        """List all keys of a tenant, oldest first."""
        item = self._rows.get(f"tenant-keys#{tenant}") or {"key_ids": {"SS": []}}
        rows = [self.get(key_id) for key_id in item["key_ids"]["SS"]]
        return sorted((key for key in rows if key is not None), key=lambda key: (key.created_at, key.key_id))

    def revoke(self, key_id: str, now_ms: int) -> bool:
        """Revoke a key. Return False if no key has that id. Revoking twice changes nothing."""
        update = "SET #revoked_at = if_not_exists(#revoked_at, :now)"
        return self._rows.update_if(f"key#{key_id}", update, "attribute_exists(#pk)", now=now_ms)


def _item(key: KeyRow) -> dict[str, Any]:
    row = {name: getattr(key, name) for name in KeyRow.__slots__ if name != "key_id"}
    row["scopes"] = " ".join(key.scopes)
    return {
        "pk": value(f"key#{key.key_id}"),
        **{name: value(field) for name, field in row.items() if field is not None},
    }


def _key(item: dict[str, Any]) -> KeyRow:
    row = {name: plain(stored) for name, stored in item.items() if name in KeyRow.__slots__}
    row["scopes"] = tuple(row["scopes"].split())
    return KeyRow(key_id=plain(item["pk"]).partition("#")[2], **row)
