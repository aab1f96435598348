"""Play a provider in memory: its ledger holds the paid tasks, and its answers can have every known fault."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kling_relay.errors import KlingError
from kling_relay.provider.outcomes import (
    Accepted,
    AccountBlocked,
    Answer,
    Found,
    NotFound,
    NotSent,
    Outcome,
    QueryFailed,
    Refused,
    Throttled,
    Unknown,
    classify_submit,
)
from kling_relay.provider.profiles import Profile
from kling_relay.provider.responses import ProviderTask

VIDEO_URL = "https://cdn.example/v.mp4?canary-signature"


@dataclass
class Sold:
    reference: str
    upstream_id: str
    at: int  # ms; in the future: accepted, but queries do not find it before
    seconds: float
    end: str = "succeed"
    account: int = 1  # the account of its ledger


# Errors whose body names the created task. Guess: a relay passes on its second account's answer with the error of the
# first. The texts are invented.
_NAMED: dict[str, tuple[int, dict[str, Any]]] = {
    "named_full": (429, {"code": 1303, "message": "canary-words"}),
    "named_refused": (400, {"code": 1201, "message": "canary-words"}),
    "named_down": (503, {"code": 5001, "message": "canary-words"}),
    "named_200": (200, {"code": 0, "error": {"message": "canary-words"}}),
}
# Errors that prove something else in each profile.
_ERRORS: dict[str, tuple[int, Any]] = {
    "maintenance": (503, {"code": 5001, "message": "canary-words"}),  # document: Kling's error table
    "moved": (308, None),  # guess: an operator configures an address that redirects
    "forbidden": (403, {"code": 1103, "message": "no right to use this model"}),  # document: Kling's error table
    "firewall": (403, None),  # guess: HTML of a relay's firewall, which reads prompts
}


def _one_video(sold: Sold) -> list[dict[str, str]]:
    return [{"id": f"v-{sold.upstream_id}", "url": VIDEO_URL, "duration": "5"}]


def reordered() -> Callable[[Sold], list[dict[str, str]]]:
    """Return two videos, in another order in every answer. Guess: no provider promises an order."""
    turns = itertools.count()

    def videos(sold: Sold) -> list[dict[str, str]]:
        letters = "AB" if next(turns) % 2 else "BA"
        return [{"id": f"file-{one}", "url": f"https://cdn.example/{one}.mp4", "duration": "5"} for one in letters]

    return videos


class LedgerProvider:
    """Replace provider.Provider. Each call uses up one entry of `submit_faults` or `query_faults`."""

    def __init__(self, clock: Any, effects: Any, **profile: Any) -> None:
        known = {"ask_by_reference": True, "unique_reference": False, "hides_reference": False, **profile}
        model = {"image2video": "kling-v3", "multi-image2video": "kling-v1-6"}
        model |= {"text2video": "kling-v3", "omni-video": "kling-video-o1"}
        self.profile = Profile("kling", "https://provider.example", "/v1/videos/{kind}", model, **known)
        self.clock, self.effects = clock, effects
        self.sold: list[Sold] = []  # tasks of every account
        self.account = 1
        self.posts: list[dict[str, Any]] = []
        self.queries: list[str] = []
        self.controls: list[str] = []
        self.submit_faults: list[str] = []
        self.query_faults: list[str] = []
        self.usually = "accept"  # the outcome of a POST without a planned fault
        self.slots, self.seconds, self.end = 0, 60.0, "succeed"
        self.queued = 1.0  # seconds until a task is processing
        self.words = "the picture is blocked"  # the reason of a failed render
        self.videos: Callable[[Sold], list[dict[str, str]]] = _one_video  # computed for each answer
        self.units = "1.5"  # the cost of a finished task
        self.per_second = 0  # POSTs; a further one is refused
        self._posted: list[int] = []
        self.denies = False  # not found for every query by reference, like a relay that does not store references
        self.prepared: Exception | None = None
        self._numbers = itertools.count(1)

    def another(self) -> "LedgerProvider":
        """Return another account, which has no access to this one's tasks. `sold` is the list of both."""
        other = LedgerProvider(self.clock, self.effects)
        other.profile, other.sold, other._numbers = self.profile, self.sold, self._numbers
        other.account, other.seconds, other.videos = self.account + 1, self.seconds, self.videos
        return other

    @property
    def own(self) -> list[Sold]:
        return [one for one in self.sold if one.account == self.account]

    def billed(self, reference: str) -> int:
        return sum(one.reference == reference for one in self.sold)

    def running(self) -> int:
        now = self.clock.now_ms()
        return sum(one.at <= now < one.at + one.seconds * 1000 for one in self.own)

    def prepare(self, refresh: bool = False) -> None:
        if self.prepared is not None:
            raise self.prepared

    def authorization(self) -> str:
        return "Bearer the-providers-key"

    def submit(self, kind: str, body: dict[str, Any], *, read_seconds: float) -> Outcome:
        outcome: Outcome = self.effects.around("POST", lambda: self._submit(body))
        return outcome

    def _submit(self, body: dict[str, Any]) -> Outcome:
        reference = body["external_task_id"]
        self.posts.append(body)
        fault = self.submit_faults.pop(0) if self.submit_faults else self.usually
        name, _, seconds = fault.partition(":")
        surely_not: dict[str, Outcome] = {
            "not_sent": NotSent("ConnectTimeout"),
            "no_room": Throttled("HTTP 429, code 1303: canary-words"),
            "too_fast": Throttled("HTTP 429, code 1302: canary-words", too_fast=True),
            "arrears": AccountBlocked("HTTP 429, code 1101: canary-words"),
            "refused": Refused(KlingError(1201, "prompt: too rude")),
            "risky": Refused(KlingError(1301, "canary-words")),
            "dropped": Unknown("ConnectionError: canary-words"),
        }
        if name in surely_not:
            return surely_not[name]
        if name in _ERRORS:
            return self._read(_ERRORS[name], reference)
        if self.per_second and self._too_fast():
            return surely_not["too_fast"]
        if self.slots and self.running() >= self.slots:
            return surely_not["no_room"]
        if self.profile.unique_reference and any(one.reference == reference for one in self.own):
            exists = f"External_task_id {reference} already exists"  # capture of the official host
            return self._read((400, {"code": 1201, "message": exists}), reference)
        at = self.clock.now_ms() + int(float(seconds or 0) * 1000)
        sold = Sold(reference, f"up-{next(self._numbers)}", at, self.seconds, self.end, self.account)
        self.sold.append(sold)
        if name in _NAMED:
            status, body = _NAMED[name]
            return self._read((status, {**body, "data": {"task_id": sold.upstream_id}}), reference)
        return Accepted(ProviderTask(sold.upstream_id, "submitted")) if name == "accept" else Unknown("ReadTimeout")

    def _read(self, answer: tuple[int, Any], reference: str) -> Outcome:
        """Return the relay's interpretation of an answer."""
        return classify_submit(*answer, self.profile, reference)

    def _too_fast(self) -> bool:
        now = self.clock.now_ms()
        self._posted = [at for at in self._posted if at > now - 1000]
        if len(self._posted) >= self.per_second:
            return True
        self._posted.append(now)
        return False

    def query(self, kind: str, upstream_id: str) -> Answer:
        # A query by reference for a task that was queried by its id before: the relay's positive control.
        control = any(one.reference == upstream_id and one.upstream_id in self.queries for one in self.sold)
        (self.controls if control else self.queries).append(upstream_id)
        fault = self.query_faults.pop(0) if self.query_faults and not control else ""
        if fault in ("trouble", "unknown"):
            return QueryFailed("HTTP 502 without a readable body") if fault == "trouble" else NotFound()
        now, by_reference = self.clock.now_ms(), self.profile.ask_by_reference
        by_reference = by_reference and not self.denies
        known = [one for one in self.own if one.at <= now]
        meant = [
            one for one in known if upstream_id == one.upstream_id or (by_reference and upstream_id == one.reference)
        ]
        # Another task's answer. Guess: a relay or a cache between us and it takes one for another. An answer to a
        # question by reference that shows no reference is left out: nothing in it can prove whose task it is.
        provable = not self.profile.hides_reference or any(one.upstream_id == upstream_id for one in known)
        if fault == "mixed" and provable:
            meant = [one for one in known if one not in meant] or meant
        return Found(self._snapshot(meant[0], fault)) if meant else NotFound()

    def _snapshot(self, sold: Sold, fault: str) -> ProviderTask:
        age = (self.clock.now_ms() - sold.at) / 1000
        status: Any = sold.end if age >= sold.seconds else "processing" if age > self.queued else "submitted"
        videos = tuple(self.videos(sold))
        reference = None if self.profile.hides_reference else sold.reference
        if fault == "odd":
            status = None
        return ProviderTask(
            sold.upstream_id,
            status,
            word="reviewing" if fault == "odd" else str(status),
            message=self.words if status == "failed" else "",
            videos=videos if status == "succeed" and fault != "no_url" else (),
            reference="somebody-else" if fault == "foreign" else reference,
            created_at=sold.at,
            units=self.units if status == "succeed" else None,
        )
