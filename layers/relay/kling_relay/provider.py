"""Submits to and queries the provider. `providers.json` holds one profile each; nothing here moves a task."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError

from kling_relay import snapshot
from kling_relay.errors import KlingError
from kling_relay.settings import SettingsError
from kling_relay.snapshot import Snapshot

CONNECT_SECONDS = 3.05
QUERY_SECONDS = 10.0
MAX_ANSWER_BYTES = 2_000_000

_REFUSED = {1200, 1201, 1202, 1203, 1300, 1301}
_NO_ROOM = {1302, 1303}
_AUTHENTICATION = {1000, 1001, 1002, 1003, 1004}
_ACCOUNT = _AUTHENTICATION | {1100, 1101, 1102, 1103, 1304}


@dataclass(frozen=True, slots=True)
class Profile:
    """One provider. `path` is the video path with {kind}; `default_model` is per kind.

    `ask_by_reference`: a query finds a task by our own reference. `unique_reference`: a second task with the same
    reference is refused. `hides_reference`: its answers do not repeat our reference.
    """

    name: str
    base_url: str
    path: str
    default_model: dict[str, str]
    ask_by_reference: bool
    unique_reference: bool
    hides_reference: bool


@cache
def _profiles() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "providers.json").read_text())
    return loaded


def profile(name: str, base_url: str = "") -> Profile:
    """The profile `name`, at `base_url` where the operator gave one; raises SettingsError for an unknown name."""
    if name not in _profiles():
        raise SettingsError(f"PROVIDER: {name!r} is not known, there are {', '.join(_profiles())}")
    row = _profiles()[name]
    return Profile(name=name, **{**row, "base_url": (base_url or row["base_url"]).rstrip("/")})


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has the task: it will be billed."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class NotSent:
    """The request surely never reached the provider."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider surely did not accept it, and will not: the request itself is at fault."""

    error: KlingError


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Surely not accepted; it will be when there is room (1302, 1303)."""

    reason: str


@dataclass(frozen=True, slots=True)
class AccountTrouble:
    """Surely not accepted, nor will be before an operator acts: key, arrears, rights, caller's address."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unsure:
    """It may have been accepted and billed, or not: look it up, never repeat it blindly."""

    reason: str


Outcome = Accepted | NotSent | Refused | NoRoom | AccountTrouble | Unsure


@dataclass(frozen=True, slots=True)
class Found:
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Unknown:
    """The provider says that it does not know this id or reference."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """The query itself failed: it says nothing about the task."""

    reason: str


Answer = Found | Unknown | Trouble


class Provider:
    """Speaks to one provider. `key(refresh)` gives its API key, past any cache where `refresh` is true."""

    def __init__(self, profile: Profile, key: Callable[[bool], str]) -> None:
        self.profile = profile
        self._key = key
        self._session = requests.Session()
        self._session.trust_env = False  # no proxies, no .netrc: the key goes where the profile says, nowhere else

    def prepare(self) -> None:
        """Fetch the key while nothing is claimed yet; raises SettingsError where the operator has stored none."""
        self._key(False)

    def submit(self, kind: str, body: dict[str, Any], *, read_seconds: float) -> Outcome:
        """The paid POST, once. Only an authentication error, which bills nothing, allows one more with a new key."""
        outcome = self._post(kind, body, read_seconds, key := self._key(False))
        if isinstance(outcome, AccountTrouble) and (newer := self._key(True)) != key:
            outcome = self._post(kind, body, read_seconds, newer)
        return outcome

    def query(self, kind: str, upstream_id: str) -> Answer:
        """Ask for a task by the provider's id or, where the profile allows it, by our reference. Costs nothing."""
        url = f"{self._url(kind)}/{quote(upstream_id, safe='')}"
        for refresh in (False, True):
            try:
                status, payload = self._call("GET", url, self._key(refresh), QUERY_SECONDS)
            except (requests.RequestException, HTTPError) as exc:
                return Trouble(type(exc).__name__)
            if not _is_authentication_error(status, payload):
                break
        return _classify_query(status, payload)

    def _url(self, kind: str) -> str:
        return self.profile.base_url + self.profile.path.format(kind=kind)

    def _post(self, kind: str, body: dict[str, Any], read_seconds: float, key: str) -> Outcome:
        try:
            status, payload = self._call("POST", self._url(kind), key, read_seconds, body)
        except (requests.RequestException, HTTPError) as exc:
            return NotSent(type(exc).__name__) if _surely_not_sent(exc) else Unsure(type(exc).__name__)
        return _classify_submit(status, payload)

    def _call(self, method: str, url: str, key: str, read_seconds: float, body: Any = None) -> tuple[int, Any]:
        with self._session.request(
            method,
            url,
            json=body,
            headers={"Authorization": f"Bearer {key}"},
            timeout=(CONNECT_SECONDS, read_seconds),
            allow_redirects=False,
            stream=True,
        ) as response:
            raw = response.raw.read(MAX_ANSWER_BYTES + 1, decode_content=True)
            try:
                payload = json.loads(raw)
            except (ValueError, RecursionError):
                payload = None
            return response.status_code, payload


def _surely_not_sent(exc: Exception) -> bool:
    """True where no byte of the request can have reached the provider: no address, no connection, no certificate."""
    seen: list[BaseException] = []
    queue: list[BaseException | None] = [exc]
    while queue:
        cause = queue.pop()
        if cause is None or cause in seen:
            continue
        seen.append(cause)
        queue += [cause.__cause__, cause.__context__, getattr(cause, "reason", None)]
        queue += [inner for inner in cause.args if isinstance(inner, BaseException)]
    names = (ConnectTimeoutError, NewConnectionError, NameResolutionError, requests.ConnectTimeout)
    return any(isinstance(cause, names) or type(cause).__name__ == "SSLCertVerificationError" for cause in seen)


def _is_authentication_error(status: int, payload: Any) -> bool:
    return status == 401 or (isinstance(payload, dict) and snapshot.error_code(payload) in _AUTHENTICATION)


def _classify_submit(status: int, payload: Any) -> Outcome:
    if not isinstance(payload, dict):
        return _classify_bare(status, f"HTTP {status} without a readable body")
    if status < 300 and (found := snapshot.read(payload)) is not None:
        return Accepted(found)
    code, text = snapshot.error_code(payload), _error_text(payload)
    said = f"HTTP {status}, code {code}: {text}"
    if code in _REFUSED:
        return Refused(KlingError(int(code), text))
    if code in _NO_ROOM:
        return NoRoom(said)
    if code in _ACCOUNT:
        return AccountTrouble(said)
    return _classify_bare(status, said, text) if code == 0 or isinstance(code, str) else Unsure(said)


def _classify_bare(status: int, said: str, text: str = "") -> Outcome:
    """Without a code of Kling's only the HTTP status speaks: 4xx is a refusal, everything else leaves it open."""
    if status in (401, 402, 403):
        return AccountTrouble(said)
    if status == 429:
        return NoRoom(said)
    if 400 <= status < 500 and status not in (408, 409, 425):
        return Refused(KlingError(1200, f"the provider refused the request: {text or f'HTTP {status}'}"))
    return Unsure(said)


def _classify_query(status: int, payload: Any) -> Answer:
    if not isinstance(payload, dict):
        return Trouble(f"HTTP {status} without a readable body")
    found = snapshot.read(payload) if status < 300 else None
    if found is not None:
        return Found(found)
    code = snapshot.error_code(payload)
    nothing = status == 200 and code == 0 and not payload.get("data", "absent")
    if nothing or code in (1203, "task_not_exist") or (status == 404 and code != 1202):
        return Unknown()
    return Trouble(f"HTTP {status}, code {code}")


def _error_text(payload: dict[str, Any]) -> str:
    """The provider's own words: Kling's `message`, or the `error` object of OpenAI-shaped relays. At most 500
    characters."""
    error = payload.get("error")
    said = payload.get("message") or (error.get("message") if isinstance(error, dict) else error)
    return str(said or "no reason given")[:500]
