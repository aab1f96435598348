"""Implement the simulated provider's own API, without sockets: submit, query and list in every dialect."""

from __future__ import annotations

import json
import threading
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from local.simulator.account import Account
from local.simulator.costs import Costs
from local.simulator.delivery import Delivery
from local.simulator.dialects import (
    KINDS,
    OWN_IDS,
    Answer,
    Ids,
    Refusal,
    as_json,
    envelope,
    forbidden,
    garbage,
    named_error,
    redirect,
    refuse,
    relay_refuses,
    relayed,
    server_error,
    submitted,
    task_object,
    wrapped,
)
from local.simulator.faults import Faults
from local.simulator.ledger import Entry, Ledger, now_ms, without_pictures
from local.simulator.rules import (
    RETIRED,
    charged,
    check,
    model_of,
    picture_fields,
    prompts_of,
    seconds_of,
    units_of,
)
from local.simulator.task_life import Course, TaskLife

NO_SUCH_METHOD = Refusal(404, 1202, "method is invalid")
DROPPED = Answer(dropped=True)
NO_ROOM = Refusal(429, 1303, "parallel task over resource pack limit")
SIMPLE_REFUSALS = {
    "too_fast": Refusal(429, 1302, "API requests too fast"),
    "arrears": Refusal(429, 1101, "account is in arrears"),
    "no_room": NO_ROOM,
}


SEE_OTHER = 303  # the one redirect that can follow an accepted submit
T = TypeVar("T")


def path_of(dialect: str, kind: str) -> str:
    return f"{'' if dialect == 'official' else '/kling'}/v1/videos/{kind}"


class ProviderApi:
    """Implement the provider's API for one account."""

    def __init__(
        self, account: Account, faults: Faults, ledger: Ledger, life: TaskLife, delivery: Delivery, ids: Ids
    ) -> None:
        self.account, self.faults, self.ledger, self.life, self.delivery = account, faults, ledger, life, delivery
        self.ids = ids
        self.stopping = threading.Event()
        self._accepting = threading.Lock()
        self._costs = Costs(account)

    def answer(self, method: str, asked: SplitResult, authorization: str | None, body: bytes) -> Answer:
        """Answer any request that is neither a download nor for the control API."""
        path = asked.path.rstrip("/")
        if method == "GET" and path in ("/account/costs", "/kling/account/costs"):
            return refuse(no) if (no := self.account.authorize(authorization)) else self._costs.answer(asked.query)
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
        if front := self._in_front(dialect, kind, body):
            line["outcome"], answer = front
            return answer
        refusal = self._refusal(dialect, kind, authorization, body)
        if refusal:
            line["outcome"] = f"refused {refusal.status}/{refusal.code}"
            return self._refuse(dialect, refusal)
        late = self.faults.take("late_accept")
        if late is not None:
            line["outcome"] = "dropped, to be accepted late"
            self.life.agenda.after(late, lambda: self._accept(dialect, kind, body, line, admitted=True))
            return DROPPED
        accepted = self._accept(dialect, kind, body, line)
        return self._refuse(dialect, accepted) if isinstance(accepted, Refusal) else self._answer_to(accepted)

    def _in_front(self, dialect: str, kind: str, body: Any) -> tuple[str, Answer] | None:
        """Return an answer given before the provider reads the submit: the outcome for the ledger, and the answer."""
        if self.faults.take("drop_before"):
            return "dropped", DROPPED
        status = 503 if self.faults.take("maintenance") else self.faults.take("submit_5xx")
        if status is not None:
            return f"answered {status}", server_error(status)
        if self.faults.take("firewall", lambda word: word in prompts_of(body)):
            return "refused 403/html", forbidden()
        status = self.faults.take("redirect", lambda status: status != SEE_OTHER)
        if status is not None:
            return f"redirected {status}", redirect(status, path_of(dialect, kind))
        return None

    def _refusal(self, dialect: str, kind: str, authorization: str | None, body: Any) -> Refusal | None:
        refusal = self._not_allowed(authorization)
        for name, simple in SIMPLE_REFUSALS.items():
            if not refusal and self.faults.take(name):
                refusal = simple
        if not refusal and isinstance(body, dict):
            model = model_of(kind, body)
            if self.faults.take("no_right", lambda name: name == model):
                refusal = Refusal(403, 1103, f"the account may not use the model {model}")  # the text is a guess
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
        self, dialect: str, kind: str, body: dict[str, Any], line: dict[str, Any], admitted: bool = False
    ) -> Course | Refusal:
        """Record the task in the ledger and start its life.

        ``admitted``: it was admitted earlier, with or without a free slot; its reference is checked now.
        """
        reference = body.get("external_task_id") or None
        with self._accepting:
            refusal = None
            if self.account.slots and self.ledger.running() >= self.account.slots and not admitted:
                refusal = NO_ROOM
            strict = self.account.duplicate_external_id[dialect] == "refuse"
            if strict and reference and self._known(dialect, reference):
                refusal = Refusal(400, 1201, f"External_task_id {reference} already exists")
            if refusal:
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
                two_videos=self.faults.take("two_videos") is not None,
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
        """Return the answer to an accepted submit, or the fault that prevents it."""
        entry = course.entry
        answer = submitted(entry)
        self.life.send_early_callback(course)
        self.stopping.wait(self.faults.take("slow_submit") or 0)
        if self.faults.take("drop_after"):
            return DROPPED
        if self.faults.take("redirect", lambda status: status == SEE_OTHER):
            return redirect(SEE_OTHER, f"{path_of(entry.dialect, entry.kind)}/{entry.task_id}")
        if how := self.faults.take("named_error"):
            return named_error(how, entry.task_id)
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
            answer = self._unknown(dialect, reference)
        else:
            entry = self._mixed_up(entry)
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

    def _mixed_up(self, entry: Entry) -> Entry:
        """Return another task if the fault mix_up is on and there is one."""
        others = [one for one in self.ledger.listed(entry.dialect, entry.kind) if one is not entry]
        other = min(others, key=lambda one: one.status != "succeed", default=entry)
        return other if other is not entry and self.faults.take("mix_up") else entry

    def _shown(self, entry: Entry) -> dict[str, Any]:
        with self.ledger.lock:
            videos = self.delivery.videos_of(entry)
            if videos and self.faults.take("no_url"):
                videos = []
            if videos and (host := self.faults.take("result_host")):
                own = f"//{urlsplit(self.delivery.base_url).hostname}:"
                videos = [{name: text.replace(own, f"//{host}:") for name, text in one.items()} for one in videos]
            videos = self._in_order(videos)
            shown = task_object(entry, videos, self._charged(entry))
        word = self.faults.take("query_unknown_status")
        return {**shown, "task_status": word} if word else shown

    def _in_order(self, listed: list[T]) -> list[T]:
        return listed[::-1] if self.faults.take("reordered", lambda _: len(listed) > 1) else listed

    def _charged(self, entry: Entry) -> dict[str, Any]:
        if not self.account.states_units[entry.dialect]:
            return {}
        if entry.dialect == "official":
            return charged(entry.units, self.account.pays_in)
        return {"final_unit_deduction": entry.units}

    def _unknown(self, dialect: str, reference: str) -> Answer:
        how = self.faults.take("unknown_id") or ("400/1201" if dialect == "official" else "404/1203")
        if how == "200/null":
            return as_json({"code": 0, "message": "SUCCEED", "data": None})
        status, code = how.split("/")
        words = f"Task not found by id/external id: {reference}" if code == "1201" else "task not found"
        return self._refuse(dialect, Refusal(int(status), int(code), words))

    def _list(self, dialect: str, kind: str, query: str) -> Answer:
        """List tasks, newest first. Kling's limits: pageNum 1..1000, pageSize 1..500, default 1 and 30; no total."""
        given = parse_qs(query)
        number, size = given.get("pageNum", ["1"])[0], given.get("pageSize", ["30"])[0]
        if not (number.isdecimal() and 1 <= int(number) <= 1000):
            return refuse(Refusal(400, 1201, "pageNum must be between 1 and 1000"))
        if not (size.isdecimal() and 1 <= int(size) <= 500):
            return refuse(Refusal(400, 1201, "pageSize must be between 1 and 500"))
        start = (int(number) - 1) * int(size)
        page = self._in_order(self.ledger.listed(dialect, kind)[start : start + int(size)])
        if not page:
            return as_json({"code": 0, "message": "SUCCEED", "data": []})
        return envelope([self._shown(one) for one in page])
