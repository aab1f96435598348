"""Reconcile our rows with the provider's tasks, and report the differences. No task is moved, and nothing is paid.

If the provider lists its account, the list is read page by page, and each task is looked up in the table. Then the rows
are scanned, and the provider is queried for those that its list did not show: without a list, for all. Memory is
bounded by the length of the list (one id a task) and by the number of queries; time by `SECONDS`.
"""

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from time import sleep
from typing import Any

from kling_relay.kinds.fields import KINDS
from kling_relay.observability import Metric, logger
from kling_relay.operations import discrepancies
from kling_relay.operations.discrepancies import Finding, FindingType, Row, finding
from kling_relay.operations.reconcile_rows import TaskRows
from kling_relay.provider.outcomes import Answer, Found, Listed, NotFound, QueryFailed
from kling_relay.provider.profiles import Account
from kling_relay.provider.responses import ProviderTask
from kling_relay.services import Services
from kling_relay.settings import SettingsError
from kling_relay.tasks.task import is_task_id

MAX_DAYS = 30  # for which the provider keeps its tasks
SECONDS = 220.0  # for the whole run; the function's timeout is longer, by the longest call and the gap of two denials
_LIST_UNTIL, _ROWS_UNTIL = 0.5, 0.7  # shares of that time: no stage uses the time of the later ones
_PAGE_SIZE = 100  # of 500: result URLs have up to two kilobytes, and at most two megabytes of an answer are read
_MAX_PAGES = 1000  # Kling's own limit of pageNum
_MAX_QUESTIONS = 300
_GAP_SECONDS = 0.1  # between two calls to the provider
_MAX_TROUBLES = 5  # failed queries in a row: it is down
_MAX_TROUBLES_TOLD = 20
_MAX_NAMED = 1000
_MAX_LOGGED = 100
_DAY_MS = 86_400_000


def action(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """{"action": "reconcile", "days": 7}: report on the tasks of the last `days`, 1 to 30, default 30."""
    days = event.get("days", MAX_DAYS)
    if type(days) is not int or not 1 <= days <= MAX_DAYS:
        raise ValueError(f"days: must be a whole number from 1 to {MAX_DAYS} (got {days!r})")
    return reconcile(services, days)


def reconcile(services: Services, days: int = MAX_DAYS) -> dict[str, Any]:
    """Report and log the findings within SECONDS. The provider's errors are reported; errors of AWS are raised."""
    run = _Run(services, days)
    try:
        services.provider.prepare()
    except SettingsError as exc:
        run.trouble.append(f"the provider was not asked: {exc}")
    else:
        run.asks = True
        for index, kind in enumerate(KINDS if run.profile.lists else (), start=1):
            run.read_list(kind, _LIST_UNTIL * index / len(KINDS))
    run.read_rows()
    run.ask()
    report = run.report()
    for one in report["findings"][:_MAX_LOGGED]:
        logger.warning("discrepancy_found", extra=one)
    summary = {name: field for name, field in report.items() if name != "findings"}
    (logger.info if report["sound"] else logger.warning)("reconcile_completed", extra=summary)
    services.measure(
        {Metric.RECONCILE_FINDINGS: report["left_off"] + sum(not one["open"] for one in report["findings"])}
    )
    return report


class _Run:
    """One report in progress."""

    def __init__(self, services: Services, days: int) -> None:
        self.services = services
        self.profile = services.provider.profile
        self.account = services.account
        account = Account.read(self.account)
        self.books = TaskRows(services.table.rows, account.space, account.profile)
        self.now, self.days = services.clock.now_ms(), days
        self.since = self.now - days * _DAY_MS
        self.settle_ms = services.settings.scaled_ms(services.settings.settle_seconds or self.profile.settle_seconds)
        self.asks = False  # whether the provider can be queried at all
        self.found: list[Finding] = []
        self.counts, self.checked, self.unchecked = Counter[str](), Counter[str](), Counter[str]()
        self.trouble: list[str] = []
        self.whole: set[str] = set()  # kinds whose list was read completely: a missing task counts as one denial
        self.seen: set[str] = set()  # our ids that the list has settled
        self.nameless = False  # the list omits our references: an orphan in it looks like any task
        self.questions: list[tuple[tuple[bool, int], str, Row]] = []  # a heap, the least urgent first

    def over(self, part: float = 1.0) -> bool:
        return self.services.clock.now_ms() - self.now >= SECONDS * 1000 * part

    def tell(
        self, found: list[FindingType], row: Row | None, provider_task: ProviderTask | None = None, kind: str = ""
    ) -> None:
        self.counts.update(found)
        room = _MAX_NAMED - len(self.found)
        self.found += [finding(what, row, provider_task, kind) for what in found[:room]]

    # -- the provider's list

    def read_list(self, kind: str, until: float) -> None:
        """Read every page of a kind, until an empty page, or until a list sorted by time has passed the window.

        The provider defines the size and the order of pages. `until`: a share of the time.
        """
        seen: set[str] = set()
        whole, newest_first, created = True, True, list[int | None]()
        for number in range(1, _MAX_PAGES + 1):
            page = "out of time" if self.over(until) else self._list_page(kind, number)
            if isinstance(page, str):
                self.trouble.append(f"list of {kind} before page {number}: {page}")
                return
            if page.unreadable:
                self.trouble.append(f"list of {kind}, page {number}: {page.unreadable} entries cannot be read")
                whole = False
            fresh = {one.upstream_id: one for one in page.snapshots if one.upstream_id not in seen}
            seen.update(fresh)
            self._match(kind, [one for one in fresh.values() if one.created_at is None or one.created_at >= self.since])
            if page.snapshots and not fresh:
                self.trouble.append(f"list of {kind}, page {number}: it repeats what came before")
            created = [*created[-1:], *(one.created_at for one in page.snapshots)]
            newest_first = newest_first and _falls(created)
            passed = newest_first and len(created) > 1 and (created[-1] or 0) < self.since
            if passed or not (page.snapshots or page.unreadable):
                self.whole |= {kind} if whole else set()
            if passed or not fresh:
                return
        self.trouble.append(f"list of {kind}: more than {_MAX_PAGES} pages")

    def _list_page(self, kind: str, number: int) -> Listed | str:
        """Return a page, or the reason why there is none. One failure is retried."""
        why = ""
        for pause in (_GAP_SECONDS, 1.0):
            sleep(pause)
            page = self.services.provider.list_page(kind, number, _PAGE_SIZE)
            if isinstance(page, Listed):
                return page
            why = page.reason
        return _plainly(why)

    def _match(self, kind: str, snaps: list[ProviderTask]) -> None:
        """Look up the tasks of a page in the table: by their owners, else by the reference that they carry."""
        self.checked["listed"] += len(snaps)
        owners = self.books.owners([provider_task.upstream_id for provider_task in snaps])
        references = {
            provider_task.reference
            for provider_task in snaps
            if provider_task.reference is not None and is_task_id(provider_task.reference)
        }
        rows = self.books.rows({*owners.values(), *references})
        for provider_task in snaps:
            owner = owners.get(provider_task.upstream_id)
            row = rows.get(owner or provider_task.reference or "")
            if row is not None and row.upstream_id in (None, provider_task.upstream_id):
                self.seen.add(row.task_id)
                self.nameless = self.nameless or provider_task.reference is None
            if owner is not None or (row is not None and row.upstream_id == provider_task.upstream_id):
                self.checked["ours"] += 1
                if row is not None:  # else our row was removed after its retention, and its pointer remains
                    self.tell(discrepancies.compare(row, provider_task), row, provider_task)
            elif provider_task.reference in self.books.unreadable:
                continue
            elif provider_task.reference not in references:
                self.checked["not_ours" if provider_task.reference is not None else "without_reference"] += 1
            else:
                self.tell(discrepancies.unowned(row, provider_task, self.now, self.settle_ms), row, provider_task, kind)

    # -- our rows

    def read_rows(self) -> None:
        """Scan the rows of the window: report their own findings, and plan the queries."""
        for ids in self.books.created_since(self.since):
            if self.over(_ROWS_UNTIL):
                self.trouble.append(f"our rows: out of time after {self.checked['rows']} of them")
                return
            self.checked["rows"] += len(ids)
            rows = [row for row in self.books.rows(ids).values() if row.task_id not in self.seen]
            owners = self.books.owners([row.upstream_id for row in rows if row.upstream_id is not None])
            for row in rows:
                self.tell(discrepancies.alone(row, self.now, self.settle_ms), row)
                by = discrepancies.question(row, self.now, self.settle_ms)
                foreign = row.account not in (None, self.account)
                if by and (foreign or (by == "id" and owners.get(row.upstream_id or "") != row.task_id)):
                    self.unchecked["of_another_provider"] += 1
                elif by == "id" or (by == "reference" and not self._disproved(row)):
                    self._plan(row)

    def _disproved(self, row: Row) -> bool:
        """Return whether a complete list that shows references does not contain that of `row`."""
        return row.kind in self.whole and not self.nameless and not self.profile.hides_reference

    def _plan(self, row: Row) -> None:
        """Keep the most urgent queries."""
        heapq.heappush(self.questions, (discrepancies.urgency(row), row.task_id, row))
        if len(self.questions) > _MAX_QUESTIONS:
            heapq.heappop(self.questions)
            self.unchecked["not_asked"] += 1

    # -- questions

    def ask(self) -> None:
        """Query the tasks that the list did not settle.

        A task that a complete list lacks needs one more denial; any other needs two, with their minimum gap.
        """
        again, denied_at = [], 0
        for row, answer in self._answers([row for _, _, row in sorted(self.questions, reverse=True)]):
            if isinstance(answer, NotFound) and row.upstream_id is not None and row.kind not in self.whole:
                again.append(row)
                denied_at = self.services.clock.now_ms()
            else:
                self._conclude(row, answer)
        if again:
            gap = self.services.settings.scaled_ms(self.profile.denial_gap_seconds)
            sleep(max(0, denied_at + gap - self.services.clock.now_ms()) / 1000)
            for row, answer in self._answers(again):
                self._conclude(row, answer)

    def _answers(self, rows: list[Row]) -> Iterator[tuple[Row, Answer | None]]:
        """Yield the provider's answers; None for a query that was not possible."""
        troubles = 0
        for place, row in enumerate(rows):
            stop = "out of time" if self.over() else "too many failed" if troubles >= _MAX_TROUBLES else ""
            if stop and self.asks:
                self.trouble.append(f"questions: {stop}, {len(rows) - place} were not asked")
                self.asks = False
            if not self.asks or (row.upstream_id is None and not self.profile.ask_by_reference):
                yield row, None
                continue
            sleep(_GAP_SECONDS)
            answer = self.services.provider.query(row.kind, row.upstream_id or row.task_id)
            self.checked["asked"] += 1
            troubles = troubles + 1 if isinstance(answer, QueryFailed) else 0
            if isinstance(answer, QueryFailed):
                self.trouble.append(f"question for {row.task_id}: {_plainly(answer.reason)}")
            yield row, answer

    def _conclude(self, row: Row, answer: Answer | None) -> None:
        provider_task, denied = (
            answer.provider_task if isinstance(answer, Found) else None,
            isinstance(answer, NotFound),
        )
        owner = (
            self.books.owners([provider_task.upstream_id]).get(provider_task.upstream_id)
            if provider_task is not None
            else None
        )
        if provider_task is None and not denied:
            self.unchecked["not_asked"] += 1
        if not discrepancies.answered(row, provider_task, denied, owner, self.now):
            return
        fresh = self.books.rows([row.task_id]).get(row.task_id)  # the row may have moved before the answer
        if fresh is not None and fresh.upstream_id == row.upstream_id:
            self.tell(discrepancies.answered(fresh, provider_task, denied, owner, self.now), fresh, provider_task)

    # -- the report

    def report(self) -> dict[str, Any]:
        """Build the report.

        `sound`: no finding, and no failed check. `unchecked` counts the tasks beyond a run's or the provider's limits.
        """
        self.unchecked["unreadable_rows"] = len(self.books.unreadable)
        if self.nameless:
            self.unchecked["without_reference"] = self.checked["without_reference"]
        return {
            "provider": self.services.settings.provider,
            "lists": self.profile.lists,
            "at": self.now,
            "days": self.days,
            "sound": not self.counts and not self.trouble,
            "counts": dict(self.counts),
            "checked": dict(self.checked),
            "unchecked": dict(+self.unchecked),
            "trouble": self.trouble[:_MAX_TROUBLES_TOLD],
            "left_off": sum(self.counts.values()) - len(self.found),
            "findings": [asdict(one) for one in sorted(self.found, key=_order)],
        }


def _falls(births: list[int | None]) -> bool:
    """Return whether the times never rise."""
    return all(one is not None and other is not None and one >= other for one, other in pairwise(births))


def _order(one: Finding) -> tuple[int, int]:
    return list(FindingType).index(one.type), one.created_at or 0


def _plainly(reason: str) -> str:
    """Return the reason of a failed call, fit for a terminal, for any text of an unknown server."""
    return "".join(one if one.isprintable() else "?" for one in reason[:80])
