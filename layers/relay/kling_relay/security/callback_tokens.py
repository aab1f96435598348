"""Build and verify the callback URL that the provider calls, with a token that only we can make. Pure.

The URL is `{base}/hooks/kling/{task_id}/{key_id}.{mac}`. Kling signs callbacks only for accounts that enable it, and
relays pass them on unsigned. So the unguessable path distinguishes a callback from a forgery. If there is a signature,
it is that of Standard Webhooks 1.0.0, in both directions: HMAC-SHA256 over "{id}.{timestamp}.{body}".
"""

import base64
import hmac

from kling_relay.security.keyring import Keyring

PROBE = "probe"  # takes the place of a task id: its callback shows that callbacks arrive, and does nothing else

_PURPOSE = "callback/v1"
_MAC_BYTES = 24


def callback_url(base_url: str, keyring: Keyring, task_id: str) -> str:
    """Build the callback URL of `task_id` below the API's own `base_url`."""
    return f"{base_url}/hooks/kling/{task_id}/{_token(keyring, keyring.current, task_id)}"


def is_callback_token(keyring: Keyring, task_id: str, token: str) -> bool:
    """Return whether `token` was made for `task_id` under any key of the ring. Constant time per key."""
    key_id = token.partition(".")[0]
    if key_id not in keyring:
        return False
    return hmac.compare_digest(_token(keyring, key_id, task_id).encode(), token.encode("utf-8", "replace"))


def _token(keyring: Keyring, key_id: str, task_id: str) -> str:
    mac = keyring.mac(key_id, _PURPOSE, task_id)[:_MAC_BYTES]
    return f"{key_id}.{base64.urlsafe_b64encode(mac).decode()}"
