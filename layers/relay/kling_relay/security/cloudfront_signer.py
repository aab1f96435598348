"""Sign CloudFront URLs with a canned policy: each gives access to one object until it expires.

ECDSA P-256 over SHA-256. The signature is deterministic (RFC 6979), so a URL stays the same while its expiry does.
Rules: "Create a signed URL using a canned policy" in the Amazon CloudFront Developer Guide.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from kling_relay.settings import SettingsError

LIFE_SECONDS = 30 * 86_400  # at least so long from now, like the provider's own
_STEP_SECONDS = 86_400  # expiries are whole days (UTC): a client that caches by URL gets one URL a day
_URL_SAFE = str.maketrans("+=/", "-_~")
_REMEDY = "recreate it with `make delivery-key`"


@dataclass(frozen=True, slots=True)
class DeliveryKey:
    """The key that signs delivery URLs.

    `url`: the distribution's, without a slash at its end. `key_pair_id`: the id of the public half at CloudFront.
    """

    url: str
    key_pair_id: str
    sign: Callable[[bytes], bytes] = field(repr=False)

    @classmethod
    def read(cls, text: str) -> "DeliveryKey":
        """Read the key from its secret, as `make delivery-key` stores it: JSON with `url`, `key_pair_id`,
        `private_key`.

        `private_key` is PEM. Other fields are ignored. Raises SettingsError, which does not repeat the secret.
        """
        try:
            stored = json.loads(text)
            url, key_pair_id = stored["url"], stored["key_pair_id"]
            if not all(isinstance(one, str) and one for one in (url, key_pair_id)):
                raise ValueError
            return cls(url, key_pair_id, _signer(stored["private_key"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SettingsError(f"the delivery key secret is malformed; {_REMEDY}") from None

    def url_of(self, key: str, now_seconds: float) -> str:
        """Return the URL of the object `key`, valid for 30 to 31 days from now."""
        resource = f"{self.url}/{quote(key)}"
        expires = -int(-(now_seconds + LIFE_SECONDS) // _STEP_SECONDS) * _STEP_SECONDS
        signature = base64.b64encode(self.sign(canned_policy(resource, expires))).decode().translate(_URL_SAFE)
        return (
            f"{resource}?Expires={expires}&Signature={signature}&Key-Pair-Id={self.key_pair_id}&Hash-Algorithm=SHA256"
        )


def canned_policy(resource: str, expires: int) -> bytes:
    """Build the text to sign. CloudFront builds the same bytes from the requested URL."""
    condition = {"DateLessThan": {"AWS:EpochTime": expires}}
    policy = {"Statement": [{"Resource": resource, "Condition": condition}]}
    return json.dumps(policy, separators=(",", ":")).encode()


def _signer(private_key: str) -> Callable[[bytes], bytes]:
    # A stack without a key, and a call without a video, do not pay for the import (35 ms of CPU).
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key: Any = load_pem_private_key(private_key.encode(), password=None)
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError("private_key: must be a P-256 key")
    algorithm = ECDSA(SHA256(), deterministic_signing=True)
    return lambda message: key.sign(message, algorithm)
