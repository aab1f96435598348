"""What an answer of the provider proves: one type for each class of outcome."""

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

_NO_RIGHT = 1103  # to this model, perhaps, and not to others

_ACCOUNT = _AUTHENTICATION | {1100, 1101, 1102, 1304}

_UNCLEAR = {5000, 5001, 5002}

_MAINTENANCE = (503, 5001)

_MOVED = (301, 302, 307, 308)  # not 303: it answers a POST that was carried out

_NO_ROOM_WORDS = "parallel task over resource pack limit"  # Kling's own, of 1303

# Captures of the official host: kling-surface.md 0.1 and 0.2.
_UNKNOWN_WORDS = "not found by id"

_EXISTS_WORDS = "already exist"

# A 403 with one of these words holds for every task of the account, unless it names a model. A guess at relays' words.
_ACCOUNT_WORDS = ("quota", "balance", "credit", "arrears", "api key", "apikey", "api_key", "token", "permission")


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has the task: it will be billed."""

    provider_task: ProviderTask


@dataclass(frozen=True, slots=True)
class NotSent:
    """The request surely never reached the provider."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider surely did not accept it, and will not. `unclear`: the request is at fault, or else the account."""

    error: KlingError
    unclear: bool = False


@dataclass(frozen=True, slots=True)
class Exists:
    """A task of our own reference is there already, and this POST made no second one: proof that one was accepted."""

    reason: str


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """Surely not accepted: the address of the provider leads elsewhere, which is never followed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """Surely not accepted; it will be when there is room (1303), or asked less often (`too_fast`: 1302, or a 429 that
    says nothing), or when the provider's maintenance is over (`maintenance`)."""

    reason: str
    too_fast: bool = False
    maintenance: bool = False


@dataclass(frozen=True, slots=True)
class AccountBlocked:
    """Surely not accepted, nor will be before an operator acts: key (`authentication`), arrears, rights, caller's
    address."""

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
    provider_task: ProviderTask


@dataclass(frozen=True, slots=True)
class NotFound:
    """The provider says that it does not know this id or reference."""


@dataclass(frozen=True, slots=True)
class QueryFailed:
    """The query itself failed: it says nothing about the task. `outcome`: see `Provider`."""

    reason: str
    outcome: str = field(default="failed", compare=False)


Answer = Found | NotFound | QueryFailed


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of the provider's list. `unreadable` of its entries are no tasks that could be understood."""

    snapshots: list[ProviderTask]
    unreadable: int = 0


def is_authentication_error(status: int, payload: Any) -> bool:
    return status == 401 or (isinstance(payload, dict) and responses.error_code(payload) in _AUTHENTICATION)


def classify_submit(status: int, payload: Any, profile: Profile | None = None, reference: str = "") -> Outcome:
    """What an answer to the paid POST proves: design.md, "What an answer to the paid POST proves". `reference`: ours,
    of the task that was sent. Without a profile nothing holds that only some providers promise."""
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
    if code == 1201 and reference and reference in text:  # it exists, or is at fault: only a look tells
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
    """Without a code of Kling's the HTTP status speaks: 4xx is a refusal, everything else leaves it open. Of a refusal
    Kling's words may say that waiting helps: new-api turns 1303 into 400 with them."""
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
    if not isinstance(payload, dict):
        return _said_nothing(status, payload)
    found = responses.read(payload) if status < 300 else None
    if found is not None:
        return Found(found)
    code = responses.error_code(payload)
    nothing = status == 200 and code == 0 and not payload.get("data", "absent")
    denied = code in (1203, "task_not_exist") or (code == 1201 and _UNKNOWN_WORDS in _error_text(payload).lower())
    if nothing or denied or (status == 404 and code != 1202):
        return NotFound()
    return _said_nothing(status, payload)


def _said_nothing(status: int, payload: Any) -> QueryFailed:
    """An answer that says nothing of the task may still say something of the account: in the same words as to a
    POST."""
    outcome = classify_submit(status, payload)
    kind = "failed" if isinstance(outcome, Accepted) else OUTCOME_NAMES[type(outcome)]
    if not isinstance(payload, dict):
        return QueryFailed(f"HTTP {status} without a readable body", kind)
    return QueryFailed(f"HTTP {status}, code {responses.error_code(payload)}", kind)


def _error_text(payload: dict[str, Any]) -> str:
    """The provider's own words: Kling's `message`, or the `error` object of OpenAI-shaped relays. At most 500
    characters."""
    error = payload.get("error")
    said = payload.get("message") or (error.get("message") if isinstance(error, dict) else error)
    return (said if isinstance(said, str) and said else "no reason given")[:500].encode("utf-8", "replace").decode()
