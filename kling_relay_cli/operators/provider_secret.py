"""The provider's secret: the key and the webhook secrets of each account. The layer's provider/credentials.py reads it.

Also the provider's signature (Standard Webhooks), for a test callback.
"""

import base64
import hashlib
import hmac
import json
import re
from typing import Any

from kling_relay.provider.credentials import entries, entry_of

_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{16,}={0,2}")
_KEY_NAMES = ("key", "access_key", "secret_key")


def with_key(stored: str, account: str, key: str) -> str:
    """Return the secret with another key of `account`; all other entries stay.

    An older form of the secret names no account. It stays for accounts without an entry, because open tasks may use it.
    """
    rest = {name: value for name, value in _entry(stored, account).items() if name not in _KEY_NAMES}
    return json.dumps({**_accounts(stored), account: {"key": key, **rest} if rest else key})


def with_webhook_secrets(stored: str, account: str, given: str) -> str:
    """Return the secret with other webhook secrets of `account`, separated by blanks. "none" removes them."""
    rest = {name: value for name, value in _entry(stored, account).items() if name != "webhook_secret"}
    entry: Any = rest if given == "none" else {**rest, "webhook_secret": given}
    return json.dumps({**_accounts(stored), account: entry["key"] if set(entry) == {"key"} else entry})


def is_webhook_secret(text: str) -> bool:
    return _SECRET.fullmatch(text) is not None


def holds_key(stored: str, account: str) -> bool:
    held = _entry(stored, account)
    alone = isinstance(held.get("key"), str) and held["key"] != ""
    return alone or bool(held.get("access_key") and held.get("secret_key"))


def webhook_secrets(stored: str, account: str) -> list[str]:
    return str(_entry(stored, account).get("webhook_secret", "")).split()


def signed(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a callback with `body`, signed with `secret` at `timestamp` (Unix seconds)."""
    key = base64.b64decode(secret.removeprefix("whsec_") + "==")
    mac = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(mac).decode()}"
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def _accounts(stored: str) -> dict[str, Any]:
    return {name: _read(entry) if entry.startswith("{") else entry for name, entry in entries(stored).items()}


def _entry(stored: str, account: str) -> dict[str, Any]:
    return _read(entry_of(stored, account))


def _read(entry: str) -> dict[str, Any]:
    if not entry:
        return {}
    try:
        held = json.loads(entry)
    except (ValueError, RecursionError):
        held = None
    return held if isinstance(held, dict) else {"key": entry}
