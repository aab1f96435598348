"""The simulated provider's own API: submit, query, list, in every dialect. No sockets here."""

from __future__ import annotations

import json
import threading
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from local.simulator.account import Account
from local.simulator.delivery import Delivery
from local.simulator.dialects import (
    KINDS,
    OWN_IDS,
    Answer,
    Ids,
    Refusal,
    as_json,
    envelope,
    garbage,
    now_ms,
    refuse,
    relay_refuses,
    relayed,
    server_error,
    submitted,
    task_object,
    wrapped,
)
from local.simulator.faults import Faults
from local.simulator.ledger import Entry, Ledger, without_pictures
from local.simulator.rules import RETIRED, check, model_of, picture_fields, seconds_of, units_of
from local.simulator.task_life import Course, TaskLife

NO_SUCH_METHOD = Refusal(404, 1202, "method is invalid")
DROPPED = Answer(dropped=True)
NO_ROOM = Refusal(429, 1303, "parallel task over resource pack limit")
SIMPLE_REFUSALS = {
    "too_fast": Refusal(429, 1302, "API requests too fast"),
    "arrears": Refusal(429, 1101, "account is in arrears"),
    "no_room": NO_ROOM,
}


class ProviderApi:
    """One account's view of the provider."""

    def __init__(
        self, account: Account, faults: Faults, ledger: Ledger, life: TaskLife, delivery: Delivery, ids: Ids
    ) -> None:
        self.account, self.faults, self.ledger, self.life, self.delivery = account, faults, ledger, life, delivery
        self.ids = ids
        self.stopping = threading.Event()
        self._accepting = threading.Lock()

    def answer(self, method: str, asked: SplitResult, authorization: str | None, body: bytes) -> Answer:
        """Any request that is neither a download nor for the control API."""
        path = asked.path.rstrip("/")
        if method == "GET" and path in ("/account/costs", "/kling/account/costs"):
            return refuse(no) if (no := self.account.authorize(authorization)) else envelope({})
        for prefix, dialect in (("/v1/", "official"), ("/kling/v1/", self.account.kling_path)):
            parts = path.removeprefix(prefix).split("/") if path.startswith(prefix) else []
            if len(parts) in (2, 3) and parts[0] == "videos" and parts[1] in KINDS:
                reference = unquote(parts[2]) if len(parts) == 3 else None
                if method == "POST" and reference is None:
                    return self.submit(dialect, parts[1], authorization, body)
                if method == "GET":
                    return self.look(dialect, parts[1], reference, authorization, asked.query)
        return refuse(NO_SUCH_METHOD)

    # Submit

    def submit(self, dialect: str, kind: str, authorization: str | None, raw: bytes) -> Answer:
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        line = self.ledger.post(dialect, kind, body)
        if self.faults.take("drop_before"):
            line["outcome"] = "dropped"
            return DROPPED
        status = self.faults.take("submit_5xx")
        if status is not None:
            line["outcome"] = f"answered {status}"
            return server_error(status)
        refusal = self._refusal(dialect, kind, authorization, body)
        if refusal:
            line["outcome"] = f"refused {refusal.status}/{refusal.code}"
            return self._refuse(dialect, refusal)
        late = self.faults.take("late_accept")
        if late is not None:
            line["outcome"] = "dropped, to be accepted late"
            self.life.agenda.after(late, lambda: self._accept(dialect, kind, body, line, whatever=True))
            return DROPPED
        accepted = self._accept(dialect, kind, body, line)
        return self._refuse(dialect, accepted) if isinstance(accepted, Refusal) else self._answer_to(accepted)

    def _refusal(self, dialect: str, kind: str, authorization: str | None, body: Any) -> Refusal | None:
        refusal = self._not_allowed(authorization)
        for name, simple in SIMPLE_REFUSALS.items():
            if not refusal and self.faults.take(name):
                refusal = simple
        if not refusal:
            retired = RETIRED if self.account.retired_models[dialect] == "refused" else set()
            masks = self.account.dynamic_masks[dialect]
            refusal = check(kind, body, set(self.account.extra_models), retired, masks)
        return refusal

    @staticmethod
    def _refuse(dialect: str, refusal: Refusal) -> Answer:
        return relay_refuses(refusal) if dialect == "relay" else refuse(refusal)

    def _not_allowed(self, authorization: str | None) -> Refusal | None:
        if self.faults.take("auth_error"):
            return Refusal(401, 1002, "api key not found")
        return self.account.authorize(authorization)

    def _accept(
        self, dialect: str, kind: str, body: dict[str, Any], line: dict[str, Any], whatever: bool = False
    ) -> Course | Refusal:
        """Write the task into the ledger and start its life. ``whatever``: it was let in earlier, room or not."""
        reference = body.get("external_task_id") or None
        with self._accepting:
            refusal = None
            if self.account.slots and self.ledger.running() >= self.account.slots:
                refusal = NO_ROOM
            strict = self.account.duplicate_external_id[dialect] == "refuse"
            if strict and reference and self._known(dialect, reference):
                refusal = Refusal(400, 1201, f"external_task_id {reference} already exists")
            if refusal and not whatever:
                line["outcome"] = f"refused {refusal.status}/{refusal.code}"
                return refusal
            seconds = self.faults.take("render_seconds")
            task_id = self.ids.task(dialect, kind)
            entry = Entry(
                task_id=task_id,
                kling_id=self.ids.new() if dialect in OWN_IDS else task_id,
                dialect=dialect,
                kind=kind,
                external_task_id=reference,
                model_name=model_of(kind, body),
                accepted_at=now_ms(),
                units=units_of(kind, body),
                request=without_pictures(body),
                callback_url=body.get("callback_url") or None,
                wants_watermark=(body.get("watermark_info") or {}).get("enabled") is True,
                seconds=seconds_of(body),
                render_seconds=self.account.render_seconds if seconds is None else seconds,
                echo_external_id=self.account.echo_external_id[dialect],
            )
            self.ledger.accept(entry)
        line["outcome"], line["task_id"] = "accepted", entry.task_id
        follows_picture = kind == "image2video" or (kind == "omni-video" and not body.get("aspect_ratio"))
        ratio = None if follows_picture else body.get("aspect_ratio") or "16:9"
        return self.life.begin(entry, picture_fields(body), ratio)

    def _known(self, dialect: str, reference: str) -> bool:
        with self.ledger.lock:
            entries = self.ledger.entries.values()
            return any((one.dialect, one.external_task_id) == (dialect, reference) for one in entries)

    def _answer_to(self, course: Course) -> Answer:
        """The answer to an accepted submit, and all the ways in which it may not arrive."""
        answer = submitted(course.entry)
        self.life.tell_early(course)
        self.stopping.wait(self.faults.take("slow_submit") or 0)
        if self.faults.take("drop_after"):
            return DROPPED
        broken = self.faults.take("garbage_answer")
        return garbage(broken, answer) if broken else answer

    # Query and list

    def look(self, dialect: str, kind: str, reference: str | None, authorization: str | None, query: str) -> Answer:
        refusal = self._not_allowed(authorization)
        if refusal:
            return self._refuse(dialect, refusal)
        entry = self._find(dialect, kind, reference) if reference is not None else None
        self.stopping.wait(self.faults.take("query_slow") or 0)
        status = self.faults.take("query_5xx")
        if status is not None:
            return server_error(status)
        if reference is None:
            answer = self._list(dialect, kind, query)
        elif entry is None:
            answer = self._unknown(dialect)
        else:
            shown = self._shown(entry)
            if dialect == "relay":
                answer = relayed(entry, shown)
            else:
                answer = wrapped(shown) if self.faults.take("wrapped") else envelope(shown)
        broken = self.faults.take("query_garbage")
        return garbage(broken, answer) if broken else answer

    def _find(self, dialect: str, kind: str, reference: str) -> Entry | None:
        entry = self.ledger.find(dialect, kind, reference, self.account.query_by_external_id[dialect])
        if entry:
            with self.ledger.lock:
                entry.queried_at.append(now_ms())
                entry.queried_by_external_id += reference != entry.task_id
        return entry

    def _shown(self, entry: Entry) -> dict[str, Any]:
        with self.ledger.lock:
            videos = self.delivery.videos_of(entry)
            if videos and self.faults.take("no_url"):
                videos = []
            if videos and (host := self.faults.take("result_host")):
                own = f"//{urlsplit(self.delivery.base_url).hostname}:"
                videos = [{name: told.replace(own, f"//{host}:") for name, told in one.items()} for one in videos]
            shown = task_object(entry, videos, self.account.states_units[entry.dialect])
        word = self.faults.take("query_unknown_status")
        return {**shown, "task_status": word} if word else shown

    def _unknown(self, dialect: str) -> Answer:
        how = self.faults.take("unknown_id") or "404/1203"
        if how == "200/null":
            return as_json({"code": 0, "message": "SUCCEED", "data": None})
        status, code = how.split("/")
        return self._refuse(dialect, Refusal(int(status), int(code), "task not found"))

    def _list(self, dialect: str, kind: str, query: str) -> Answer:
        """Newest first. Kling's limits: pageNum 1..1000, pageSize 1..500, default 1 and 30; no total."""
        given = parse_qs(query)
        number, size = given.get("pageNum", ["1"])[0], given.get("pageSize", ["30"])[0]
        if not (number.isdecimal() and 1 <= int(number) <= 1000):
            return refuse(Refusal(400, 1201, "pageNum must be between 1 and 1000"))
        if not (size.isdecimal() and 1 <= int(size) <= 500):
            return refuse(Refusal(400, 1201, "pageSize must be between 1 and 500"))
        start = (int(number) - 1) * int(size)
        page = self.ledger.listed(dialect, kind)[start : start + int(size)]
        if not page:
            return as_json({"code": 0, "message": "SUCCEED", "data": []})
        return envelope([self._shown(one) for one in page])
