"""The provider's secret: the key of each account, and what it signs callbacks with. The layer's credential.py reads it.

Also the signature itself, as the provider makes
it (Standard Webhooks), for a test callback.
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
    """The secret with another key of `account`; whatever else it holds stays. An older form of the secret, which names
    no account, stays for accounts that have no entry: tasks may be open that were sent with it."""
    rest = {name: value for name, value in _entry(stored, account).items() if name not in _KEY_NAMES}
    return json.dumps({**_accounts(stored), account: {"key": key, **rest} if rest else key})


def with_webhook_secrets(stored: str, account: str, given: str) -> str:
    """The secret with other webhook secrets of `account`, separated by blanks, or without any if `given` is "none"."""
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
    """The headers of a callback with `body`, signed with `secret` at `timestamp` (Unix seconds)."""
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
