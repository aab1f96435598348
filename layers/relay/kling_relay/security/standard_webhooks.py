"""Sign and verify webhooks by the Standard Webhooks specification. Pure."""

import base64
import hmac
from collections.abc import Iterable, Mapping

SIGNATURE_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")

_SECRET_PREFIX = "whsec_"  # nosec B105 # noqa: S105  (a prefix, not a secret)

_TOLERANCE_SECONDS = 300


def signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """Return the `webhook-signature` of a message under one secret (`whsec_` and base64).

    `timestamp`: Unix seconds, as in its header. Raises ValueError for a secret of another form.
    """
    encoded = secret.removeprefix(_SECRET_PREFIX)
    key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    if not key:
        raise ValueError("the secret must not be empty")
    signed = f"{message_id}.{timestamp}.".encode("utf-8", "surrogatepass") + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"


def signed(secrets: Iterable[str], message_id: str, timestamp: str, body: bytes) -> dict[str, str]:
    """Return the three headers of a message, signed with each of `secrets`, the newest first."""
    signatures = " ".join(signature(secret, message_id, timestamp, body) for secret in secrets)
    return dict(zip(SIGNATURE_HEADERS, (message_id, timestamp, signatures), strict=True))


def is_signed(secrets: Iterable[str], headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Return whether one of the signatures in `headers` (names in lower case) was made with one of `secrets`.

    The timestamp must be at most five minutes from `now` (Unix seconds). Never raises: a malformed header is not
    signed, and a malformed secret signs nothing. Constant time per signature.
    """
    message_id, timestamp, signature_header = (headers.get(name, "") for name in SIGNATURE_HEADERS)
    if not message_id or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 15):
        return False
    if abs(now - int(timestamp)) > _TOLERANCE_SECONDS:
        return False
    signatures = [one.encode("utf-8", "surrogatepass") for one in signature_header.split(" ")]
    matches = []
    for secret in secrets:
        try:
            expected = signature(secret, message_id, timestamp, body).encode()
        except ValueError:
            continue
        matches += [hmac.compare_digest(expected, one) for one in signatures]
    return any(matches)
