"""Derive the secrets that sign a tenant's webhooks from the stack's secret. They are not stored.

A tenant's row `signing#{tenant}` holds the number of its secret and the time of its last change. After a change,
webhooks carry two signatures for a week, as Standard Webhooks recommends, so that receivers have time to switch. A new
key on the stack's ring changes all secrets at once; signatures of the older key continue while it is on the ring.
"""

import base64

from kling_relay.dynamodb import Rows, plain
from kling_relay.security.keyring import Keyring

_PURPOSE = "webhook/v1"
OVERLAP_MS = 7 * 86_400_000


class SigningSecrets:
    """The tenants' secret numbers in the one table. Every tenant starts with number 1, without a row."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def secrets(self, keyring: Keyring, tenant: str, now: int) -> list[str]:
        """Return the secrets that sign a webhook to `tenant` at `now` (ms), the newest first."""
        number, since = self._number(tenant)
        numbers = [number, number - 1] if number > 1 and now < since + OVERLAP_MS else [number]
        newest_first = sorted(keyring.versions, key=lambda kid: (len(kid), kid), reverse=True)
        return [secret(keyring, kid, tenant, one) for one in numbers for kid in newest_first]

    def change(self, tenant: str, now: int) -> None:
        """Give the tenant a new secret at `now` (ms). The previous one keeps signing for a week, an older one ends.

        Condition: no concurrent change, which would have the same effect.
        """
        number, _ = self._number(tenant)
        condition = "attribute_not_exists(#pk)" if number == 1 else "#number = :seen"
        values = {} if number == 1 else {"seen": number}
        update = "SET #number = :next, #since = :now"
        self._rows.update_if(f"signing#{tenant}", update, condition, next=number + 1, now=now, **values)

    def _number(self, tenant: str) -> tuple[int, int]:
        row = self._rows.get(f"signing#{tenant}") or {}
        return (plain(row["number"]), plain(row["since"])) if row else (1, 0)


def secret(keyring: Keyring, kid: str, tenant: str, number: int) -> str:
    """Return the secret in the form that receivers need: `whsec_` and base64 of 32 bytes."""
    return "whsec_" + base64.b64encode(keyring.mac(kid, _PURPOSE, f"{tenant}\0{number}")).decode()
