"""Test the report on unexpected and hostile answers: it names the parts it could not read, and counts no denial."""

import socket
from typing import Any

import pytest
from kling_relay.kinds.fields import KINDS
from kling_relay.operations.discrepancies import FindingType
from kling_relay.provider.client import Provider
from kling_relay.provider.profiles import profile
from kling_relay.tasks.task import Phase, new_task_id

from tests.support.loopback_servers import respond, serve
from tests.support.provider_calls import Keys
from tests.support.row_builders import DAY, RowBuilder
from tests.support.scripted_provider import (
    EMPTY,
    KIND,
    NOT_FOUND,
    Answer,
    ScriptedProvider,
    as_listed,
    entry,
    known,
    report,
    scripted_provider,
)

pytestmark = pytest.mark.enable_socket

TABLE_IN_MEMORY = True


NO_LISTS: list[Answer] = [
    (200, b"<html>502</html>"),
    (200, b'{"code":0,"data":[{"task_id":'),
    (200, b""),
    (200, b"[" * 100_000),
    (200, []),
    (200, "x"),
    (200, {"code": 0}),
    (200, {"code": 0, "data": None}),
    (200, {"code": 0, "data": {}}),
    (200, {"code": 0, "data": "[]"}),
    (200, {"code": 0, "data": {"list": []}}),
    (200, {"code": 1201, "data": []}),
    (200, {"code": "\u001b[2J" + "x" * 500, "data": []}),
    (404, {"code": 1202, "message": "method is invalid"}),
    (404, {"code": 0, "data": []}),
    (401, {"code": 1002}),
    (302, b""),
    (500, {"code": 5000}),
    (503, {"code": 0, "data": []}),
]
# For a question these three are how providers say that they know no such task.
DENIALS: list[Answer] = [
    (200, {"code": 0, "data": None}),
    (200, {"code": 0, "data": {}}),
    (404, {"code": 0, "data": []}),
]


@pytest.mark.parametrize("answer", NO_LISTS, ids=lambda one: repr(one)[:50])
def test_what_is_no_list_is_trouble_and_never_nothing(builder: RowBuilder, answer: Answer) -> None:
    (task,) = known(builder, 1)
    with scripted_provider(
        builder, lambda kind, page: answer, lambda _: (200, {"code": 0, "data": as_listed([task])[0]})
    ):
        made = report(builder)
    assert made["findings"] == [] and not made["sound"]
    assert len(made["trouble"]) == len(KINDS) and all("page 1" in one for one in made["trouble"])
    assert all(len(one) < 200 and one.isprintable() for one in made["trouble"])
    assert made["checked"]["asked"] == 1, "the row was asked for instead"


@pytest.mark.parametrize("answer", [one for one in NO_LISTS if one not in DENIALS], ids=lambda one: repr(one)[:50])
def test_a_question_without_an_answer_denies_nothing(builder: RowBuilder, answer: Answer) -> None:
    known(builder, 1)
    with scripted_provider(builder, lambda kind, page: EMPTY, lambda _: answer):
        made = report(builder)
    assert made["findings"] == [] and made["unchecked"] == {"not_asked": 1} and not made["sound"]
    assert all(len(one) < 200 and one.isprintable() for one in made["trouble"])


@pytest.mark.parametrize("odd", [1, None, "x", [], {}, {"task_id": {}}, {"task_id": ""}, {"code": 5, "task_id": "1"}])
def test_entries_that_are_no_tasks(builder: RowBuilder, odd: Any) -> None:
    """They are trouble, the others count, and what the list did not show has not been denied."""
    tasks = known(builder, 2)
    page = [odd, *as_listed(tasks[:1]), odd, entry("new", tasks[0].created_at, new_task_id())]

    def lists(kind: str, number: int) -> Answer:
        return (200, {"code": 0, "data": page}) if (kind, number) == (KIND, 1) else EMPTY

    asked: list[str] = []
    with scripted_provider(builder, lists, lambda reference: asked.append(reference) or NOT_FOUND):
        made = report(builder)
    assert made["trouble"] == [f"list of {KIND}, page 1: 2 entries cannot be read"]
    assert {one["type"]: one["upstream_id"] for one in made["findings"]} == {"no_row": "new", "denied": "up-1"}
    assert asked == ["up-1", "up-1"], "twice, as without a list"


def test_the_list_hides_references(builder: RowBuilder) -> None:
    """Then an orphan looks like anybody's task, which the report says; and silence proves nothing."""
    tasks = known(builder, 3)
    doubted = builder.row(Phase.FAILED, unsure_since=tasks[0].created_at, kind=KIND)
    page = [entry(task.upstream_id, task.created_at) for task in tasks] + [entry("x", tasks[0].created_at)]

    def lists(kind: str, number: int) -> Answer:
        return (200, {"code": 0, "data": page}) if (kind, number) == (KIND, 1) else EMPTY

    found = (200, {"code": 0, "data": entry("x", tasks[0].created_at, doubted.id)})
    with scripted_provider(builder, lists, lambda reference: found if reference == doubted.id else NOT_FOUND):
        made = report(builder)
    assert made["unchecked"] == {"without_reference": 1}
    assert [(one["type"], one["task_id"]) for one in made["findings"]] == [("not_adopted", doubted.id)]


@pytest.mark.parametrize("text", ["a\nb", "\u001b[31mred", "x" * 5000, "a/../b?c#d", "\ud800half", "ключ", 'a"b'])
def test_ids_that_nobody_would_choose(builder: RowBuilder, text: str, caplog: pytest.LogCaptureFixture) -> None:
    reference, at = new_task_id(), builder.world.clock.now - DAY
    page = [entry(text, at, reference), entry("y", at, text), entry("z", at, reference[:31] + "\n")]

    def lists(kind: str, number: int) -> Answer:
        return (200, {"code": 0, "data": page}) if (kind, number) == (KIND, 1) else EMPTY

    with scripted_provider(builder, lists):
        made = report(builder)
    (one,) = made["findings"]
    assert one["task_id"] == reference and one["upstream_id"].isprintable() and len(one["upstream_id"]) <= 64
    assert made["checked"]["not_ours"] == 2 and made["trouble"] == []


def test_a_provider_that_is_down_is_not_asked_for_ever(builder: RowBuilder) -> None:
    known(builder, 25)
    asked: list[str] = []
    with scripted_provider(builder, lambda *_: (503, b""), lambda reference: asked.append(reference) or (503, b"")):
        made = report(builder)
    assert len(asked) == 5 and made["unchecked"] == {"not_asked": 25}
    assert made["trouble"][-1] == "questions: too many failed, 20 were not asked"
    assert made["findings"] == [] and not made["sound"]


@pytest.mark.parametrize("key", ["", "two words"])
def test_without_a_usable_key_our_side_is_still_told(builder: RowBuilder, key: str) -> None:
    tasks = known(builder, 2)
    parked = builder.row(Phase.UNCONFIRMED, unsure_since=tasks[0].created_at)
    with scripted_provider(builder, lambda *_: EMPTY) as script:
        builder.world.services.provider._key = lambda refresh: key
        made = report(builder)
    assert script.pages == [] and made["unchecked"] == {"not_asked": 2}
    assert [(one["type"], one["task_id"]) for one in made["findings"]] == [("unconfirmed", parked.id)]
    (trouble,) = made["trouble"]
    assert "make provider-key" in trouble and (not key or key not in trouble)


def test_a_rotated_key_is_fetched_in_the_middle(builder: RowBuilder) -> None:
    keys = Keys("old", "new")

    class Picky(ScriptedProvider):
        def __call__(self, connection: socket.socket, path: str, headers: dict[str, str]) -> None:
            if headers["authorization"].endswith("new"):
                super().__call__(connection, path, headers)
            else:
                respond(connection, b'{"code":1002,"message":"api key not found"}', status=401)

    with serve(Picky(lambda *_: EMPTY, lambda _: NOT_FOUND)) as port:
        builder.world.services.provider = Provider(profile("kling", f"http://127.0.0.1:{port}"), keys)
        assert report(builder)["sound"] and keys.refreshes == 1


def test_pages_of_nothing_that_can_be_read(builder: RowBuilder) -> None:
    known(builder, 1)
    with scripted_provider(builder, lambda kind, page: (200, {"code": 0, "data": [1, 2]})) as script:
        made = report(builder)
    assert len(script.pages) == len(made["trouble"]) == len(KINDS)
    assert made["checked"]["asked"] == 2


def test_times_that_nobody_states(builder: RowBuilder) -> None:
    """They may lie in the window, and say nothing about an order."""
    orphans = [new_task_id() for _ in range(3)]
    times = [None, -1, "soon"]

    def lists(kind: str, page: int) -> Answer:
        part = [entry(f"up-{page}", times[page - 1], orphans[page - 1])] if kind == KIND and page <= 3 else []
        return 200, {"code": 0, "data": part}

    with scripted_provider(builder, lists):
        made = report(builder)
    assert [one["task_id"] for one in made["findings"]] == [orphans[0], orphans[2]] and made["trouble"] == []


def test_rows_that_are_none_stop_nobody(builder: RowBuilder) -> None:
    bad = [
        {"phase": {"S": "dancing"}, "created_at": {"N": "1"}, "kind": {"S": KIND}},
        {"created_at": {"N": "1"}, "kind": {"S": KIND}},
        {"phase": {"S": "failed"}},
    ]
    for number, fields in enumerate(bad):
        item = {"pk": {"S": f"task#bad{number}"}, "owner": {"S": "x#y"}, "birth": {"S": "9"}, **fields}
        builder.world.dynamodb.put_item(TableName=builder.world.table.rows.name, Item=item)
    item["pk"] = {"S": f"task#{'d' * 32}"}
    builder.world.dynamodb.put_item(TableName=builder.world.table.rows.name, Item=item)
    parked = builder.row(Phase.UNCONFIRMED, unsure_since=builder.world.clock.now - DAY)
    page = [entry("up", builder.world.clock.now - DAY, "d" * 32)]  # it has a row, whatever that says

    def lists(kind: str, number: int) -> Answer:
        return (200, {"code": 0, "data": page}) if (kind, number) == (KIND, 1) else EMPTY

    with scripted_provider(builder, lists):
        made = report(builder)
    assert made["unchecked"] == {"unreadable_rows": 4}
    assert [(one["type"], one["task_id"]) for one in made["findings"]] == [(FindingType.UNCONFIRMED, parked.id)]
