"""Authenticate callers: by our API keys, and by Kling AK/SK tokens made from them.

A key is `kr_{key id}_{secret}_{check}`. The table holds a keyed hash of the secret. The same key is an AK/SK pair for
clients that can only sign tokens: the secret half is derived from the stack's secret and never stored. Both lead to the
same row, so expiry, revocation and scopes apply to both.
"""

import hmac
import secrets
import zlib
from dataclasses import dataclass

from kling_relay.errors import KlingError
from kling_relay.security.api_keys import SCOPES, KeyRow, Keys
from kling_relay.security.keyring import Keyring, base62

_KEY_ID_LENGTH = 12
_SECRET_LENGTH = 43  # base62: 256 bits
_MAX_TOKEN_CHARACTERS = 2048
_QUOTES = "\"'`"
_LEEWAY_SECONDS = 60
_MAX_LIFE_SECONDS = 1800  # Kling's own tokens live half an hour


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key. It is returned once, at creation."""

    key_id: str
    api_key: str
    access_key: str
    secret_key: str


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller and its scopes."""

    tenant: str
    scopes: tuple[str, ...]
    key_id: str

    def need(self, scope: str) -> None:
        """Raise KlingError 1103 (HTTP 403) if this key lacks `scope`."""
        if scope not in self.scopes:
            has = ", ".join(self.scopes) or "none"
            raise KlingError(1103, f"API key lacks scope {scope!r} (has: {has})")


def issue(
    keys: Keys,
    keyring: Keyring,
    tenant: str,
    now_ms: int,
    *,
    label: str = "",
    scopes: tuple[str, ...] = SCOPES,
    valid_until: int | None = None,
) -> IssuedKey:
    """Create an API key of `tenant` and store the data that verifies it. `valid_until` (ms): None means no expiry."""
    key_id = base62(secrets.token_bytes(16), _KEY_ID_LENGTH)
    secret = base62(secrets.token_bytes(40), _SECRET_LENGTH)
    version = keyring.current
    secret_hash = _hash(keyring, version, secret)
    keys.put(KeyRow(key_id, tenant, secret_hash, version, now_ms, label, scopes, valid_until))
    body = f"kr_{key_id}_{secret}"
    return IssuedKey(key_id, f"{body}_{_check(body)}", f"krak{key_id}", _secret_key(keyring, version, key_id))


def authenticate(header: str | None, keys: Keys, keyring: Keyring, now_ms: int) -> Caller:
    """Return the caller of a header Authorization or X-API-KEY. Raises KlingError 1000-1004 (HTTP 401)."""
    credential = _credential(header)
    if credential.startswith("kr_"):
        row = _by_api_key(credential, keys, keyring)
    elif credential.count(".") == 2:
        row = _by_token(credential, keys, keyring, now_ms)
    else:
        raise KlingError(1002, _hint(credential))
    if row.state(now_ms) == "expired":  # revealed only to a caller who has proved to own the key
        raise KlingError(1002, "the API key has expired; ask for a new one")
    return Caller(row.tenant, row.scopes, row.key_id)


def _credential(header: str | None) -> str:
    """Return the key or token of a header. Raises KlingError if it has none, or one that cannot be ours."""
    credential = (header or "").strip()
    scheme, _, rest = credential.partition(" ")
    if scheme.lower() == "bearer":
        credential = rest.strip()
    if not credential:
        raise KlingError(1001)
    if len(credential) > _MAX_TOKEN_CHARACTERS or not credential.isascii():
        raise KlingError(1002)
    # Some gateways in front of us store only keys that begin with sk-.
    return credential[3:] if credential.startswith("sk-kr_") else credential


def _hint(credential: str) -> str:
    """Return a hint for a well-known mistake with keys; empty for everything else."""
    if credential.lower().startswith("bearer"):
        return "Authorization: must have Bearer once (got it twice); give the client the key alone"
    if credential[0] in _QUOTES or credential[-1] in _QUOTES:
        return "Authorization: must not have quotes; send the key without them"
    if credential.startswith("krak"):
        return "Authorization: must be an API key (kr_...) or a token signed with the secret key (got an access key)"
    return ""


def _by_api_key(credential: str, keys: Keys, keyring: Keyring) -> KeyRow:
    body, _, check = credential.rpartition("_")
    parts = body.split("_")
    if len(parts) != 3 or not hmac.compare_digest(_check(body), check):
        raise KlingError(1002)  # a typing mistake: refused without a read
    row = _row(keys, keyring, parts[1])
    computed = _hash(keyring, row.version if row else keyring.current, parts[2])
    same = hmac.compare_digest(computed, row.hash if row else computed[::-1])  # takes as long without a row
    if row is None or not same:
        raise KlingError(1002)
    return row


def _by_token(token: str, keys: Keys, keyring: Keyring, now_ms: int) -> KeyRow:
    """Verify a token as Kling's samples make it: HS256, iss = access key, exp = now + 1800 s, nbf = now - 5 s.

    nbf may be missing, as RFC 7519 allows: its only use is to start later.
    """
    import jwt  # only for clients that sign: other calls do not pay for the import

    try:
        access_key = jwt.decode(token, options={"verify_signature": False}).get("iss")
        row = None
        if isinstance(access_key, str) and access_key.startswith("krak"):
            row = _row(keys, keyring, access_key[4:])
        if row is None or not isinstance(access_key, str):
            raise KlingError(1002)
        secret = _secret_key(keyring, row.version, access_key[4:])
        claims = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            # the times are checked below, by our own clock
            options={"require": ["iss", "exp"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
        expires, begins = float(claims["exp"]), float(claims.get("nbf", 0))
    except (jwt.PyJWTError, TypeError, ValueError, OverflowError) as exc:
        raise KlingError(1002) from exc
    now = now_ms / 1000
    if not begins <= now + _LEEWAY_SECONDS:
        raise KlingError(1003)
    if not expires >= now - _LEEWAY_SECONDS:
        raise KlingError(1004)
    if expires - now > _MAX_LIFE_SECONDS + _LEEWAY_SECONDS:
        raise KlingError(1002, f"exp: must be at most {_MAX_LIFE_SECONDS} s from now (got {expires - now:.0f} s)")
    return row


def _row(keys: Keys, keyring: Keyring, key_id: str) -> KeyRow | None:
    """Return the row of a key, or None if it is unknown, revoked, or made with a removed version of the secret."""
    row = keys.get(key_id) if key_id.isalnum() else None
    return row if row is not None and row.revoked_at is None and row.version in keyring else None


def _hash(keyring: Keyring, version: str, secret: str) -> str:
    return keyring.mac(version, "api-key/v1", secret).hex()


def _secret_key(keyring: Keyring, version: str, key_id: str) -> str:
    return base62(keyring.mac(version, "secret-key/v1", key_id), _SECRET_LENGTH)


def _check(body: str) -> str:
    """Return a checksum. With it secret scanners, and we without a read, recognise a complete key."""
    return base62(zlib.crc32(body.encode()).to_bytes(4, "big"), 6)
