"""Test lists of requests: one task per line, correct counts for repeated reports, and bounded work."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kling_relay.notifications import result_file as results_module
from kling_relay.s3_inbox import batch as lines_module
from kling_relay.tasks.task import Phase

from tests.support.image_files import jpeg, png
from tests.support.s3_inbox import Queue, drop, empty, result, results, source, task_of
from tests.support.stack_in_memory import Cloud, World, video_keys
from tests.unit.api.test_create import b64

pytestmark = pytest.mark.slow

TABLE_IN_MEMORY = True
KEY = "inbox/batch/night.tasks.jsonl"
TEXT = {"kind": "text2video", "prompt": "rain", "model_name": "kling-v1-6"}


@pytest.fixture
def world(cloud: Cloud) -> World:
    world = World(cloud)
    empty(world)
    return world


def listed(*bodies: Any, end: str = "\n") -> bytes:
    return end.join(body if isinstance(body, str) else json.dumps(body) for body in bodies).encode()


def counts(world: World, key: str = KEY) -> dict[str, int]:
    told = result(world, key)
    return {name: told[name] for name in ("lines", "accepted", "rejected", "succeeded", "failed", "finished")}


def finish(world: World) -> None:
    for task in world.tasks():
        results_module.write(world.services, world.until_closed(task.id))


def test_every_kind_in_one_file(world: World, queue: Queue) -> None:
    drop(world, "inbox/batch/a.jpg", jpeg())
    drop(world, "inbox/batch/more/b.PNG", png())
    several = [{"image": "a.jpg"}, {"image": "more/b.PNG"}, {"image": b64(png())}, {"image": "https://h.example/x.jpg"}]
    bodies = [
        {"kind": "image2video", "image": "a.jpg", "model_name": "kling-v1-6"},
        "",
        {"kind": "multi-image2video", "image_list": several, "prompt": "p", "model_name": "kling-v1-6"},
        "   \t",
        TEXT,
        {"kind": "image2video", "image": b64(png()), "model_name": "kling-v1-6"},
    ]
    dropped = drop(world, KEY, listed(*bodies, end="\r\n") + b"\n")
    queue.put(dropped, dropped)
    queue.run()
    tasks = {line: task_of(world, dropped, line) for line in (1, 3, 5, 6)}
    assert [task.kind for task in tasks.values()] == ["image2video", "multi-image2video", "text2video", "image2video"]
    places = [image["image"] for image in tasks[3].request["image_list"]]
    assert places[0] == {"s3": f"inputs/inbox/{tasks[3].id}/image_list[0].image.jpg"}
    assert places[1] == {"s3": f"inputs/inbox/{tasks[3].id}/image_list[1].image.png"}
    assert places[3] == "https://h.example/x.jpg"
    assert counts(world) == dict(lines=4, accepted=4, rejected=0, succeeded=0, failed=0, finished=False)
    assert result(world, KEY, 3)["task_id"] == tasks[3].id
    finish(world)
    assert counts(world) == dict(lines=4, accepted=4, rejected=0, succeeded=4, failed=0, finished=True)
    assert result(world, KEY, 3)["videos"][0]["key"] == video_keys(world.task(tasks[3].id))[0]
    assert len(world.tasks()) == 4 and queue.dead == []


BAD = [
    ("{", "body: must be a JSON object"),
    ("[]", "body: must be a JSON object"),
    ('{"prompt": "no kind"}', "kind: "),
    ('{"kind": "text2image", "prompt": "p"}', "kind: "),
    ('{"kind": "text2video"}', "prompt: "),
    ({"kind": "image2video", "image": "../other/a.jpg"}, "image: must be a key below"),
    ({"kind": "image2video", "image": "sub/../../a.jpg"}, "image: must be a key below"),
    ({"kind": "image2video", "image": "/inbox/batch/a.jpg"}, "image: must be a key below"),
    ({"kind": "image2video", "image": "./a.jpg"}, "image: must be a key below"),
    ({"kind": "image2video", "image": "s3://inputs/inbox/batch/a.jpg"}, "image: must be a key below"),
    ({"kind": "image2video", "image": "s3://videos/x"}, "image: must be a key below"),
    ({"kind": "image2video", "image": "x" * 1100 + ".jpg"}, "1024 bytes"),
    ({"kind": "image2video", "image": "missing.jpg"}, "image: object not found"),
    ({"kind": "image2video", "image": "notes.txt"}, "valid base64"),
    ({"kind": "multi-image2video", "prompt": "p", "image_list": [{"image": "missing.jpg"}]}, "image_list[0].image: "),
    ("\u00ff\u0000", "body: must be a JSON object"),
]


def test_a_bad_line_harms_no_other(world: World, queue: Queue) -> None:
    good = {number: {**TEXT, "prompt": f"number {number}"} for number in range(len(BAD))}
    dropped = drop(world, KEY, listed(*[body for number, (bad, _) in enumerate(BAD) for body in (good[number], bad)]))
    queue.put(*[dropped] * 3)
    queue.run(random.Random(4))
    assert len(world.tasks()) == len(BAD) == len(world.provider.posts) and queue.dead == []
    told = result(world, KEY)
    bad_lines = [2 * number + 2 for number in range(len(BAD))]
    assert counts(world) == dict(
        lines=2 * len(BAD), accepted=len(BAD), rejected=len(BAD), succeeded=0, failed=0, finished=False
    )
    assert told["rejected_lines"] == bad_lines == [one["line"] for one in told["reasons"]]
    for (_, words), reason, line in zip(BAD, told["reasons"], bad_lines, strict=True):
        assert words in reason["message"], reason
        assert result(world, KEY, line)["task_status_msg"] == reason["message"]
    finish(world)
    assert counts(world)["finished"] and counts(world)["succeeded"] == len(BAD)


@pytest.mark.parametrize("seed", range(2))
def test_counts_under_redelivery_in_any_order(world: World, queue: Queue, seed: int) -> None:
    """Every message twice, ends told in any order and twice, one upload over another."""
    dice = random.Random(seed)
    bodies = [{**TEXT, "prompt": f"number {n}"} if n % 7 else {"kind": "text2video"} for n in range(1, 16)]
    dropped = [drop(world, KEY, listed(*bodies)) for _ in range(2)]
    queue.put(*dropped, *dropped)
    while queue.messages:
        queue.messages += [
            dict(one, messageId=one["messageId"] + "x") for one in queue.messages[:3] if dice.random() < 0.5
        ]
        some, queue.messages = queue.messages[:8], queue.messages[8:]
        rest, queue.messages = queue.messages, some
        queue.run(dice)
        queue.messages = rest + queue.messages
    assert len(world.tasks()) == 2 * 13
    tasks = [world.until_closed(task.id) for task in world.tasks()] * 2
    dice.shuffle(tasks)
    for task in tasks:
        results_module.write(world.services, task)
    assert counts(world) == dict(lines=15, accepted=13, rejected=2, succeeded=13, failed=0, finished=True)
    newest, older = (one["detail"]["object"]["version-id"] for one in reversed(dropped))
    assert result(world, KEY)["source"]["version"] == newest
    assert f"results/{KEY}.{older}.json" in results(world) and f"results/{KEY}.{older}/5.json" in results(world)


def test_a_failed_task_counts_as_failed_until_it_succeeds_after_all(world: World, queue: Queue) -> None:
    dropped = drop(world, KEY, listed(TEXT, {**TEXT, "prompt": "2"}))
    queue.put(dropped)
    queue.run()
    one, two = (task_of(world, dropped, line) for line in (1, 2))
    results_module.write(world.services, world.table.move(one, Phase.FAILED, reason="no", updated_at=world.clock.now))
    expired = world.table.move(
        two,
        Phase.EXPIRED,
        reason="late",
        expired_at=world.clock.now,
        due_at=world.clock.now,
        updated_at=world.clock.now,
    )
    results_module.write(world.services, expired)
    assert counts(world) == dict(lines=2, accepted=2, rejected=0, succeeded=0, failed=2, finished=True)
    world.clock.tick(3)
    world.run(7 * 3600)
    late = world.task(two.id)
    assert late.phase is Phase.SUCCEEDED
    results_module.write(world.services, late)
    results_module.write(world.services, expired)
    assert counts(world) == dict(lines=2, accepted=2, rejected=0, succeeded=1, failed=1, finished=True)
    assert result(world, KEY, 2)["task_status"] == "succeed"


def test_a_long_list_is_handed_out_by_several_calls(
    world: World, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = drop(world, KEY, listed(*[{**TEXT, "prompt": str(n)} for n in range(35)]))
    left = iter([20_000, 20_000, 20_000, 10_000] * 100)
    lines_module.hand_out(world.services, source(dropped), 1, lambda: next(left))
    bodies = [json.loads(one["body"]) for one in queue.messages]
    assert len(bodies) == 31 and bodies[-1]["from_line"] == 31
    queue.run()
    assert len(world.tasks()) == 35 and counts(world)["accepted"] == 35
    before = queue.sent
    queue.put(dropped)
    queue.run()
    assert queue.sent == before and len(world.provider.posts) == 35, "an event that comes again hands nothing out"


def test_messages_that_were_not_queued_are_queued_by_the_next_try(world: World, queue: Queue) -> None:
    queue.fail_sends = 2
    queue.put(drop(world, KEY, listed(TEXT, {**TEXT, "prompt": "2"})))
    queue.run()
    assert queue.dead == [] and len(world.tasks()) == 2


def test_limits(world: World, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.put(drop(world, KEY, b"{}\n" * 10_001))
    queue.run()
    assert "10000 lines" in result(world, KEY)["task_status_msg"] and world.tasks() == []
    monkeypatch.setattr(lines_module, "MAX_BYTES", 100)
    queue.put(drop(world, KEY, b"{}\n" * 100))
    queue.run()
    assert "100 bytes" in result(world, KEY)["task_status_msg"]
    monkeypatch.undo()
    long_line = json.dumps({**TEXT, "prompt": "x" * 5_600_000})
    queue.put(drop(world, KEY, listed(long_line, TEXT)))
    queue.run()
    assert "5500000" in result(world, KEY, 1)["task_status_msg"] and counts(world)["accepted"] == 1


def test_what_a_line_costs_does_not_grow_with_the_list(world: World) -> None:
    """Reads and writes of the counting: rows stay small, reasons are bounded."""
    batch_counts = world.services.batch_counts
    assert batch_counts.begin("t", lines=5000, last=5000, expires_at=1) is False
    for line in range(1, 501):
        batch_counts.tell("t", line, "rejected", "x" * 1000)
    told = batch_counts.read("t")
    assert told is not None and (told.rejected, len(told.reasons)) == (500, 20)
    row = world.row("lines#t#0")
    assert len(json.dumps(row)) < 20_000
    assert batch_counts.read("other") is None


def test_tellers_at_once(cloud: Cloud) -> None:
    batch_counts = World(Cloud()).services.batch_counts  # all in moto: the table in memory is for one at a time
    batch_counts.begin("t", lines=200, last=200, expires_at=1)
    told = [(line, word) for line in range(1, 201) for word in ("accepted", "succeeded")] * 2
    random.Random(1).shuffle(told)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda one: batch_counts.tell("t", *one), told))
    tally = batch_counts.read("t")
    assert tally is not None and (tally.accepted, tally.succeeded, tally.finished) == (200, 200, True)


def test_summaries_are_written_every_other_second_at_most(world: World, queue: Queue) -> None:
    dropped = drop(world, KEY, listed(*[{**TEXT, "prompt": str(n)} for n in range(30)]))
    queue.put(dropped)
    queue.run()
    finish(world)
    assert counts(world)["finished"]
    pages = world.cloud.s3.get_paginator("list_object_versions").paginate(Bucket="inputs", Prefix=f"results/{KEY}.json")
    written = sum(len(page.get("Versions", [])) for page in pages)
    assert written <= 10, written  # time stands still while lines are taken; ends are minutes apart


def test_a_task_that_the_provider_refuses_is_accepted_by_us_and_failed(world: World, queue: Queue) -> None:
    world.provider.submit_faults = ["refused"]
    queue.put(drop(world, KEY, listed(TEXT)))
    queue.run()
    assert counts(world) == dict(lines=1, accepted=1, rejected=0, succeeded=0, failed=1, finished=True)
    assert result(world, KEY, 1)["code"] >= 1000
