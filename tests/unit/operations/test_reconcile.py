"""Test reconciliation with the real provider client and table, against a provider whose ledger is the truth."""

import json
from collections import Counter
from typing import Any

import pytest
from kling_relay.operations import reconcile
from kling_relay.operations.discrepancies import FindingType
from kling_relay.provider.client import Provider
from kling_relay.provider.profiles import profile
from kling_relay.tasks.task import Phase

from local.simulator import Simulator
from local.stack.stack import SIMULATOR_KEY
from tests.support.row_builders import DAY, RowBuilder
from tests.support.stack_in_memory import Cloud, World

pytestmark = pytest.mark.enable_socket

TABLE_IN_MEMORY = True
LISTED = ("kling", "official")
UNLISTED = ("cometapi", "cometapi")


def build_rows(
    cloud: Cloud, sim: Simulator, who: tuple[str, str], monkeypatch: pytest.MonkeyPatch, seed: int = 1
) -> RowBuilder:
    name, dialect = who  # fmt: skip
    # What was planted lies about two minutes of settling; every profile has a host.
    world = World(cloud, provider=name, kling_base_url=sim.url, settle_seconds=120)
    world.services.provider = Provider(profile(name, sim.url), lambda refresh: SIMULATOR_KEY)  # type: ignore[assignment]
    monkeypatch.setattr(reconcile, "sleep", world.clock.tick)
    if dialect != "official":
        sim.account.set(kling_path=dialect)
    return RowBuilder(world, sim, dialect, name, seed)


@pytest.fixture
def listed(cloud: Cloud, sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> RowBuilder:
    return build_rows(cloud, sim, LISTED, monkeypatch)


@pytest.fixture
def unlisted(cloud: Cloud, sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> RowBuilder:
    return build_rows(cloud, sim, UNLISTED, monkeypatch)


def reported(builder: RowBuilder, **asked: Any) -> dict[str, Any]:
    answer = builder.world.call("operate_tasks", {"action": "reconcile", **asked})
    report: dict[str, Any] = json.loads(json.dumps(answer))
    return report


def named(report: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(one["type"], one["task_id"], one["upstream_id"]) for one in report["findings"]}


@pytest.mark.parametrize(("seed", "order"), [(1, "newest first"), (2, "oldest first"), (3, "shuffled")])
def test_a_hundred_planted_among_sound_ones(
    cloud: Cloud, sim: Simulator, monkeypatch: pytest.MonkeyPatch, seed: int, order: str
) -> None:
    builder = build_rows(cloud, sim, LISTED, monkeypatch, seed)
    builder.sound(420)
    builder.broken(100)
    keys = {"newest first": lambda e: e.accepted_at, "oldest first": lambda e: -e.accepted_at}
    builder.list_at_provider(keys.get(order, lambda e: e.task_id))
    report = reported(builder)
    unattended = [one for one in report["findings"] if not one["open"]]
    assert builder.world.measured["ReconcileFindings"] == len(unattended) > 50
    assert len(builder.expected) == 100
    assert named(report) == builder.expected
    assert len(report["findings"]) == 100 == sum(report["counts"].values())
    assert report["trouble"] == [] and report["left_off"] == 0 and not report["sound"]
    assert report["checked"]["not_ours"] + report["checked"]["without_reference"] == 30
    assert "canary" not in json.dumps(report) and "http" not in json.dumps(report)


def test_a_window_leaves_the_rest_out(listed: RowBuilder) -> None:
    listed.sound(140)
    listed.broken(45)
    listed.list_at_provider()
    whole, since = reported(listed), listed.world.clock.now - 10 * DAY
    assert whole["counts"] == dict.fromkeys(FindingType, 5)
    expected = [one for one in whole["findings"] if one["created_at"] >= since]
    assert 10 < len(expected) < 45
    assert reported(listed, days=10)["findings"] == expected


def test_the_index_is_walked_to_its_end(listed: RowBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS answers a megabyte at a time."""
    real, pages = listed.world.dynamodb.scan, []

    def in_parts(**scan: Any) -> Any:
        pages.append(scan)
        return real(**scan, Limit=4)

    for _ in range(10):
        listed._unconfirmed()
    monkeypatch.setattr(listed.world.dynamodb, "scan", in_parts)
    assert named(reported(listed)) == listed.expected and len(pages) == 3


def test_without_a_list_what_questions_can_find(unlisted: RowBuilder) -> None:
    unlisted.sound(280)
    unlisted.broken(100)
    unlisted.list_at_provider()
    unseen = {
        FindingType.NO_ROW,
        FindingType.BILLED_TWICE,
        FindingType.UNITS_DIFFER,
    }  # CometAPI's answers state no units
    expected = {one for one in unlisted.expected if one[0] not in unseen}
    report = reported(unlisted)
    assert named(report) == expected and len(expected) == 66
    assert not report["lists"] and report["trouble"] == []
    assert report["checked"]["asked"] <= 300 + report["counts"]["denied"]
    assert report["unchecked"]["of_another_provider"] == 40


def test_a_provider_that_cannot_be_asked_by_reference(
    cloud: Cloud, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = build_rows(cloud, sim, ("yutoai", "yutoai"), monkeypatch)
    parked = builder.row(Phase.FAILED, unsure_since=builder.random_time())
    builder.row(Phase.ACCEPTED, unsure_since=builder.random_time())
    report = reported(builder)
    assert named(report) == {("unconfirmed", parked.id, "")}
    assert report["unchecked"] == {"not_asked": 2}


def test_with_many_rows_the_newest_and_the_riskiest_are_asked(
    unlisted: RowBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "_MAX_QUESTIONS", 10)
    now = unlisted.world.clock.now
    for age in range(1, 30):
        unlisted.provider_task(
            unlisted.row(Phase.SUCCEEDED, created_at=now - age * DAY // 2, upstream_id=unlisted.number()), "succeed"
        )
    for _ in range(3):
        unlisted._not_kept()
    unlisted.list_at_provider()
    report = reported(unlisted)
    assert named(report) == unlisted.expected
    assert report["unchecked"] == {"not_asked": 22} and report["checked"]["asked"] == 10
    queried = [entry for entry in unlisted.sim.ledger.entries.values() if entry.queried_at and entry.accepted_at]
    assert sorted(now - entry.accepted_at for entry in queried)[:7] == [age * DAY // 2 for age in range(1, 8)]


def test_two_denials_have_their_distance(unlisted: RowBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    unlisted._denied()
    pauses: list[float] = []
    monkeypatch.setattr(reconcile, "sleep", pauses.append)
    assert named(reported(unlisted)) == unlisted.expected
    assert max(pauses) == 30


def test_one_denial_is_none(unlisted: RowBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    unlisted.provider_task(unlisted.row(Phase.SUCCEEDED, upstream_id=unlisted.number()), "succeed")

    def later(seconds: float) -> None:
        if seconds > 20:
            unlisted.list_at_provider()

    monkeypatch.setattr(reconcile, "sleep", later)
    report = reported(unlisted)
    assert report["sound"] and report["checked"]["asked"] == 2


def test_the_lists_silence_and_one_denial_are_two(listed: RowBuilder) -> None:
    listed._denied()
    report = reported(listed)
    assert named(report) == listed.expected and report["checked"]["asked"] == 1


def test_a_whole_list_that_shows_references_disproves_a_post_in_doubt(listed: RowBuilder) -> None:
    listed.row(Phase.FAILED, unsure_since=listed.random_time())
    report = reported(listed)
    assert report["sound"] and "asked" not in report["checked"]


def test_a_row_that_moved_on_meanwhile_is_sound(listed: RowBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is about a task that has been expired; before it is named, its late video arrives."""
    task = listed.row(Phase.EXPIRED, upstream_id=listed.number())
    listed.provider_task(task, "succeed")
    listed.list_at_provider()
    real = listed.world.services.provider.query

    def query(kind: str, upstream_id: str) -> Any:
        answer = real(kind, upstream_id)
        listed.world.dynamodb.update_item(
            TableName=listed.world.table.rows.name,
            Key={"pk": {"S": f"task#{task.id}"}},
            UpdateExpression="SET phase = :rendered",
            ExpressionAttributeValues={":rendered": {"S": "rendered"}},
        )
        return answer

    monkeypatch.setattr(listed.world.services.provider, "query", query)
    listed.sim.faults.set(query_5xx={"value": 503, "times": 8})
    report = reported(listed)
    assert report["checked"]["asked"] == 1 and report["findings"] == []


def test_the_relay_still_looks_after_some(listed: RowBuilder) -> None:
    watched = listed.row(Phase.EXPIRED, upstream_id=listed.number())
    lost = listed.row(Phase.FAILED, upstream_id=listed.number())
    for task in (watched, lost):
        listed.provider_task(task, "succeed")
    listed.list_at_provider()
    assert {one["task_id"]: one["open"] for one in reported(listed)["findings"]} == {watched.id: True, lost.id: False}


def test_it_writes_nothing(listed: RowBuilder) -> None:
    listed.sound(28)
    listed.broken(18)
    listed.list_at_provider()
    before = listed.world.dynamodb.scan(TableName=listed.world.table.rows.name)["Items"]
    reported(listed)
    assert listed.world.effects.names == []
    assert listed.world.dynamodb.scan(TableName=listed.world.table.rows.name)["Items"] == before
    assert listed.sim.ledger.posts == []


def test_what_is_logged(listed: RowBuilder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    listed.broken(30)
    listed.list_at_provider()
    monkeypatch.setattr(reconcile, "_MAX_LOGGED", 10)
    report = reported(listed)
    lines = [line.__dict__ for line in caplog.records]
    findings = [line for line in lines if line["message"] == "discrepancy_found"]
    assert [{name: line[name] for name in report["findings"][0]} for line in findings] == report["findings"][:10]
    (summary,) = [line for line in lines if line["message"] == "reconcile_completed"]
    assert summary["counts"] == report["counts"] and summary["levelname"] == "WARNING"
    assert (
        "canary" not in str(lines) and "a-key" not in str(lines) and "http" not in str([*findings, summary["trouble"]])
    )


def test_more_than_can_be_named_is_counted(listed: RowBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "_MAX_NAMED", 7)
    listed.broken(20)
    listed.list_at_provider()
    report = reported(listed)
    assert (len(report["findings"]), report["left_off"]) == (7, 13)
    assert Counter(report["counts"]).total() == 20


@pytest.mark.parametrize("days", [0, 31, -1, 1.5, "7", True, None])
def test_days_that_make_no_window(listed: RowBuilder, days: Any) -> None:
    with pytest.raises(ValueError, match="days: must be a whole number from 1 to 30"):
        reported(listed, days=days)


def test_real_lives_leave_nothing_to_name(listed: RowBuilder) -> None:
    """Tasks as the relay itself records them, sent to the simulator; a crash loses what one of them was answered."""
    world = listed.world
    for _ in range(3):
        world.create()
    listed.sim.faults.set(drop_after=1)
    lost = world.create()
    assert reported(listed)["sound"]
    world.clock.tick(3600)
    assert named(reported(listed)) == {("unconfirmed", lost.id, next(reversed(listed.sim.ledger.entries)))}
