"""Test tasks of several videos whose provider lists them in another order, and under other ids, in each answer.

Document: each video has an id. Capture: relays return a bare URL. Guess: all other behaviour of these lists.
"""

import json
import random
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from kling_relay.lifecycle import archive
from kling_relay.tasks.task import Phase, Task
from kling_relay.transfer.s3_copy import client_config

from tests.reliability.campaign import Campaign
from tests.support.fake_cloud import MemoryCloud
from tests.support.fake_provider import Sold
from tests.support.loopback_servers import box, respond, serve
from tests.support.stack_in_memory import BODY, Cloud, World

pytestmark = pytest.mark.enable_socket

FORMS = ("ids", "no ids", "some ids", "one id for all")


def video(letter: str, mark: str = "") -> bytes:
    return box(b"ftyp", b"isom\0\0\2\0") + box(b"moov", bytes(40)) + box(b"mdat", f"{letter}{mark} ".encode() * 100)


class Shelf:
    """The provider's storage: /{life}/{letter} is a video, and /{life}/{letter}-marked its watermarked twin. `away` are
    letters that it does not give out just now."""

    def __init__(self) -> None:
        self.away: set[str] = set()
        self.origin = ""

    def __call__(self, connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        letter, _, mark = path.partition("?")[0].rpartition("/")[2].partition("-")
        if letter in self.away:
            return respond(connection, status=503)
        return respond(connection, video(letter, mark))


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    with serve(made) as port:
        made.origin = f"http://127.0.0.1:{port}"
        yield made


@pytest.fixture
def s3(cloud: Cloud) -> Any:
    return boto3.client("s3", region_name="us-east-1", config=client_config())


class Lists:
    """What the provider answers: `letters` in an order by chance, in one of `forms`."""

    def __init__(self, shelf: Shelf, dice: random.Random, letters: str, forms: tuple[str, ...]) -> None:
        self.shelf, self.dice, self.letters, self.forms = shelf, dice, letters, forms
        self.answers = 0

    def __call__(self, sold: Sold) -> list[dict[str, str]]:
        self.answers += 1
        form = self.dice.choice(self.forms)
        order = self.dice.sample(self.letters, len(self.letters))
        return [self._one(place, letter, form) for place, letter in enumerate(order)]

    def _one(self, place: int, letter: str, form: str) -> dict[str, str]:
        file_id = {"ids": f"file-{letter}", "one id for all": "task-id"}.get(form, str(place))
        if form == "some ids" and letter == self.letters[0]:
            file_id = f"file-{letter}"
        url, sign = f"{self.shelf.origin}/v/{letter}", f"?sign={self.answers}"
        return {"id": file_id, "url": url + sign, "watermark_url": f"{url}-marked{sign}", "duration": "5"}


def body(s3: Any, key: str) -> bytes:
    stored: bytes = s3.get_object(Bucket="videos", Key=key)["Body"].read()
    return stored


def check(s3: Any, task: Task, letters: str, marked: bool) -> None:
    got = [body(s3, one["key"]) for one in task.videos]
    assert sorted(got) == sorted(video(letter) for letter in letters), "one is lost, or delivered twice"
    for one, plain in zip(task.videos, got, strict=True):
        letter = next(letter for letter in letters if video(letter) == plain)
        assert one["id"] in (f"file-{letter}", "task-id") or one["id"].isdecimal(), f"{letter} as {one['id']}"
        assert ("watermark_key" in one) is marked
        if marked:
            assert body(s3, one["watermark_key"]) == video(letter, "marked"), "the twin of another video"


def world_of(shelf: Shelf, s3: Any, lists: Lists) -> World:
    world = World(MemoryCloud())
    world.cloud.apps["archive_video"].copy_outputs = archive.copy_outputs  # type: ignore[attr-defined]
    world.services.archive_s3 = s3
    world.provider.profile = replace(world.provider.profile, base_url=shelf.origin)
    world.provider.videos = lists
    return world


def test_lists_in_any_order_deliver_each_video_once(campaign: Campaign, s3: Any, shelf: Shelf) -> None:
    def live(number: int, dice: random.Random) -> None:
        letters = "ABCD"[: dice.randint(2, 4)]
        forms = dice.choice([(form,) for form in FORMS] + [FORMS[:3], FORMS])
        marked, halfway = dice.random() < 0.3, dice.random() < 0.3
        world = world_of(shelf, s3, Lists(shelf, dice, letters, forms))
        task = world.create(BODY | ({"watermark_info": {"enabled": True}} if marked else {}))
        if halfway:  # an older version has numbered its copies by a list of that time, and has not come to an end
            for place, letter in enumerate(dice.sample(letters, dice.randint(1, len(letters)))):
                key = f"videos/acme/{task.id}/{place}.mp4"
                s3.put_object(Bucket="videos", Key=key, Body=video(letter))
        for _ in range(dice.randint(1, 3)):
            shelf.away = set(dice.sample(letters, dice.randint(1, len(letters))))
            world.run(dice.choice([70, 200]), step=1000)
            assert world.task(task.id).phase in (Phase.SUBMITTED, Phase.PROCESSING, Phase.RENDERED)
        shelf.away = set()
        world.run(4000, step=1000)
        done = world.task(task.id)
        assert done.phase is Phase.SUCCEEDED, done
        check(s3, done, letters, marked)
        assert world.provider.billed(task.id) == 1
        campaign.figures["copies"] += done.copies

    campaign.run(range(campaign.size(30, 400)), live)


@pytest.mark.parametrize("order", ["AB", "BA"])
@pytest.mark.parametrize("ids", [True, False])
def test_a_row_and_a_copy_of_an_older_version_end_right(s3: Any, shelf: Shelf, order: str, ids: bool) -> None:
    """c90a538 recorded outputs without names, and had stored A as 0.mp4 before it failed at B."""
    world = world_of(shelf, s3, Lists(shelf, random.Random(1), "AB", ("ids" if ids else "no ids",)))
    task = world.create()
    world.clock.tick(100)
    s3.put_object(Bucket="videos", Key=f"videos/acme/{task.id}/0.mp4", Body=video("A"))
    outputs = [
        {"id": f"file-{letter}" if ids else str(place), "url": f"{shelf.origin}/v/{letter}?old", "duration": "5"}
        for place, letter in enumerate(order)
    ]
    now = world.clock.now
    world.table.move(task, Phase.PROCESSING, updated_at=now)
    world.table.move(
        world.task(task.id), Phase.RENDERED, outputs=outputs, copies=1, rendered_at=now, due_at=now, updated_at=now
    )
    world.run(300)
    done = world.task(task.id)
    assert done.phase is Phase.SUCCEEDED and f"videos/acme/{task.id}/0.mp4" not in [one["key"] for one in done.videos]
    check(s3, done, "AB", False)


def test_keys_of_an_older_version_stay_valid(world: World) -> None:
    task = world.until_closed(world.create().id)
    old = [{**task.videos[0], "key": f"videos/acme/{task.id}/0.mp4"}]
    world.table.rows.update_if(f"task#{task.id}", "SET #videos = :old", "attribute_exists(#pk)", old=json.dumps(old))
    _, answer = world.http("GET", f"/v1/videos/image2video/{task.id}", authorization=world.key())
    assert f"/{task.id}/0.mp4" in answer["data"]["task_result"]["videos"][0]["url"]
