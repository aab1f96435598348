"""Webhooks: the address that the provider calls, with a token that only we can make, and signatures. Pure.

`{base}/hooks/kling/{task_id}/{key_id}.{mac}`: Kling signs callbacks only for accounts that ask for it, and relays pass
them through unsigned, so the unguessable path is what tells a callback from a forgery. Where there is a signature, it
is that of Standard Webhooks 1.0.0, in both directions: HMAC-SHA256 over "{id}.{timestamp}.{body}".
"""

import base64
import hmac
from collections.abc import Iterable, Mapping

from kling_relay.security.keyring import Keyring

PROBE = "probe"  # stands where a task id does: a callback for it shows that callbacks arrive, and does nothing else
SIGNATURE_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")

_PURPOSE = "callback/v1"
_MAC_BYTES = 24
_SECRET_PREFIX = "whsec_"  # nosec B105 # noqa: S105  (what every secret begins with, none itself)
_TOLERANCE_SECONDS = 300


def callback_url(base_url: str, keyring: Keyring, task_id: str) -> str:
    """The callback address of `task_id` below the API's own `base_url`."""
    return f"{base_url}/hooks/kling/{task_id}/{_token(keyring, keyring.current, task_id)}"


def is_callback_token(keyring: Keyring, task_id: str, token: str) -> bool:
    """Whether `token` was made for `task_id` under any key that is still on the ring. Constant time per key."""
    key_id = token.partition(".")[0]
    if key_id not in keyring:
        return False
    return hmac.compare_digest(_token(keyring, key_id, task_id).encode(), token.encode("utf-8", "replace"))


def _token(keyring: Keyring, key_id: str, task_id: str) -> str:
    mac = keyring.mac(key_id, _PURPOSE, task_id)[:_MAC_BYTES]
    return f"{key_id}.{base64.urlsafe_b64encode(mac).decode()}"


def signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """The `webhook-signature` of a message under one secret (`whsec_` and base64). `timestamp`: Unix seconds, as it
    stands in its header. Raises ValueError for a secret of another form."""
    encoded = secret.removeprefix(_SECRET_PREFIX)
    key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    if not key:
        raise ValueError("an empty secret signs nothing")
    signed = f"{message_id}.{timestamp}.".encode("utf-8", "surrogatepass") + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"


def signed(secrets: Iterable[str], message_id: str, timestamp: str, body: bytes) -> dict[str, str]:
    """The three headers of a message that each of `secrets` has signed, the newest first."""
    signatures = " ".join(signature(secret, message_id, timestamp, body) for secret in secrets)
    return dict(zip(SIGNATURE_HEADERS, (message_id, timestamp, signatures), strict=True))


def is_signed(secrets: Iterable[str], headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether one of the signatures in `headers` (names in lower case) was made with one of `secrets`, at most five
    minutes from `now` (Unix seconds). Never raises: nothing that is malformed is signed, nor is anything by a malformed
    secret. Constant time per signature."""
    message_id, timestamp, given = (headers.get(name, "") for name in SIGNATURE_HEADERS)
    if not message_id or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 15):
        return False
    if abs(now - int(timestamp)) > _TOLERANCE_SECONDS:
        return False
    signatures = [one.encode("utf-8", "surrogatepass") for one in given.split(" ")]
    matches = []
    for secret in secrets:
        try:
            right = signature(secret, message_id, timestamp, body).encode()
        except ValueError:
            continue
        matches += [hmac.compare_digest(right, one) for one in signatures]
    return any(matches)
