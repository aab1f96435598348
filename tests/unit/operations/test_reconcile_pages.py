"""How a list is walked to its end, and where a report stops: pages that fail, repeat or never end, and time."""

from collections.abc import Iterator
from typing import Any

import pytest
from kling_relay.kinds.fields import KINDS
from kling_relay.operations import reconcile
from kling_relay.tasks.task import Phase, new_task_id

from tests.support.row_builders import DAY, Garden
from tests.support.scripted_provider import (
    EMPTY,
    KIND,
    Answer,
    as_listed,
    before,
    entry,
    known,
    report,
)

pytestmark = pytest.mark.enable_socket

TABLE_IN_MEMORY = True


@pytest.mark.parametrize("size", [1, 7, 100])
def test_pages_that_repeat_for_ever(garden: Garden, size: int) -> None:
    tasks = known(garden, 20)
    with before(garden, lambda kind, page: (200, {"code": 0, "data": as_listed(tasks)[:size]})) as script:
        made = report(garden)
    assert len(script.pages) == 2 * len(KINDS)
    assert made["trouble"] == [f"list of {kind}, page 2: it repeats what came before" for kind in KINDS]
    assert {one["what"] for one in made["findings"]} == ({"denied"} if size < 20 else set())


def test_pages_that_never_end(garden: Garden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "_MAX_PAGES", 30)
    now = garden.world.clock.now

    def lists(kind: str, page: int) -> Answer:
        return 200, {"code": 0, "data": [entry(f"{kind}-{page}-{one}", now - 2 * DAY) for one in range(3)]}

    with before(garden, lists) as script:
        made = report(garden)
    assert len(script.pages) == 30 * len(KINDS)
    assert made["trouble"] == [f"list of {kind}: more than 30 pages" for kind in KINDS]
    assert made["checked"] == {"listed": 360, "without_reference": 360} and made["findings"] == []


@pytest.mark.parametrize("times", [1, 99])
def test_a_page_that_fails_in_the_middle(garden: Garden, times: int) -> None:
    """Once is forgiven. Else what came before counts, and what it hides is asked for."""
    tasks, failures = known(garden, 12), iter(range(times))
    orphan = new_task_id()

    def lists(kind: str, page: int) -> Answer:
        if (kind, page) == (KIND, 3) and next(failures, None) is not None:
            return 502, b"<html>"
        part = as_listed(tasks)[(page - 1) * 4 : page * 4] if kind == KIND else []
        return 200, {"code": 0, "data": [entry("new", tasks[0].created_at, orphan), *part] if part else []}

    by_id = {task.upstream_id: one for task, one in zip(tasks, as_listed(tasks), strict=True)}
    with before(garden, lists, lambda reference: (200, {"code": 0, "data": by_id[reference]})):
        made = report(garden)
    assert [(one["what"], one["task_id"]) for one in made["findings"]] == [("no_row", orphan)]
    if times == 1:
        assert made["trouble"] == [] and made["checked"]["ours"] == 12 and "asked" not in made["checked"]
    else:
        assert made["trouble"] == [f"list of {KIND} before page 3: HTTP 502 without a readable body"]
        assert (made["checked"]["ours"], made["checked"]["asked"]) == (8, 4)


def test_a_short_page_is_not_the_end(garden: Garden) -> None:
    tasks = known(garden, 9)

    def lists(kind: str, page: int) -> Answer:
        return 200, {"code": 0, "data": as_listed(tasks)[(page - 1) * 2 : page * 2] if kind == KIND else []}

    with before(garden, lists) as script:
        made = report(garden)
    assert made["sound"] and made["checked"]["ours"] == 9
    assert [page for kind, page in script.pages if kind == KIND] == [1, 2, 3, 4, 5, 6]


def test_newest_first_ends_with_the_window_and_other_orders_do_not(garden: Garden) -> None:
    now = garden.world.clock.now
    ages = [1, 2, 29, 31, 32, 40, 41, 42]

    def run(order: list[int]) -> list[int]:
        def lists(kind: str, page: int) -> Answer:
            part = order[(page - 1) * 2 : page * 2] if kind == KIND else []
            return 200, {"code": 0, "data": [entry(f"up-{age}", now - age * DAY) for age in part]}

        with before(garden, lists) as script:
            assert report(garden)["checked"]["listed"] == 3
        return [page for kind, page in script.pages if kind == KIND]

    assert run(ages) == [1, 2]
    assert run(ages[::-1]) == run([40, *ages[:5], 41, 42]) == [1, 2, 3, 4, 5]


def test_out_of_time_says_where(garden: Garden, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part leaves time for the later ones: what is parked is named whatever the list takes."""
    tasks = known(garden, 20)
    parked = garden.row(Phase.UNCONFIRMED, unsure_since=tasks[0].created_at)
    monkeypatch.setattr(reconcile, "sleep", lambda seconds: garden.world.clock.tick(20))
    now, denied = garden.world.clock.now, iter(range(1, 100))

    def lists(kind: str, page: int) -> Answer:
        return 200, {"code": 0, "data": [entry(f"{kind}-{page}", now - DAY)]}

    def query(reference: str) -> Answer:
        return 200, {"code": 0, "data": entry(f"{next(denied)}", now - DAY)}

    with before(garden, lists, query) as script:
        made = report(garden)
    assert [page for _, page in script.pages] == [1, 2, 1, 1, 2, 1]
    at = zip(KINDS, (3, 2, 3, 2), strict=True)
    stopped = [f"list of {kind} before page {page}: out of time" for kind, page in at]
    assert made["trouble"] == [*stopped, "questions: out of time, 15 were not asked"]
    assert [one["task_id"] for one in made["findings"]] == [parked.id]
    assert made["unchecked"] == {"not_asked": 15} and made["checked"]["asked"] == 5


def test_out_of_time_among_our_rows(garden: Garden, monkeypatch: pytest.MonkeyPatch) -> None:
    known(garden, 3)
    real = reconcile.TaskRows.created_since

    def slow(*args: Any) -> Iterator[list[str]]:
        for ids in real(*args):
            for one in ids:
                yield [one]
                garden.world.clock.tick(reconcile.SECONDS / 2)

    monkeypatch.setattr(reconcile.TaskRows, "created_since", slow)
    with before(garden, lambda *_: EMPTY):
        made = report(garden)
    assert made["trouble"][0] == "our rows: out of time after 2 of them"
