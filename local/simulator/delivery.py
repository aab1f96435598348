"""Simulate the provider's video host: unguessable addresses, which expire, and the files behind them."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs

from local.simulator.account import Account
from local.simulator.dialects import Answer
from local.simulator.faults import Faults
from local.simulator.ledger import Entry, Ledger, now_ms
from local.simulator.render import Video
from local.simulator.video_store import Studio

ROOT = "/bs2/upload-kling/"


@dataclass
class Address:
    """Hold one video's address; ``expires`` in seconds since 1970."""

    path: str
    url: str
    expires: int


class Delivery:
    """Issue result addresses and answer downloads."""

    def __init__(self, ledger: Ledger, faults: Faults, account: Account, base_url: str) -> None:
        self.ledger, self.faults, self.account, self.base_url = ledger, faults, account, base_url
        self._secret = secrets.token_bytes(32)
        self._issued: dict[tuple[str, str, bool], Address] = {}  # task id, video id, with the watermark or not
        self._videos: dict[str, tuple[str, str, bool]] = {}  # the same key, by path

    def clear(self) -> None:
        with self.ledger.lock:
            self._issued.clear()
            self._videos.clear()

    def videos_of(self, entry: Entry) -> list[dict[str, str]]:
        """Return task_result.videos of a task: the same addresses until they have expired, then new ones."""
        if entry.status != "succeed":
            return []
        with self.ledger.lock:
            return [self._video(entry, one) for one in (entry.video_id, entry.second_video_id) if one]

    def _video(self, entry: Entry, video_id: str) -> dict[str, str]:
        video = {"id": video_id, "url": self._url(entry, video_id, False), "duration": entry.video_seconds}
        return {**video, "watermark_url": self._url(entry, video_id, True)} if entry.wants_watermark else video

    def _url(self, entry: Entry, video_id: str, marked: bool) -> str:
        address = self._issued.get((entry.task_id, video_id, marked))
        if address is None or address.expires <= time.time():
            address = self._issue(entry, video_id, address, marked)
        return address.url

    def _issue(self, entry: Entry, video_id: str, old: Address | None, marked: bool) -> Address:
        path = old.path if old else f"{ROOT}{secrets.token_hex(16)}/{video_id}.mp4"
        life = self.faults.take("url_seconds")
        expires = int(time.time() + (self.account.url_seconds if life is None else life))
        query = f"cacheKey={secrets.token_hex(16)}&x-kcdn-pid=112781&Expires={expires}"
        url = f"{self.base_url}{path}?{query}&Signature={self._sign(path, expires)}&Key-Pair-Id=KSIMULATOR"
        address = self._issued[entry.task_id, video_id, marked] = Address(path, url, expires)
        self._videos[path] = entry.task_id, video_id, marked
        return address

    def _sign(self, path: str, expires: int) -> str:
        return hmac.new(self._secret, f"{path}:{expires}".encode(), hashlib.sha256).hexdigest()

    def download(self, asked: SplitResult, headers: dict[str, str], count: bool) -> Answer:
        """Answer GET (``count``) or HEAD of a result address. ``headers`` have lower-case names."""
        with self.ledger.lock:
            named = self._videos.get(asked.path, ("", "", False))
            task_id, video_id, marked = named
            entry = self.ledger.entries.get(task_id)
        is_marked = entry and (marked or video_id == entry.second_video_id)
        key = entry and (entry.marked_key if is_marked else entry.video_key)
        answer = self._answer(asked, headers, key or "", count)
        if entry and count:
            sent = len(answer.body) if answer.cut is None else answer.cut
            line = {"at": now_ms(), "status": answer.status, "bytes": sent, "marked": marked}
            line["authorization"] = "authorization" in headers
            with self.ledger.lock:
                entry.downloads.append(line)
                if answer.status == 403 and (address := self._issued.get(named)):
                    address.expires = 0  # the next query returns a new address
        return answer

    def _answer(self, asked: SplitResult, headers: dict[str, str], key: str, count: bool) -> Answer:
        query = parse_qs(asked.query)
        expires, signature = query.get("Expires", ["0"])[0], query.get("Signature", [""])[0]
        genuine = expires.isdecimal() and hmac.compare_digest(self._sign(asked.path, int(expires)), signature)
        if not genuine or int(expires) <= time.time() or (count and self.faults.take("expired_url")):
            denied = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>'
            return Answer(403, denied, {"Content-Type": "application/xml"})
        if count and self.faults.take("wrong_file"):
            page = b"<!doctype html><html><body><h1>Service temporarily unavailable</h1></body></html>"
            return Answer(200, page, {"Content-Type": "text/html; charset=utf-8"})
        video = self.studio.video(key) if key else None
        if video is None:
            return Answer(404, b"", {"Content-Type": "text/plain"})
        answer = whole_or_part(video, headers.get("range"), headers.get("if-range"))
        fraction = self.faults.take("truncate") if count else None
        if fraction is not None:
            answer.cut = int(len(answer.body) * min(1.0, fraction))
        return answer

    studio: Studio
    """The store of the videos; set once by the simulator."""


def whole_or_part(video: Video, wanted: str | None, if_range: str | None) -> Answer:
    """Return 200 with the file, 206 with one range of it, or 416. A request for several ranges gets the whole file."""
    size = len(video.data)
    tag = f'"{hashlib.sha256(video.data).hexdigest()[:32]}"'
    headers = {"Content-Type": "video/mp4", "Accept-Ranges": "bytes", "ETag": tag}
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted.strip()) if wanted else None
    if not match or not any(match.groups()) or if_range not in (None, tag):
        return Answer(200, video.data, headers)
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        return Answer(416, b"", headers | {"Content-Range": f"bytes */{size}"})
    return Answer(206, video.data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"})
