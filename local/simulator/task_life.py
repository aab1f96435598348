"""Advance accepted tasks by time (submitted, processing, end), and send the callback of each change."""

from __future__ import annotations

import base64
import hashlib
import heapq
import hmac
import http.client
import itertools
import math
import secrets
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from local.simulator.account import Account
from local.simulator.dialects import Ids, callback_body
from local.simulator.faults import Faults
from local.simulator.ledger import Entry, Ledger, now_ms
from local.simulator.render import BadPicture
from local.simulator.video_store import Studio, connect, is_loopback, target

CALLBACK_SECONDS = 20.0  # for a receiver on the same machine, whose functions may have to start first
PROCESSING_AFTER = 0.2  # of the render time, at most a second: the duration of "submitted"


class Agenda:
    """Run functions at their time, in one thread; they must not block for long."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._closed = False
        threading.Thread(target=self._run, name="agenda", daemon=True).start()

    def after(self, seconds: float, what: Callable[[], object]) -> None:
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), what))
            self._changed.notify()

    def clear(self) -> None:
        with self._changed:
            self._due.clear()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not (self._due and self._due[0][0] <= time.monotonic()):
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._closed:
                    return
                what = heapq.heappop(self._due)[2]
            try:
                what()
            except Exception:  # one failing function must not end the agenda
                traceback.print_exc()


@dataclass(frozen=True)
class Course:
    """Hold the decisions about a task that were made at its acceptance."""

    entry: Entry
    callback_id: str
    """The task_id in its callbacks."""
    callbacks: str
    """on, lost, repeated or early (see Faults)."""
    failure: str | None
    """The task_status_msg of its failure; None if it succeeds."""


class TaskLife:
    """Advance accepted tasks and send their callbacks."""

    def __init__(
        self,
        ledger: Ledger,
        faults: Faults,
        account: Account,
        ids: Ids,
        videos_of: Callable[[Entry], list[dict[str, str]]],
    ) -> None:
        self.ledger, self.faults, self.account, self.ids, self.videos_of = ledger, faults, account, ids, videos_of
        self.studio = Studio()
        self.agenda = Agenda()
        self._couriers = ThreadPoolExecutor(16, "callback")

    def begin(self, entry: Entry, pictures: list[str], ratio: str | None) -> Course:
        """Start the life of a task that is in the ledger."""
        course = Course(
            entry,
            callback_id=self.ids.new() if self.faults.take("callback_foreign_id") else entry.kling_id,
            callbacks=self.faults.take("callbacks") or "on",
            failure=self.faults.take("fail"),
        )
        size = self.faults.take("render_size") or self.account.render_size
        seed = str(entry.request.get("prompt") or "")
        made = self.studio.order(pictures, entry.seconds, size, ratio, seed)
        marked = made
        if entry.wants_watermark or entry.two_videos:
            marked = self.studio.order(pictures, entry.seconds, size, ratio, seed, marked=True)
        start = min(1.0, entry.render_seconds * PROCESSING_AFTER)
        if course.callbacks != "early":
            self.agenda.after(start / 2, lambda: self._send_callback(course))
        self.agenda.after(start, lambda: self._move(course, "processing"))
        if not self.faults.take("never"):
            finish = partial(self._finish, course, made)
            self.agenda.after(
                entry.render_seconds, lambda: made.add_done_callback(lambda _: marked.add_done_callback(finish))
            )
        return course

    def send_early_callback(self, course: Course) -> None:
        """Send the first callback before the submit is answered, if ``callbacks`` is early."""
        sent = self._send_callback(course) if course.callbacks == "early" else None
        if sent:
            wait([sent], 2 * CALLBACK_SECONDS)

    def _move(self, course: Course, status: str, message: str = "") -> None:
        if self.ledger.move(course.entry, status, message):
            self._send_callback(course)

    def _finish(self, course: Course, made: Future[str], marked: Future[str]) -> None:
        if not made.cancelled() and not marked.cancelled():
            self._move(course, *self._outcome(course.entry, made, marked, course.failure))

    def _outcome(self, entry: Entry, made: Future[str], marked: Future[str], failure: str | None) -> tuple[str, str]:
        problem = made.exception() or marked.exception()
        if problem:
            return "failed", str(problem) if isinstance(problem, BadPicture) else f"internal error: {problem!r}"
        if failure:
            return "failed", failure
        video = self.studio.video(made.result())
        entry.video_key, entry.marked_key = made.result(), marked.result()
        entry.video_id = self.ids.new()
        entry.second_video_id = self.ids.new() if entry.two_videos else ""
        entry.video_seconds = f"{math.ceil((video.seconds if video else entry.seconds) * 10) / 10:.1f}"
        return "succeed", ""

    def _send_callback(self, course: Course) -> Future[None] | None:
        """Send the callback of the task's current status."""
        entry = course.entry
        if not entry.callback_url:
            return None
        with self.ledger.lock:
            body, status = callback_body(entry, course.callback_id, self.videos_of(entry)), entry.status
        return self._couriers.submit(self._deliver, entry, status, body, course.callbacks)

    def _deliver(self, entry: Entry, status: str, body: bytes, manner: str) -> None:
        for _ in range(3 if manner == "repeated" else 1):
            result = "lost" if manner == "lost" else self._post(entry, body)
            with self.ledger.lock:
                entry.callbacks.append({"at": now_ms(), "task_status": status, "result": result})

    def _post(self, entry: Entry, body: bytes) -> str:
        try:
            address = urlsplit(entry.callback_url or "")
            port_is_a_number = address.port is None or address.port > 0
        except ValueError:
            port_is_a_number = False
        if not port_is_a_number or address.scheme not in ("http", "https") or not is_loopback(address):
            with self.ledger.lock:
                self.ledger.callbacks_refused += 1
            return "refused"
        connection = connect(address, CALLBACK_SECONDS)
        try:
            connection.request("POST", target(address), body, self._headers(entry, body))
            return str(connection.getresponse().status)
        except (OSError, http.client.HTTPException) as problem:
            return f"error: {type(problem).__name__}"
        finally:
            connection.close()

    def _headers(self, entry: Entry, body: bytes) -> dict[str, str]:
        """Return the headers captured from Kling; with a webhook secret also the three of Standard Webhooks."""
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Connection": "Keep-Alive",
            "User-Agent": "Apache-HttpClient/4.5.13 (Java/11.0.13)",
            "Accept-Encoding": "gzip,deflate",
        }
        secret = self.account.webhook_secret.removeprefix("whsec_")
        if secret and entry.dialect == "official":
            number, stamp = secrets.token_hex(10), str(int(time.time()))
            signed = f"{number}.{stamp}.".encode() + body
            signature = base64.b64encode(hmac.new(base64.b64decode(secret), signed, hashlib.sha256).digest()).decode()
            headers |= {"webhook-id": number, "webhook-timestamp": stamp, "webhook-signature": f"v1,{signature}"}
        return headers

    def close(self) -> None:
        self.agenda.close()
        self.studio.close()
        self._couriers.shutdown(wait=False, cancel_futures=True)
