"""Classify the provider's answers: one type for each outcome that an answer proves."""

from dataclasses import dataclass, field
from typing import Any

from kling_relay.errors import KlingError
from kling_relay.provider import responses
from kling_relay.provider.profiles import Profile
from kling_relay.provider.responses import ProviderTask

_REFUSED = {1200, 1201, 1202, 1203, 1300, 1301}

_TOO_FAST = 1302

_NO_ROOM = {_TOO_FAST, 1303}

_AUTHENTICATION = {1000, 1001, 1002, 1003, 1004}

_NO_RIGHT = 1103  # perhaps only for this model, and not for others

_ACCOUNT = _AUTHENTICATION | {1100, 1101, 1102, 1304}

_UNCLEAR = {5000, 5001, 5002}

_MAINTENANCE = (503, 5001)

_MOVED = (301, 302, 307, 308)  # not 303: it answers a POST that was carried out

_NO_ROOM_WORDS = "parallel task over resource pack limit"  # Kling's own, of 1303

# Captured from the official host.
_UNKNOWN_WORDS = "not found by id"

_EXISTS_WORDS = "already exist"

# A 403 with one of these words applies to every task of the account, unless it names a model. The words are a guess at
# those of relays.
_ACCOUNT_WORDS = ("quota", "balance", "credit", "arrears", "api key", "apikey", "api_key", "token", "permission")


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has the task: it will be billed."""

    provider_task: ProviderTask


@dataclass(frozen=True, slots=True)
class NotSent:
    """The request certainly never reached the provider."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider certainly did not accept it, and will not.

    `unclear`: the cause is either the request or the account.
    """

    error: KlingError
    unclear: bool = False


@dataclass(frozen=True, slots=True)
class Exists:
    """A task with our reference exists already, and this POST created no second one: proof that one was accepted."""

    reason: str


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """Certainly not accepted: the provider's URL redirects elsewhere, which is never followed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """Certainly not accepted.

    A retry can succeed later: once a slot is free (1303), at a lower rate (`too_fast`: 1302, or a bare 429), or after
    the provider's maintenance (`maintenance`).
    """

    reason: str
    too_fast: bool = False
    maintenance: bool = False


@dataclass(frozen=True, slots=True)
class AccountBlocked:
    """Certainly not accepted, and no retry succeeds before an operator acts.

    The cause is the key (`authentication`), arrears, rights, or the caller's IP address.
    """

    reason: str
    authentication: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been accepted and billed, or not: look it up, never repeat it blindly."""

    reason: str


Outcome = Accepted | Exists | NotSent | Refused | Throttled | AccountBlocked | Misconfigured | Unknown

OUTCOME_NAMES: dict[type, str] = {
    **dict.fromkeys((Accepted, Exists), "ok"),
    **dict.fromkeys((AccountBlocked, Misconfigured), "account"),
    **dict.fromkeys((NotSent, Unknown), "failed"),
    Throttled: "no_room",
    Refused: "refused",
}


@dataclass(frozen=True, slots=True)
class Found:
    """The provider has the task."""

    provider_task: ProviderTask


@dataclass(frozen=True, slots=True)
class NotFound:
    """The provider has no task with this id or reference."""


@dataclass(frozen=True, slots=True)
class QueryFailed:
    """The query itself failed, and proves nothing about the task. `outcome`: see `Provider`."""

    reason: str
    outcome: str = field(default="failed", compare=False)


Answer = Found | NotFound | QueryFailed


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of the provider's list. `unreadable` counts its entries that cannot be parsed as a task."""

    snapshots: list[ProviderTask]
    unreadable: int = 0


def is_authentication_error(status: int, payload: Any) -> bool:
    """Return whether an answer rejects the key: HTTP 401, or one of the codes 1000 to 1004."""
    return status == 401 or (isinstance(payload, dict) and responses.error_code(payload) in _AUTHENTICATION)


def classify_submit(status: int, payload: Any, profile: Profile | None = None, reference: str = "") -> Outcome:
    """Return the outcome that an answer to the paid POST proves.

    docs/explanation/decisions/paid-post.md has the rules. `reference`: ours, of the task that was sent. Without a
    profile, guarantees of single providers do not apply.
    """
    if not isinstance(payload, dict):
        if responses.names_task(payload):
            return Unknown(f"HTTP {status} with the id of a task")
        return _classify_bare(status, f"HTTP {status} without a readable body")
    found = responses.read(payload) if status < 300 and not payload.get("error") else None
    if found is not None:
        return Accepted(found)
    code, text = responses.error_code(payload), _error_text(payload)
    said = f"HTTP {status}, code {code}: {text}"
    if responses.names_task(payload):
        return Unknown(f"HTTP {status}, code {code}, with the id of a task: {text}")
    if (status, code) == _MAINTENANCE and profile is not None and profile.maintenance_refuses:
        return Throttled(said, maintenance=True)
    if code in _UNCLEAR:
        return Unknown(said)
    if status >= 500 or status in _MOVED or isinstance(code, str):
        return _classify_bare(status, said, text)
    if code == 1201 and reference and reference in text:  # it exists, or is at fault: only a look-up decides
        unique = profile is not None and profile.unique_reference and _EXISTS_WORDS in text.lower()
        return Exists(said) if unique else Unknown(said)
    return _classify_code(code, status, said, text)


def _classify_code(code: int, status: int, said: str, text: str) -> Outcome:
    if code in _REFUSED:
        return Refused(KlingError(code, text))
    if code == _NO_RIGHT:
        return Refused(KlingError(code, text), unclear=True)
    if code in _NO_ROOM:
        return Throttled(said, too_fast=code == _TOO_FAST)
    if code in _ACCOUNT:
        return AccountBlocked(said, authentication=code in _AUTHENTICATION)
    return _classify_bare(status, said, text)


def _classify_bare(status: int, said: str, text: str = "") -> Outcome:
    """Classify an answer without a Kling code by its HTTP status: 4xx is a refusal, everything else is unknown.

    Kling's words in a refusal may mean that waiting helps: new-api turns 1303 into 400 with them.
    """
    if status in _MOVED:
        return Misconfigured(said)
    if status in (401, 402):
        return AccountBlocked(said, authentication=status == 401)
    if status == 403:
        words = said.lower()
        if "model" not in words and any(word in words for word in _ACCOUNT_WORDS):
            return AccountBlocked(said)
        return Refused(_bare_refusal(status, text), unclear=True)
    if status == 429:
        return Throttled(said, too_fast=True)
    if 400 <= status < 500 and status not in (408, 409, 425):
        return Throttled(said) if _NO_ROOM_WORDS in text.lower() else Refused(_bare_refusal(status, text))
    return Unknown(said)


def _bare_refusal(status: int, text: str) -> KlingError:
    return KlingError(1200, f"the provider refused the request: {text or f'HTTP {status}'}")


def classify_query(status: int, payload: Any) -> Answer:
    """Return the outcome that an answer to a query proves."""
    if not isinstance(payload, dict):
        return _inconclusive(status, payload)
    found = responses.read(payload) if status < 300 else None
    if found is not None:
        return Found(found)
    code = responses.error_code(payload)
    nothing = status == 200 and code == 0 and not payload.get("data", "absent")
    denied = code in (1203, "task_not_exist") or (code == 1201 and _UNKNOWN_WORDS in _error_text(payload).lower())
    if nothing or denied or (status == 404 and code != 1202):
        return NotFound()
    return _inconclusive(status, payload)


def _inconclusive(status: int, payload: Any) -> QueryFailed:
    """Build the QueryFailed of an answer that proves nothing about the task.

    It may still prove something about the account, by the same rules as an answer to a POST.
    """
    outcome = classify_submit(status, payload)
    kind = "failed" if isinstance(outcome, Accepted) else OUTCOME_NAMES[type(outcome)]
    if not isinstance(payload, dict):
        return QueryFailed(f"HTTP {status} without a readable body", kind)
    return QueryFailed(f"HTTP {status}, code {responses.error_code(payload)}", kind)


def _error_text(payload: dict[str, Any]) -> str:
    """Return the provider's error text: Kling's `message`, or the `error` object of OpenAI-shaped relays.

    At most 500 characters.
    """
    error = payload.get("error")
    message = payload.get("message") or (error.get("message") if isinstance(error, dict) else error)
    text = message if isinstance(message, str) and message else "no reason given"
    return text[:500].encode("utf-8", "replace").decode()
