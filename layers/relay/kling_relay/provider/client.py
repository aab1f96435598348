"""Submit tasks to the provider of a profile, and query them. Nothing here moves a task."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from kling_relay.provider import responses
from kling_relay.provider.http import BrokenError, NotConnectedError, Wire
from kling_relay.provider.outcomes import (
    OUTCOME_NAMES,
    AccountBlocked,
    Answer,
    Listed,
    NotSent,
    Outcome,
    QueryFailed,
    Unknown,
    _inconclusive,
    classify_query,
    classify_submit,
    is_authentication_error,
)
from kling_relay.provider.profiles import Profile
from kling_relay.settings import SettingsError

QUERY_SECONDS = 10.0


class Provider:
    """A client of one provider.

    `key(refresh)` returns its API key, or a token in its place; `refresh` true bypasses any cache. `count` receives the
    outcome of every call: ok, no_room, refused, account or failed.
    """

    def __init__(
        self, profile: Profile, key: Callable[[bool], str], count: Callable[[str], None] = lambda outcome: None
    ) -> None:
        self.profile = profile
        self._key = key
        self._count = count
        self._wire = Wire()

    def prepare(self, refresh: bool = False) -> None:
        """Fetch the key before anything is claimed; `refresh` true bypasses any cache.

        Raises SettingsError if no key is stored.
        """
        self.load()
        self._usable_key(refresh)

    def load(self) -> None:
        """Load the HTTP client, which the first call would do otherwise."""
        self._wire.load()

    def authorization(self) -> str:
        """Return the header for a file at the provider's own origin; empty if the key cannot be read: the operator has
        stored none, or the function's role has no right to it, as archive_video's by design."""
        try:
            return f"Bearer {self._usable_key()}"
        except (SettingsError, BotoCoreError, ClientError):
            return ""

    def submit(self, kind: str, body: dict[str, Any], *, read_seconds: float) -> Outcome:
        """Send the paid POST, once. Only an authentication error, which is not billed, allows one more with a new key.

        Both together end within CONNECT_SECONDS + `read_seconds`.
        """
        outcome = self._submit(kind, body, read_seconds)
        self._count(OUTCOME_NAMES[type(outcome)])
        return outcome

    def _submit(self, kind: str, body: dict[str, Any], read_seconds: float) -> Outcome:
        end = time.monotonic() + read_seconds
        try:
            key = self._usable_key()
        except Exception as exc:
            return NotSent(f"no key: {type(exc).__name__}")
        outcome = self._post(kind, body, read_seconds, key)
        if isinstance(outcome, AccountBlocked) and outcome.authentication:
            newer, left = self._newer_key(key), end - time.monotonic()
            if newer is not None and left > read_seconds / 2:
                outcome = self._post(kind, body, left, newer)
        return outcome

    def query(self, kind: str, upstream_id: str) -> Answer:
        """Query a task by the provider's id, or by our reference if the profile allows it. Free of charge."""
        answer: Answer
        try:
            answer = classify_query(*self._get(f"{self._url(kind)}/{quote(upstream_id, safe='', errors='replace')}"))
        except (NotConnectedError, BrokenError, SettingsError) as exc:
            answer = QueryFailed(str(exc))
        self._count(answer.outcome if isinstance(answer, QueryFailed) else "ok")
        return answer

    def list_page(self, kind: str, number: int, size: int) -> Listed | QueryFailed:
        """Return page `number` (from 1) of all tasks of a kind that the account holds; an empty page is the last.

        Use it only if the profile's provider lists. Free of charge.
        """
        answer: Listed | QueryFailed
        try:
            status, payload = self._get(f"{self._url(kind)}?pageNum={number}&pageSize={size}")
        except (NotConnectedError, BrokenError, SettingsError) as exc:
            answer = QueryFailed(str(exc))
        else:
            page = responses.read_list(payload) if status < 300 else None
            answer = Listed(*page) if page is not None else _inconclusive(status, payload)
        self._count(answer.outcome if isinstance(answer, QueryFailed) else "ok")
        return answer

    def _get(self, url: str) -> tuple[int, Any]:
        key = self._usable_key()
        status, payload = self._wire.get(url, key, QUERY_SECONDS)
        if is_authentication_error(status, payload) and (newer := self._newer_key(key)) is not None:
            return self._wire.get(url, newer, QUERY_SECONDS)
        return status, payload

    def _usable_key(self, refresh: bool = False) -> str:
        key = self._key(refresh)
        if not key or " " in key or not (key.isascii() and key.isprintable()):
            raise SettingsError(
                "the key is empty or has characters not allowed in an HTTP header; store it with `make provider-key`"
            )
        return key

    def _newer_key(self, key: str) -> str | None:
        """Return the currently stored key if it is another one."""
        try:
            newer = self._usable_key(refresh=True)
        except Exception:  # the refusal of the old key is the more useful error
            return None
        return newer if newer != key else None

    def _url(self, kind: str) -> str:
        return self.profile.base_url + self.profile.path.format(kind=kind)

    def _post(self, kind: str, body: dict[str, Any], read_seconds: float, key: str) -> Outcome:
        try:
            status, payload = self._wire.post(self._url(kind), key, read_seconds, body)
        except NotConnectedError as exc:
            return NotSent(str(exc))
        except BrokenError as exc:
            return Unknown(str(exc))
        return classify_submit(status, payload, self.profile, str(body.get("external_task_id") or ""))
