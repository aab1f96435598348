"""What happens to a task by itself: submitted, processing, its end; and the callback of each change."""

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
from urllib.parse import urlsplit

from local.account import Account
from local.dialects import Ids, callback_body, now_ms
from local.faults import Faults
from local.ledger import Entry, Ledger
from local.render import BadPicture
from local.studio import Studio, connect, is_loopback, target

CALLBACK_SECONDS = 5.0
PROCESSING_AFTER = 0.2  # of the render time, at most a second: how long a task is "submitted"


class Agenda:
    """Runs functions at their time, in one thread; what they start must not take long."""

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
            except Exception:  # one bad appointment must not end the agenda
                traceback.print_exc()


class TaskLife:
    """Moves accepted tasks on, and tells their callback addresses."""

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

    def begin(self, entry: Entry, pictures: list[str], ratio: str | None) -> Callable[[], object]:
        """Start the life of a task that is in the ledger; the result tells of "submitted" before the answer goes out.

        It does so only under ``callbacks: early``; otherwise the first callback follows a moment later by itself.
        """
        manner = self.faults.take("callbacks") or "on"
        foreign = self.ids.new() if self.faults.take("callback_foreign_id") else entry.task_id
        size = self.faults.take("render_size") or self.account.render_size
        failure, never = self.faults.take("fail"), self.faults.take("never")
        seed = str(entry.request.get("prompt") or "")
        rendering = self.studio.order(pictures, entry.seconds, size, ratio, seed)

        def tell() -> Future[None] | None:
            return self._tell(entry, foreign, manner)

        def process() -> None:
            if self.ledger.move(entry, "processing"):
                tell()

        def end() -> None:
            rendering.add_done_callback(finish)

        def finish(made: Future[str]) -> None:
            if made.cancelled():
                return
            status, message = self._outcome(entry, made, failure)
            if self.ledger.move(entry, status, message):
                tell()

        start = min(1.0, entry.render_seconds * PROCESSING_AFTER)
        if manner != "early":
            self.agenda.after(start / 2, tell)
        self.agenda.after(start, process)
        if not never:
            self.agenda.after(entry.render_seconds, end)
        if manner == "early":
            return lambda: wait([one for one in [tell()] if one], 2 * CALLBACK_SECONDS)
        return lambda: None

    def _outcome(self, entry: Entry, made: Future[str], failure: str | None) -> tuple[str, str]:
        problem = made.exception()
        if problem:
            return "failed", str(problem) if isinstance(problem, BadPicture) else f"internal error: {problem!r}"
        if failure:
            return "failed", failure
        video = self.studio.video(made.result())
        entry.video_key = made.result()
        entry.video_id = self.ids.new()
        entry.video_seconds = f"{math.ceil((video.seconds if video else entry.seconds) * 10) / 10:.1f}"
        return "succeed", ""

    def _tell(self, entry: Entry, task_id: str, manner: str) -> Future[None] | None:
        """Send the callback of the state that the task is in now."""
        if not entry.callback_url:
            return None
        with self.ledger.lock:
            body, status = callback_body(entry, task_id, self.videos_of(entry)), entry.status
        return self._couriers.submit(self._deliver, entry, status, body, manner)

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
        """As captured from Kling; with a webhook secret also the three headers of Standard Webhooks."""
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
