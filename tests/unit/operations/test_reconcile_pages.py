"""Test the reading of a list to its end, and the end of a report: pages that fail, repeat or never end, and time."""

from collections.abc import Iterator
from typing import Any

import pytest
from kling_relay.kinds.fields import KINDS
from kling_relay.operations import reconcile
from kling_relay.tasks.task import Phase, new_task_id

from tests.support.row_builders import DAY, RowBuilder
from tests.support.scripted_provider import (
    EMPTY,
    KIND,
    Answer,
    as_listed,
    entry,
    known,
    report,
    scripted_provider,
)

pytestmark = pytest.mark.enable_socket

TABLE_IN_MEMORY = True


@pytest.mark.parametrize("size", [1, 7, 100])
def test_pages_that_repeat_for_ever(builder: RowBuilder, size: int) -> None:
    tasks = known(builder, 20)
    with scripted_provider(builder, lambda kind, page: (200, {"code": 0, "data": as_listed(tasks)[:size]})) as script:
        made = report(builder)
    assert len(script.pages) == 2 * len(KINDS)
    assert made["trouble"] == [f"list of {kind}, page 2: it repeats what came before" for kind in KINDS]
    assert {one["type"] for one in made["findings"]} == ({"denied"} if size < 20 else set())


def test_pages_that_never_end(builder: RowBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "_MAX_PAGES", 30)
    now = builder.world.clock.now

    def lists(kind: str, page: int) -> Answer:
        return 200, {"code": 0, "data": [entry(f"{kind}-{page}-{one}", now - 2 * DAY) for one in range(3)]}

    with scripted_provider(builder, lists) as script:
        made = report(builder)
    assert len(script.pages) == 30 * len(KINDS)
    assert made["trouble"] == [f"list of {kind}: more than 30 pages" for kind in KINDS]
    assert made["checked"] == {"listed": 360, "without_reference": 360} and made["findings"] == []


@pytest.mark.parametrize("times", [1, 99])
def test_a_page_that_fails_in_the_middle(builder: RowBuilder, times: int) -> None:
    """Once is forgiven. Else what came before counts, and what it hides is asked for."""
    tasks, failures = known(builder, 12), iter(range(times))
    orphan = new_task_id()

    def lists(kind: str, page: int) -> Answer:
        if (kind, page) == (KIND, 3) and next(failures, None) is not None:
            return 502, b"<html>"
        part = as_listed(tasks)[(page - 1) * 4 : page * 4] if kind == KIND else []
        return 200, {"code": 0, "data": [entry("new", tasks[0].created_at, orphan), *part] if part else []}

    by_id = {task.upstream_id: one for task, one in zip(tasks, as_listed(tasks), strict=True)}
    with scripted_provider(builder, lists, lambda reference: (200, {"code": 0, "data": by_id[reference]})):
        made = report(builder)
    assert [(one["type"], one["task_id"]) for one in made["findings"]] == [("no_row", orphan)]
    if times == 1:
        assert made["trouble"] == [] and made["checked"]["ours"] == 12 and "asked" not in made["checked"]
    else:
        assert made["trouble"] == [f"list of {KIND} before page 3: HTTP 502 without a readable body"]
        assert (made["checked"]["ours"], made["checked"]["asked"]) == (8, 4)


def test_a_short_page_is_not_the_end(builder: RowBuilder) -> None:
    tasks = known(builder, 9)

    def lists(kind: str, page: int) -> Answer:
        return 200, {"code": 0, "data": as_listed(tasks)[(page - 1) * 2 : page * 2] if kind == KIND else []}

    with scripted_provider(builder, lists) as script:
        made = report(builder)
    assert made["sound"] and made["checked"]["ours"] == 9
    assert [page for kind, page in script.pages if kind == KIND] == [1, 2, 3, 4, 5, 6]


def test_newest_first_ends_with_the_window_and_other_orders_do_not(builder: RowBuilder) -> None:
    now = builder.world.clock.now
    ages = [1, 2, 29, 31, 32, 40, 41, 42]

    def run(order: list[int]) -> list[int]:
        def lists(kind: str, page: int) -> Answer:
            part = order[(page - 1) * 2 : page * 2] if kind == KIND else []
            return 200, {"code": 0, "data": [entry(f"up-{age}", now - age * DAY) for age in part]}

        with scripted_provider(builder, lists) as script:
            assert report(builder)["checked"]["listed"] == 3
        return [page for kind, page in script.pages if kind == KIND]

    assert run(ages) == [1, 2]
    assert run(ages[::-1]) == run([40, *ages[:5], 41, 42]) == [1, 2, 3, 4, 5]


def test_out_of_time_says_where(builder: RowBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part leaves time for the later ones: what is parked is named whatever the list takes."""
    tasks = known(builder, 20)
    parked = builder.row(Phase.UNCONFIRMED, unsure_since=tasks[0].created_at)
    monkeypatch.setattr(reconcile, "sleep", lambda seconds: builder.world.clock.tick(20))
    now, denied = builder.world.clock.now, iter(range(1, 100))

    def lists(kind: str, page: int) -> Answer:
        return 200, {"code": 0, "data": [entry(f"{kind}-{page}", now - DAY)]}

    def query(reference: str) -> Answer:
        return 200, {"code": 0, "data": entry(f"{next(denied)}", now - DAY)}

    with scripted_provider(builder, lists, query) as script:
        made = report(builder)
    assert [page for _, page in script.pages] == [1, 2, 1, 1, 2, 1]
    at = zip(KINDS, (3, 2, 3, 2), strict=True)
    stopped = [f"list of {kind} before page {page}: out of time" for kind, page in at]
    assert made["trouble"] == [*stopped, "questions: out of time, 15 were not asked"]
    assert [one["task_id"] for one in made["findings"]] == [parked.id]
    assert made["unchecked"] == {"not_asked": 15} and made["checked"]["asked"] == 5


def test_out_of_time_among_our_rows(builder: RowBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    known(builder, 3)
    real = reconcile.TaskRows.created_since

    def slow(*args: Any) -> Iterator[list[str]]:
        for ids in real(*args):
            for one in ids:
                yield [one]
                builder.world.clock.tick(reconcile.SECONDS / 2)

    monkeypatch.setattr(reconcile.TaskRows, "created_since", slow)
    with scripted_provider(builder, lambda *_: EMPTY):
        made = report(builder)
    assert made["trouble"][0] == "our rows: out of time after 2 of them"
