"""Check the invariants that must hold in every world after any faults, as functions over a finished world.

The provider's ledger (`world.provider.sold`) is the truth about money. A history is every version of the task rows, as
(before, after), oldest first; tests/support/fake_dynamodb.py keeps it.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from kling_relay.provider.profiles import Account
from kling_relay.tasks.task import CLOSED, ENDED, Phase, Task

from tests.support.stack_in_memory import World

Change = tuple[Task | None, Task]

# How far a task has come. A task may go back among the first three, while nothing is known of it upstream.
RANK = dict.fromkeys((Phase.ACCEPTED, Phase.SUBMITTING, Phase.UNCONFIRMED), 0)
RANK |= {Phase.SUBMITTED: 1, Phase.PROCESSING: 2, Phase.RENDERED: 3} | dict.fromkeys(CLOSED, 4)


def hold(world: World, acknowledged: Iterable[str], history: Iterable[Change] = ()) -> None:
    """All of them. `acknowledged`: the task ids that clients were answered. World.tasks() looks at each row by itself
    already: billed at most once (I1), and `due_at` as long as it is open (I10)."""
    tasks, history = {task.id: task for task in world.tasks()}, list(history)
    all_ended(tasks, acknowledged)
    all_sold_is_known(world, tasks)
    nothing_went_back(history)
    videos_are_there(world, tasks.values())
    paid_is_delivered(world, tasks)
    proof_holds(history)
    doubt_stays(history)
    ends_were_told_once(history)
    money_adds_up(world, tasks.values())
    measures_add_up(world, history)
    assert not world.unexpected_errors, f"a function raised: {world.unexpected_errors}"


def all_ended(tasks: dict[str, Task], acknowledged: Iterable[str]) -> None:
    """I2: what a client was answered exists, and ended; so did everything else that was recorded."""
    assert set(acknowledged) <= set(tasks), "an acknowledged task is lost"
    still_open = [task for task in tasks.values() if task.phase not in CLOSED]
    assert not still_open, f"stuck: {still_open}"


def all_sold_is_known(world: World, tasks: dict[str, Task]) -> None:
    """I3: every sale belongs to one row, which knows it, or which ended visibly as unconfirmed and is watched on."""
    for sold in world.provider.sold:
        assert sold.reference in tasks, f"nobody knows {sold}"
        task = tasks[sold.reference]
        unproved = task.upstream_id is None and task.unsure_since is not None and task.phase in CLOSED
        assert task.upstream_id == sold.upstream_id or unproved, f"{task} was sold as {sold.upstream_id}"
    owned = [task.upstream_id for task in tasks.values() if task.upstream_id is not None]
    assert len(owned) == len(set(owned)), "one sale, two owners"
    for task in tasks.values():
        if task.upstream_id is not None:
            assert world.table.owner(Account.read(world.services.account_of(task)).space, task.upstream_id) == task.id


def nothing_went_back(history: Iterable[Change]) -> None:
    """I4: no task loses ground, and an end is an end; but `expired` may move once more, when a late video comes."""
    moved_late: set[str] = set()
    for was, task in history:
        if was is None:
            continue
        assert was.attempt <= task.attempt <= was.attempt + 1, f"{was} -> {task}"
        assert was.upstream_id in (None, task.upstream_id), f"{was} -> {task}"
        if was.phase is Phase.EXPIRED and task.phase is Phase.RENDERED:
            assert task.id not in moved_late, "the late move happens once"
            moved_late.add(task.id)
            continue
        assert RANK[was.phase] <= RANK[task.phase], f"{was.phase} -> {task.phase}"
        if was.phase in ENDED and task.deleted_at is None:
            assert (task.phase, task.videos, task.reason) == (was.phase, was.videos, was.reason), "an end is an end"


def videos_are_there(world: World, tasks: Iterable[Task]) -> None:
    """I5: succeeded means that every video is in the bucket, with the bytes that the row tells."""
    for task in tasks:
        if task.phase is not Phase.SUCCEEDED or task.deleted_at is not None:
            continue
        assert task.videos, task
        for video in task.videos:
            assert _stored(world, video["key"]) == (video["size"], video["md5"]), video


def paid_is_delivered(world: World, tasks: dict[str, Task]) -> None:
    """I9: a task that the provider has finished fails for nobody who knows its id, and its videos are its own."""
    for sold in world.provider.sold:
        task = tasks[sold.reference]
        if task.upstream_id != sold.upstream_id or sold.end != "succeed" or task.deleted_at is not None:
            continue
        assert task.phase is not Phase.FAILED, f"paid, and failed: {task}"
        own = {video["id"] for video in world.provider.videos(sold)}
        assert {video["id"] for video in task.videos} <= own, f"another task's video: {task}"


def proof_holds(history: Iterable[Change]) -> None:
    """I11: a task that the provider is proved to have is never sent again."""
    for was, task in history:
        if was is not None and was.proved_at is not None:
            assert task.phase not in (Phase.ACCEPTED, Phase.SUBMITTING), f"sent again in spite of proof: {task}"


def doubt_stays(history: Iterable[Change]) -> None:
    """I12: the row keeps a POST in doubt, its account and the claim of the first such POST, whatever later POSTs bring.
    No such task fails as one that was not sent: it expires, and the relay asks for it again."""
    for was, task in history:
        if was is None or was.unsure_since is None:
            continue
        assert task.unsure_since is not None, f"the doubt is lost: {was} -> {task}"
        assert task.sent_since is not None and task.sent_since <= (was.sent_since or 0), f"{was} -> {task}"
        assert was.account in (None, task.account), f"in doubt at another account: {was} -> {task}"
        assert (was.phase, task.phase) != (Phase.ACCEPTED, Phase.FAILED), f"in doubt, and failed as unsent: {task}"


def _stored(world: World, key: str) -> tuple[int, str]:
    head: dict[str, Any] = world.s3.head_object(Bucket="videos", Key=key)
    return head["ContentLength"], head["ETag"].strip('"')


def ends_were_told_once(history: Iterable[Change]) -> None:
    """I6: a task comes to an end once; one that expired may come to its late one as well."""
    ends: dict[str, list[Phase]] = {}
    for was, task in history:
        if task.phase in CLOSED and (was is None or was.phase is not task.phase):
            ends.setdefault(task.id, []).append(task.phase)
    for task_id, told in ends.items():
        assert len(told) == 1 or (len(told) == 2 and told[0] is Phase.EXPIRED), f"{task_id} ended as {told}"


def money_adds_up(world: World, tasks: Iterable[Task]) -> None:
    """I7: what the relay calls free was not billed, and a finished task says what the provider charged."""
    for task in tasks:
        if task.cost_nothing:
            assert not world.provider.billed(task.id), f"{task} counts as free"
        if task.phase is Phase.SUCCEEDED:
            assert task.units is not None


_TOLD_BY_PHASE = {Phase.UNCONFIRMED: "Unconfirmed", Phase.SUBMITTED: "Submitted", Phase.SUCCEEDED: "Succeeded"}


def measures_add_up(world: World, history: list[Change]) -> None:
    """I8: metrics tell what the rows went through: nothing twice, and nothing left out where nobody died. So what was
    accepted has succeeded, failed, was cancelled, or is open; what expired and came late is told as both."""
    told, happened = world.measured, Counter[str](Accepted=0)
    for was, task in history:
        if was is None:
            happened["Accepted"] += 1
            continue
        if was.units is None and was.rendered_at is None:
            estimated = (task.estimate or 0) / 1000 if task.rendered_at is not None else 0
            happened["UnitsSpent"] += estimated if task.units is None else float(task.units)
        if was.phase is not task.phase:
            happened[_TOLD_BY_PHASE.get(task.phase, "")] += 1
            if task.phase in CLOSED and task.failure is not None and was.expired_at is None:
                happened[f"Failed/{task.failure}"] += 1
    del happened[""]
    families = {*happened, *(name for name in told if name in _TOLD_BY_PHASE.values() or name.startswith("Failed/"))}
    differ = {name: (told[name], happened[name]) for name in families if told[name] != happened[name]}
    if not history:
        return
    if world.effects.fired:
        assert all(measured < true for measured, true in differ.values()), f"told twice: {differ}"
        return
    assert not differ, f"(told, happened): {differ}"
    tasks = world.tasks()
    late = sum(task.phase is Phase.SUCCEEDED and task.expired_at is not None for task in tasks)
    cancelled = sum(task.phase is Phase.FAILED and task.failure is None for task in tasks)
    still_open = sum(task.phase not in CLOSED for task in tasks)
    ended = told["Succeeded"] + sum(value for name, value in told.items() if name.startswith("Failed/"))
    assert told["Accepted"] + late == ended + cancelled + still_open
