"""Test dropped images and manifests: one task per version, settings from four places, and a result for each file."""

import io
import json
import random
import unicodedata
from typing import Any

import pytest
from kling_relay.observability import logger
from kling_relay.tasks.task import Phase

from tests.support.image_files import jpeg, png
from tests.support.s3_inbox import Queue, copy_onto_itself, drop, empty, event, result, results, source, task_of
from tests.support.stack_in_memory import Cloud, World, video_keys
from tests.unit.test_handlers import event as handler_event

pytestmark = pytest.mark.slow

TABLE_IN_MEMORY = True
MODEL = {"default_model_image2video": "kling-v1-6"}


@pytest.fixture
def world(cloud: Cloud) -> World:
    world = World(cloud, **MODEL, intake_prompt="the stack's", intake_duration="5")
    empty(world)
    return world


def text(**settings: Any) -> bytes:
    return json.dumps(settings).encode()


def test_an_image_becomes_a_task_and_its_result_tells_how_it_ends(world: World, queue: Queue) -> None:
    dropped = drop(world, "inbox/cat.jpg", jpeg())
    queue.put(dropped)
    queue.run()
    task = task_of(world, dropped)
    assert (task.tenant, task.kind, task.phase) == ("inbox", "image2video", Phase.SUBMITTED)
    assert task.request == {
        "prompt": "the stack's",
        "duration": "5",
        "model_name": "kling-v1-6",
        "image": {"s3": f"inputs/inbox/{task.id}/image.jpg"},
    }
    assert len(task.id) == 32
    told = result(world, "inbox/cat.jpg")
    version = dropped["detail"]["object"]["version-id"]
    assert told["source"] == {"bucket": "inputs", "key": "inbox/cat.jpg", "version": version}
    assert (told["task_id"], told["task_status"], told["videos"]) == (task.id, "submitted", [])
    world.until_closed(task.id)
    world.run_notifier()
    told = result(world, "inbox/cat.jpg")
    assert told["task_status"] == "succeed" and told["task_status_msg"] == ""
    assert told["videos"] == [
        {
            "bucket": "videos",
            "key": video_keys(world.task(task.id))[0],
            "id": told["videos"][0]["id"],
            "duration": "5",
            "size": 5,
        }
    ]


def test_the_sample_event(world: World) -> None:
    version = drop(world, "inbox/summer 2026/cat.jpg", jpeg())["detail"]["object"]["version-id"]
    sample = handler_event("image_upload", INPUT_BUCKET="inputs", VERSION_ID=version)
    assert world.call("image_upload", sample) == {"batchItemFailures": []}
    assert result(world, "inbox/summer 2026/cat.jpg")["task_status"] == "submitted"
    sample["Records"][0]["body"] = "{"
    failed = {"batchItemFailures": [{"itemIdentifier": sample["Records"][0]["messageId"]}]}
    assert world.call("image_upload", sample) == failed


@pytest.mark.parametrize("seed", range(3))
def test_one_task_a_version_however_often_and_in_whatever_order(world: World, queue: Queue, seed: int) -> None:
    dropped = [drop(world, f"inbox/{n % 4}.png", png() + bytes([n])) for n in range(8)]
    queue.put(*(dropped * 5))
    queue.run(random.Random(seed))
    assert len(world.tasks()) == 8 == len(world.provider.posts) and queue.dead == []
    assert {task.id for task in world.tasks()} == {source(one).task_id(world.services.keyring) for one in dropped}
    for one in dropped[4:]:
        assert result(world, one["detail"]["object"]["key"])["task_id"] == task_of(world, one).id, (
            "the newest version's"
        )
    assert len(results(world)) == 8, "and the older ones have a place too"


def test_settings_come_from_four_places(world: World, queue: Queue) -> None:
    folder = text(prompt="folder", mode="pro", duration="10", negative_prompt="blur", unknown=1)
    drop(world, "inbox/a/settings.json", folder)
    drop(world, "inbox/a/cat.json", text(prompt="sidecar", duration=5))
    spoken = "=?UTF-8?B?8J+YgCBjYXQ=?="
    first = drop(world, "inbox/a/cat.PNG", png(), prompt=spoken, **{"cfg-scale": "0.5", "mtime": "1", "mode": " "})
    second = drop(world, "inbox/a/dog.jpeg", jpeg())
    third = drop(world, "inbox/cat.jpg", jpeg())
    queue.put(first, second, third)
    queue.run()
    requests = [task_of(world, one).request for one in (first, second, third)]
    for request in requests:
        del request["image"], request["model_name"]
    assert requests == [
        {"prompt": "😀 cat", "mode": "pro", "duration": "5", "negative_prompt": "blur", "cfg_scale": 0.5},
        {"prompt": "folder", "mode": "pro", "duration": "10", "negative_prompt": "blur"},
        {"prompt": "the stack's", "duration": "5"},
    ]


def test_the_nearest_model_wins_under_either_name(world: World, queue: Queue) -> None:
    drop(world, "inbox/settings.json", text(model_name="kling-v2-master"))
    drop(world, "inbox/cat.json", text(model="kling-v3"))
    dropped = drop(world, "inbox/cat.jpg", jpeg())
    queue.put(dropped)
    queue.run()
    assert task_of(world, dropped).request["model_name"] == "kling-v3"


@pytest.mark.parametrize("order", ["image first", "sidecar first", "both at once"])
@pytest.mark.parametrize("seed", range(3))
def test_a_required_sidecar_in_every_order(world: World, queue: Queue, order: str, seed: int) -> None:
    drop(world, "inbox/s/settings.json", text(require_sidecar=True, prompt="folder"))

    def image() -> dict[str, Any]:
        return drop(world, "inbox/s/cat.v2.JPG", jpeg())

    def sidecar() -> dict[str, Any]:
        return drop(world, "inbox/s/cat.v2.json", text(prompt="sidecar"))

    if order == "both at once":
        dropped = image()
        queue.put(dropped, sidecar(), dropped)
        queue.run(random.Random(seed), batch=1)
    elif order == "image first":
        dropped = image()
        queue.put(dropped)
        queue.run()
        told = result(world, "inbox/s/cat.v2.JPG")
        assert world.tasks() == [] and told["task_status"] is None and "cat.v2.json" in told["task_status_msg"]
        queue.put(sidecar())
    else:
        queue.put(sidecar())
        queue.run()
        assert world.tasks() == []
        dropped = image()
        queue.put(dropped)
    queue.run()
    (task,) = world.tasks()
    assert task.id == source(dropped).task_id(world.services.keyring) and task.request["prompt"] == "sidecar"
    assert result(world, "inbox/s/cat.v2.JPG")["task_status"] == "submitted"
    assert "settings of cat.v2.jpg" in result(world, "inbox/s/cat.v2.json")["task_status_msg"]
    assert queue.dead == []


BAD = [
    ("inbox/a.jpg", b"", {}, "image: the object must not be empty"),
    ("inbox/a.jpg", b"GIF89a" + bytes(50), {}, "must be a JPEG or PNG image"),
    ("inbox/a.png", png(200, 400), {}, "300 px"),
    ("inbox/a.jpg", jpeg(), {"mode": "fast"}, "mode: "),
    ("inbox/a.jpg", jpeg(), {"cfg-scale": "much"}, "cfg_scale: must be a number"),
    ("inbox/a.jpg", jpeg(), {"prompt": "=?no-such-charset?B?eA==?="}, "prompt: "),
    ("inbox/folder/", b"", {}, "a folder"),
    ("inbox/", b"", {}, "a folder"),
    ("inbox/notes.txt", b"x", {}, ".jpg, .jpeg, .png"),
    ("inbox/no-extension", b"x", {}, "*.task.json"),
    ("inbox/a.JSON", b"{}", {}, "settings.json"),
    ("inbox/a.json", b"[1]", {}, "a.json: must be a JSON object"),
    ("inbox/settings.json", b"{", {}, "settings.json: must be a JSON object"),
    ("inbox/settings.json", b'{"require_sidecar": "yes"}', {}, "settings.json: require_sidecar"),
    ("inbox/a.task.json", b"{", {}, "body: must be a JSON object"),
    ("inbox/a.task.json", b"{}", {}, "kind: "),
    ("inbox/a.task.json", b'{"kind": ["x"]}', {}, "kind: "),
    ("inbox/a.task.json", b'{"kind": "image2video", "image": "no.jpg"}', {}, "object not found"),
    ("inbox/a.task.json", b"x" * 5_600_000, {}, "5500000"),
    ("inbox/a.tasks.jsonl", b"\n \r\n", {}, "no lines"),
]


@pytest.mark.parametrize(("key", "data", "metadata", "words"), BAD)
def test_what_cannot_be_taken_says_why(
    world: World, queue: Queue, key: str, data: bytes, metadata: dict[str, str], words: str
) -> None:
    queue.put(*[drop(world, key, data, **metadata)] * 2)
    queue.run()
    assert world.tasks() == [] and queue.dead == []
    told = result(world, key)
    assert (told["task_id"], told["task_status"], told["code"]) == (None, "failed", 1201)
    assert words in told["task_status_msg"]


@pytest.mark.parametrize(
    "name",
    [
        *(".DS_Store", "._cat.png", "._cat.task.json", "Thumbs.db", "THUMBS.DB", "ehthumbs.db", "desktop.ini"),
        *("Desktop.ini", "__MACOSX/cat.png"),
    ],
)
def test_what_systems_leave_in_folders_makes_no_result(world: World, queue: Queue, name: str) -> None:
    """Names that macOS, Windows and archive programs are documented to write."""
    queue.put(drop(world, f"inbox/f/{name}", png()))
    queue.run()
    assert world.tasks() == [] and results(world) == set() and queue.dead == [] and world.measured == {}


@pytest.mark.parametrize("name", ["photo.jfif", "photo.jpe", "photo.PJPEG", "png-named.jfif"])
def test_a_picture_under_a_rarer_name(world: World, queue: Queue, name: str) -> None:
    picture = png() if name.startswith("png") else jpeg()
    named = json.dumps({"kind": "image2video", "image": name}).encode()
    queue.put(drop(world, f"inbox/c/{name}", picture), drop(world, "inbox/c/a.task.json", named))
    queue.run()
    assert result(world, f"inbox/c/{name}")["task_status"] == result(world, "inbox/c/a.task.json")["task_status"]
    assert len(world.tasks()) == len(world.provider.posts) == 2


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_found_in_either_form_of_its_accents(world: World, queue: Queue, form: Any) -> None:
    """That macOS decomposes names is documented; that a request beside them is composed is what editors write."""
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    folder, sidecar = unicodedata.normalize(form, "inbox/é/"), text(prompt="sidecar")
    drop(world, unicodedata.normalize(form, "inbox/é/settings.json"), text(require_sidecar=True))
    picture = drop(world, folder + unicodedata.normalize(form, "café.png"), png())
    queue.put(picture)
    queue.run()
    assert world.tasks() == []
    queue.put(drop(world, folder + unicodedata.normalize(other, "café.json"), sidecar))
    named = json.dumps({"kind": "image2video", "image": unicodedata.normalize(other, "café.png")}).encode()
    queue.put(drop(world, folder + "a.task.json", named))
    queue.run()
    assert len(world.tasks()) == 2 and task_of(world, picture).request["prompt"] == "sidecar"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_what_powershell_writes_is_read(world: World, queue: Queue, codec: str) -> None:
    """Windows PowerShell's `>` writes UTF-16 with a mark, Out-File any of these (its documentation)."""
    drop(world, "inbox/d/settings.json", '{"prompt": "from settings 猫"}'.encode(codec))
    wanted = '{"kind": "text2video", "prompt": "ਊ 猫"}'  # U+0A0A has the byte of a line's end in both places
    picture = drop(world, "inbox/d/cat.png", png())
    listed = drop(world, "inbox/d/all.tasks.jsonl", f"{wanted}\r\n\r\n{wanted}\r\n".encode(codec))
    queue.put(picture, drop(world, "inbox/d/a.task.json", wanted.encode(codec)), listed)
    queue.run()
    assert task_of(world, picture).request["prompt"] == "from settings 猫"
    assert [task_of(world, listed, line).request["prompt"] for line in (1, 3)] == ["ਊ 猫"] * 2
    assert len(world.tasks()) == 4 and result(world, "inbox/d/all.tasks.jsonl")["lines"] == 2


def test_a_request_waits_for_its_picture(world: World, queue: Queue) -> None:
    """`aws s3 sync` sends many files at once: the small request is there first."""
    named = {"kind": "image2video", "image": "big.png"}
    queue.put(drop(world, "inbox/a/one.task.json", text(**named)))
    lines = text(**named) + b"\n" + text(**named, prompt="2")
    queue.put(drop(world, "inbox/a/all.tasks.jsonl", lines))
    queue.handle()
    for key, line in (("inbox/a/one.task.json", 0), ("inbox/a/all.tasks.jsonl", 1), ("inbox/a/all.tasks.jsonl", 2)):
        told = result(world, key, line)
        assert told["task_status"] is None and "waiting up to five minutes for an image" in told["task_status_msg"]
    assert world.tasks() == [] and result(world, "inbox/a/all.tasks.jsonl")["rejected"] == 0
    world.clock.tick(200)
    queue.handle()
    drop(world, "inbox/a/big.png", png())
    queue.run()
    assert len(world.tasks()) == len(world.provider.posts) == 3 and queue.dead == []
    assert result(world, "inbox/a/one.task.json")["task_status"] == "submitted"
    assert result(world, "inbox/a/all.tasks.jsonl")["accepted"] == 2
    assert world.measured["FilesRejected"] == 0


def test_a_picture_that_does_not_come_is_refused_after_five_minutes(world: World, queue: Queue) -> None:
    request = drop(world, "inbox/a/one.task.json", text(kind="image2video", image="big.png"))
    queue.put(request, request)
    began = world.clock.now
    queue.run()
    assert "object not found" in result(world, "inbox/a/one.task.json")["task_status_msg"]
    assert 300_000 <= world.clock.now - began <= 400_000 and queue.sent <= 2 * 12 and queue.dead == []
    drop(world, "inbox/a/big.png", png())
    queue.put(request)  # a redrive
    queue.run()
    assert len(world.tasks()) == 1 and result(world, "inbox/a/one.task.json")["task_status"] == "submitted"


@pytest.mark.parametrize("order", ["as sent", "copies first", "original first"])
@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("inbox/e/cat.png", png()),
        ("inbox/e/a.task.json", b'{"kind": "text2video", "prompt": "p"}'),
        ("inbox/e/a.tasks.jsonl", b'{"kind": "text2video", "prompt": "p"}\n'),
    ],
)
def test_a_change_of_metadata_makes_no_second_video(
    world: World, queue: Queue, key: str, data: bytes, order: str
) -> None:
    first = drop(world, key, data)
    if order == "original first":
        queue.put(first)
        queue.run()
    copies = [copy_onto_itself(world, key, owner="me"), copy_onto_itself(world, key, owner="you")]
    queue.put(*([*copies, first] if order == "copies first" else [first, *copies]))
    queue.run()
    (task,) = world.tasks()
    assert len(world.provider.posts) == 1 and task == task_of(world, first, line=int(key.endswith("jsonl")))
    assert queue.dead == []


def test_a_change_of_metadata_is_known_when_the_original_is_gone(world: World, queue: Queue) -> None:
    """Overwritten versions are removed after seven days: template.yaml."""
    key = "inbox/e/cat.png"
    first = drop(world, key, png())
    queue.put(first, copy_onto_itself(world, key, owner="me"))
    queue.run()
    world.cloud.s3.delete_object(Bucket="inputs", Key=key, VersionId=first["detail"]["object"]["version-id"])
    queue.put(copy_onto_itself(world, key, owner="you"))
    queue.run()
    assert len(world.tasks()) == 1 and result(world, key)["task_id"] == task_of(world, first).id


def test_what_was_refused_may_be_mended_by_its_metadata(world: World, queue: Queue) -> None:
    key = "inbox/e/cat.png"
    queue.put(drop(world, key, png(), mode="fast"))
    queue.run()
    assert result(world, key)["task_status"] == "failed" and world.tasks() == []
    queue.put(copy_onto_itself(world, key, mode="pro"))
    queue.run()
    assert world.tasks()[0].request["mode"] == "pro" and result(world, key)["task_status"] == "submitted"


def test_a_copy_of_other_bytes_and_a_new_upload_of_the_same_make_a_video_each(world: World, queue: Queue) -> None:
    dropped = [drop(world, "inbox/e/cat.png", png()) for _ in range(2)]
    drop(world, "inbox/e/dog.png", png(700, 700))
    made = world.cloud.s3.copy_object(
        Bucket="inputs", Key="inbox/e/cat.png", CopySource={"Bucket": "inputs", "Key": "inbox/e/dog.png"}
    )
    copied = event("inbox/e/cat.png", made["VersionId"])
    copied["detail"]["reason"] = "CopyObject"
    queue.put(*dropped, copied)
    queue.run()
    assert {task.id for task in world.tasks()} == {task_of(world, one).id for one in (*dropped, copied)}


def test_an_edited_image_that_waits_for_its_sidecar_makes_one_video(world: World, queue: Queue) -> None:
    drop(world, "inbox/e/settings.json", text(require_sidecar=True))
    first = drop(world, "inbox/e/cat.png", png())
    queue.put(first, copy_onto_itself(world, "inbox/e/cat.png", owner="me"))
    queue.run()
    assert world.tasks() == []
    queue.put(drop(world, "inbox/e/cat.json", text(prompt="sidecar")), first)
    queue.run()
    queue.put(drop(world, "inbox/e/cat.json", text(prompt="sidecar, edited")))
    queue.run()
    assert len(world.tasks()) == 1 and task_of(world, first).request["prompt"] == "sidecar"


def test_one_bad_file_of_ten(world: World, queue: Queue) -> None:
    dropped = [drop(world, f"inbox/{n}.jpg", jpeg() if n != 3 else b"broken") for n in range(10)]
    queue.put(*dropped)
    queue.run()
    assert len(world.tasks()) == 9 and queue.dead == []
    statuses = [result(world, f"inbox/{n}.jpg")["task_status"] for n in range(10)]
    assert statuses == ["submitted"] * 3 + ["failed"] + ["submitted"] * 6


@pytest.mark.parametrize("body", ["{", "[]", '{"detail": {}}', '{"source": {}}'])
def test_a_message_that_is_none_of_ours_ends_among_the_dead(world: World, queue: Queue, body: str) -> None:
    queue.put(drop(world, "inbox/1.jpg", jpeg()))
    queue.messages.append({"messageId": "m", "body": body, "attributes": {"ApproximateReceiveCount": "0"}})
    queue.run()
    assert [one["messageId"] for one in queue.dead] == ["m"] and len(world.tasks()) == 1


@pytest.mark.parametrize("key", ["results/inbox/a.jpg", "uploads/inbox/a.jpg", "inputs/inbox/a.jpg", "a.jpg"])
def test_nothing_outside_of_the_inbox_is_taken(world: World, queue: Queue, key: str) -> None:
    queue.put(drop(world, key, jpeg()))
    queue.run()
    assert world.tasks() == [] and len(queue.dead) == 1 and "inbox" not in "".join(results(world) - {key})


@pytest.mark.parametrize("fault", ["no_room", "arrears"])
def test_a_task_without_room_waits(world: World, queue: Queue, fault: str) -> None:
    world.provider.submit_faults = [fault]
    dropped = drop(world, "inbox/a.jpg", jpeg())
    queue.put(dropped)
    queue.run()
    assert (
        task_of(world, dropped).phase is Phase.ACCEPTED and result(world, "inbox/a.jpg")["task_status"] == "submitted"
    )


def test_the_cap_and_the_kill_switch_hold_here_too(world: World, queue: Queue) -> None:
    world.services.spending.set_cap("inbox", 1)
    queue.put(drop(world, "inbox/a.jpg", jpeg()))
    queue.run()
    told = result(world, "inbox/a.jpg")
    assert told["code"] == 1102 and "monthly cap" in told["task_status_msg"] and world.tasks() == []
    world.services.spending.set_cap("inbox", 0)
    world.services.admissions.stop(world.clock.now, "tests")
    dropped = drop(world, "inbox/b.jpg", jpeg())
    queue.put(dropped)
    queue.run()
    assert task_of(world, dropped).phase is Phase.ACCEPTED and world.provider.posts == []


def test_no_key_is_logged(world: World, queue: Queue) -> None:
    said = io.StringIO()
    before = logger.registered_handler.setStream(said)  # type: ignore[attr-defined]
    try:
        queue.put(*[drop(world, f"inbox/canary-{n}.jpg", data) for n, data in enumerate((jpeg(), b"", b"x"))])
        queue.put(drop(world, "inbox/canary.txt", b""), drop(world, "canary/elsewhere.jpg", b""))
        queue.put(event("inbox/canary", "no"), event("inbox/canary.task.json", "no"))
        queue.run()
    finally:
        logger.registered_handler.setStream(before)  # type: ignore[attr-defined]
    assert "upload_rejected" in said.getvalue() and "upload_processing_failed" in said.getvalue()
    assert "canary" not in said.getvalue()
