"""Render and keep the simulator's videos: pictures in, MP4 out, two at a time, equal ones once."""

from __future__ import annotations

import http.client
import ipaddress
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import SplitResult, urlsplit

from local.simulator.render import MAX_BYTES, BadPicture, Job, Video, render
from local.simulator.rules import unbase64

RENDERS_AT_ONCE = 2
KEPT_BYTES = 512 * 1024 * 1024  # of finished videos, in memory; the oldest are deleted first
DOWNLOAD_SECONDS = 10


def is_loopback(address: SplitResult) -> bool:
    """Return whether a URL stays on this machine, by its host name alone, without a DNS lookup."""
    host = (address.hostname or "").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def connect(address: SplitResult, timeout: float) -> http.client.HTTPConnection:
    """Open a connection to a loopback URL; it follows no redirect and uses no proxy."""
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    return kind(address.hostname or "", address.port, timeout=timeout)


def target(address: SplitResult) -> str:
    return (address.path or "/") + (f"?{address.query}" if address.query else "")


def load(picture: str) -> bytes | None:
    """Return the bytes of a picture in base64 or at a loopback URL.

    Return None for any other URL, which is never fetched.
    """
    if not picture.startswith(("http://", "https://")):
        return unbase64(picture)
    try:
        address = urlsplit(picture)
        connection = connect(address, DOWNLOAD_SECONDS)
    except (ValueError, http.client.HTTPException):
        raise BadPicture("Failed to download the image: not an address") from None
    if not is_loopback(address):
        return None
    try:
        connection.request("GET", target(address), headers={"User-Agent": "kling-simulator"})
        answer = connection.getresponse()
        data = answer.read(MAX_BYTES + 1)
        if answer.status != 200:
            raise BadPicture(f"Failed to download the image: HTTP {answer.status}")
        return data
    except (OSError, http.client.HTTPException) as problem:
        raise BadPicture(f"Failed to download the image: {type(problem).__name__}") from None
    finally:
        connection.close()


class Studio:
    """Render in background threads and keep the results in memory, so that no file can be left behind."""

    def __init__(self) -> None:
        self._renderers = ThreadPoolExecutor(RENDERS_AT_ONCE, "render")
        self._loaders = ThreadPoolExecutor(4, "load-pictures")
        self._lock = threading.Lock()
        self._orders: OrderedDict[str, Future[Video]] = OrderedDict()
        self.rendered = 0
        """The number of videos that were drawn; the others were equal to an earlier one."""

    def order(
        self, pictures: list[str], seconds: int, long_side: int, ratio: str | None, seed: str, *, marked: bool = False
    ) -> Future[str]:
        """Return a future of the video's key, for ``video``; it fails with BadPicture. ``marked``: with a watermark."""
        done: Future[str] = Future()
        self._loaders.submit(self._prepare, done, pictures, Job((), seconds, long_side, ratio, seed, marked))
        return done

    def _prepare(self, done: Future[str], pictures: list[str], wanted: Job) -> None:
        try:
            loaded = tuple(load(one) for one in pictures)
            drawn = not loaded or None in loaded
            job = replace(wanted, pictures=loaded, seed=wanted.seed if drawn else "")
            key = job.key()
            with self._lock:
                rendering = self._orders.get(key)
                if rendering is None:
                    rendering = self._orders[key] = self._renderers.submit(self._render, job)
                self._orders.move_to_end(key)
            rendering.add_done_callback(lambda finished: _pass_on(finished, done, key))
        except Exception as problem:  # any error has to end the task
            done.set_exception(problem)

    def _render(self, job: Job) -> Video:
        video = render(job)
        with self._lock:
            self.rendered += 1
        self._forget_oldest()
        return video

    def _forget_oldest(self) -> None:
        with self._lock:
            finished = {key: len(one.result().data) for key, one in self._orders.items() if _succeeded(one)}
            surplus = sum(finished.values()) - KEPT_BYTES
            for key, size in finished.items():
                if surplus <= 0:
                    return
                del self._orders[key]
                surplus -= size

    def video(self, key: str) -> Video | None:
        with self._lock:
            order = self._orders.get(key)
            return order.result() if order is not None and _succeeded(order) else None

    def close(self) -> None:
        self._loaders.shutdown(wait=False, cancel_futures=True)
        self._renderers.shutdown(wait=False, cancel_futures=True)


def _succeeded(order: Future[Video]) -> bool:
    return order.done() and not order.cancelled() and order.exception() is None


def _pass_on(finished: Future[Video], done: Future[str], key: str) -> None:
    if finished.cancelled():
        done.cancel()
    elif problem := finished.exception():
        done.set_exception(problem)
    else:
        done.set_result(key)
