"""What lies in the provider's secret: its key, and what it signs callbacks with. The layer's credential.py reads it.

The key alone is stored as it is; beside a webhook secret it is JSON. Also the signature itself, as the provider makes
it (Standard Webhooks), for a test callback.
"""

import base64
import hashlib
import hmac
import json
import re
from typing import Any

_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{16,}={0,2}")
_KEY_NAMES = ("key", "access_key", "secret_key")


def with_key(stored: str, key: str) -> str:
    """The secret with another key; whatever else it holds stays."""
    rest = {name: value for name, value in _held(stored).items() if name not in _KEY_NAMES}
    return json.dumps({"key": key, **rest}) if rest else key


def with_webhook_secrets(stored: str, given: str) -> str:
    """The secret with other webhook secrets, separated by blanks, or without any where `given` is "none"."""
    rest = {name: value for name, value in _held(stored).items() if name != "webhook_secret"}
    if given != "none":
        return json.dumps({**rest, "webhook_secret": given})
    return str(rest["key"]) if set(rest) == {"key"} else json.dumps(rest)


def is_webhook_secret(text: str) -> bool:
    return _SECRET.fullmatch(text) is not None


def holds_key(stored: str) -> bool:
    held = _held(stored)
    return bool(held.get("key") or (held.get("access_key") and held.get("secret_key")))


def webhook_secrets(stored: str) -> list[str]:
    return str(_held(stored).get("webhook_secret", "")).split()


def signed(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a callback with `body`, signed with `secret` at `timestamp` (Unix seconds)."""
    key = base64.b64decode(secret.removeprefix("whsec_") + "==")
    mac = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(mac).decode()}"
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def _held(stored: str) -> dict[str, Any]:
    if not stored:
        return {}
    try:
        held = json.loads(stored)
    except ValueError:
        held = None
    return held if isinstance(held, dict) else {"key": stored}
