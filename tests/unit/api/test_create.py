"""Test the creation of a task: images are stored in the bucket, replays return their task, other bodies are refused."""

import base64
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kling_relay.api import create, request
from kling_relay.errors import KlingError
from kling_relay.kinds import image_places
from kling_relay.lifecycle import provider_request
from kling_relay.tasks.task import Phase

from tests.support import image_files
from tests.support.stack_in_memory import BODY, Cloud, World

IN_MEMORY = True


def png(width: int = 512, tail: bytes = b"") -> bytes:
    return image_files.png(width, 512) + tail


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def parse(body: dict[str, Any], kind: str = "image2video") -> request.Request:
    import json

    return request.parse(kind, json.dumps(body).encode())


MASKS = [{"mask": b64(png(tail=b"m")), "trajectories": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}]


def test_inline_images_go_to_the_bucket_and_upstream_as_they_came(world: World) -> None:
    body = {"image": b64(png()), "dynamic_masks": MASKS, "static_mask": b64(png(tail=b"s")), "prompt": "x"}
    body["model_name"] = "kling-v1"
    task = create.record(world.services, "acme", parse(body))
    keys = [holder[key]["s3"] for _, holder, key in image_places.image_places(task.request)]
    assert len(set(keys)) == 3 and all(key.startswith(f"inputs/acme/{task.id}/") for key in keys)
    assert world.s3.get_object(Bucket="inputs", Key=keys[0])["Body"].read() == png()
    for at_hand in ({}, {"image": png()}):
        upstream = provider_request.upstream_body(world.services, task, at_hand, world.services.account)
        assert upstream["image"] == body["image"] and upstream["static_mask"] == body["static_mask"]
        assert upstream["dynamic_masks"][0]["mask"] == MASKS[0]["mask"] and upstream["model_name"] == "kling-v1"
    assert task.request["image"] == {"s3": keys[0]}, "the row keeps the reference"


def test_urls_pass_through_and_lists_too(world: World) -> None:
    body = {"image_list": [{"image": "https://i.example/1.png"}, {"image": b64(png())}], "prompt": "x"}
    task = create.record(world.services, "acme", parse(body, "multi-image2video"))
    upstream = provider_request.upstream_body(world.services, task, {}, world.services.account)
    assert [one["image"] for one in upstream["image_list"]] == ["https://i.example/1.png", b64(png())]
    assert upstream["model_name"] == "kling-v1-6"


def test_model_names(cloud: Cloud) -> None:
    world = World(cloud, default_model_image2video="kling-v2-1")
    ours = create.record(world.services, "acme", parse({"image": "https://i.example/1.png"}))
    theirs = create.record(world.services, "acme", parse(BODY))
    assert provider_request.model_name(world.services, ours) == "kling-v2-1"
    assert provider_request.model_name(world.services, theirs) == BODY["model_name"]


@pytest.mark.parametrize(
    ("kind", "body", "model"),
    [
        ("text2video", {"prompt": "p", "sound": "on"}, "kling-v3"),
        ("omni-video", {"prompt": "p", "aspect_ratio": "1:1"}, "kling-video-o1"),
        ("omni-video", {"prompt": "p", "image_list": [{"image_url": b64(png()), "type": "first_frame"}]}, ""),
    ],
)
def test_the_newer_kinds_go_the_same_way(world: World, kind: str, body: dict[str, Any], model: str) -> None:
    status, answer = world.http("POST", f"/v1/videos/{kind}", body, authorization=world.key())
    assert status == 200, answer
    (sent,) = world.provider.posts
    assert {name: sent[name] for name in body} == body
    assert model in ("", sent["model_name"])
    assert world.http("GET", f"/v1/videos/{kind}/{answer['data']['task_id']}", authorization=world.key())[0] == 200


def test_what_has_no_effect_is_left_out_and_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", logger="kling-relay")
    body = {**BODY, "cfg_scale": 0.5, "aspect_ratio": "1:1"}
    task = world.create(body, **{"Idempotency-Key": "k"})
    (sent,) = world.provider.posts
    assert not {"cfg_scale", "aspect_ratio"} & ({*sent} | {*task.request})
    (record,) = [record for record in caplog.records if record.message == "request_annotated"]
    assert [note.split(" ")[0] for note in record.notes] == ["aspect_ratio", "cfg_scale"]
    assert world.create(body, **{"Idempotency-Key": "k"}).id == task.id
    world.create({**BODY, "model_name": "kling-v9"})
    assert "kling-v9" in caplog.records[-1].notes[0]


def test_what_a_model_cannot_do_is_neither_recorded_nor_paid(world: World) -> None:
    status, answer = world.post({**BODY, "image_tail": "https://i.example/tail.png"})
    assert (status, answer["code"]) == (400, 1201)
    assert "(kling-v2-5-turbo/std/5) is not supported with image_tail" in answer["message"]
    assert world.tasks() == [] and world.provider.posts == []


def test_the_stacks_default_model_is_what_is_checked(cloud: Cloud) -> None:
    world = World(cloud, default_model_image2video="kling-v2-1-master", default_model_text2video="kling-v2-6")
    body = {"image_tail": "https://i.example/1.png"}
    assert world.create(body).request == {**body, "model_name": "kling-v2-1-master"}, (
        "it is what is sent, whatever comes"
    )
    status, answer = world.http(
        "POST", "/v1/videos/text2video", {"prompt": "p", "mode": "4k"}, authorization=world.key()
    )
    assert status == 400 and "(kling-v2-6/4k/5) is not supported" in answer["message"]


OFFICIAL = {"refuses_retired": True}


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("image2video", {**BODY, "model_name": "kling-v1"}, "model_name: kling-v1 was discontinued by Kling"),
        (
            "multi-image2video",
            {"prompt": "p", "image_list": [{"image": b64(png())}]},
            "model_name: is required, because kling-v1-6",
        ),
    ],
)
def test_a_retired_model_is_neither_recorded_nor_sent_to_the_official_host(
    cloud: Cloud, kind: str, body: dict[str, Any], words: str
) -> None:
    world = World(cloud, profile=OFFICIAL, monthly_cap_units=9)
    body = {**body, "external_task_id": "order-1"}
    status, answer = world.http("POST", f"/v1/videos/{kind}", body, authorization=world.key())
    assert (status, answer["code"]) == (400, 1201) and answer["message"].startswith(words)
    assert world.tasks() == [] and world.provider.posts == [] and world.row("external#acme#order-1") == {}
    assert "put_object" not in world.effects.names
    status, answer = world.http(
        "POST", f"/v1/videos/{kind}", {**body, "model_name": "kling-v3"}, authorization=world.key()
    )
    assert status == 200, "a model that is not known to be gone passes"


def test_the_same_request_finds_its_task_whatever_was_retired_since(cloud: Cloud) -> None:
    world = World(cloud)
    asked = {**BODY, "model_name": "kling-v1", "external_task_id": "order-1"}
    task = world.create(asked)
    world.provider.profile = replace(world.provider.profile, **OFFICIAL)
    assert world.create(asked).id == task.id


def test_a_model_that_goes_out_under_another_name_is_not_the_retired_one(cloud: Cloud) -> None:
    world = World(cloud, profile={**OFFICIAL, "models": {"kling-v1": "kling-v3"}})
    assert world.create({**BODY, "model_name": "kling-v1"}).request["model_name"] == "kling-v1"
    (sent,) = world.provider.posts
    assert sent["model_name"] == "kling-v3"


CHANGES: list[dict[str, Any]] = [
    {"prompt": "other"},
    {"duration": "10"},
    {"mode": "pro"},
    {"cfg_scale": 0.5},
    {"image": "https://i.example/other.png"},
    {"image": b64(png(tail=b"!"))},
    {"callback_url": "https://client.example/hook"},
    {"negative_prompt": "rain"},
    {"model_name": "kling-v3"},
]


@pytest.mark.parametrize("image", ["https://i.example/cat.png", b64(png())])
@pytest.mark.parametrize("way", ["external", "header"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_replays_and_changed_bodies(world: World, image: str, way: str, change: dict[str, Any]) -> None:
    body = {**BODY, "image": image} | ({"external_task_id": "order-1"} if way == "external" else {})
    key = "key-1" if way == "header" else None
    first = create.record(world.services, "acme", parse(body), key)
    assert create.record(world.services, "acme", parse(body), key).id == first.id
    with pytest.raises(KlingError, match="another request body") as refusal:
        create.record(world.services, "acme", parse({**body, **change}), key)
    assert refusal.value.code == 1201
    other = create.record(world.services, "umbrella", parse({**body, **change}), key)
    assert other.id != first.id and len(world.tasks()) == 2


def test_without_a_key_every_request_is_a_new_task(world: World) -> None:
    assert create.record(world.services, "a", parse(BODY)).id != create.record(world.services, "a", parse(BODY)).id


def test_a_burst_of_the_same_request_is_one_post(world: World) -> None:
    body = {**BODY, "external_task_id": "order-1"}
    answers = [world.post(body, **{"Idempotency-Key": "k"}) for _ in range(5)]
    assert {status for status, _ in answers} == {200}
    assert len({answer["data"]["task_id"] for _, answer in answers}) == 1 == len(world.provider.posts)


def test_a_replay_drives_a_task_that_was_left_at_its_record(world: World) -> None:
    """The first handler died right after the record: its client need not wait for the sweeper."""
    body = {**BODY, "external_task_id": "order-1"}
    world.key()
    world.effects.after(1, "dies after")
    with pytest.raises(BaseException, match="transact_write_items"):
        world.post(body)
    (left,) = world.tasks()
    assert left.phase is Phase.ACCEPTED
    task = world.create(body)
    assert task.id == left.id and task.phase is Phase.SUBMITTED and len(world.provider.posts) == 1


def test_a_replay_of_a_task_that_waits_for_room_does_not_jump_the_queue(world: World) -> None:
    world.provider.submit_faults = ["no_room"]
    world.create()
    body = {**BODY, "external_task_id": "order-1"}
    task = world.create(body)
    assert task.attempt == 0
    world.clock.tick(300)
    assert world.create(body) == task and len(world.provider.posts) == 1


def test_a_replay_after_the_end_shows_the_end(world: World) -> None:
    body = {**BODY, "external_task_id": "order-1"}
    task = world.until_closed(world.create(body).id)
    _, answer = world.post(body)
    assert answer["data"]["task_id"] == task.id and answer["data"]["task_status"] == "succeed"
    assert len(world.provider.posts) == 1


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 20) | st.text(max_size=20), lambda inner: st.lists(inner, max_size=2)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(extra=st.dictionaries(st.sampled_from(["prompt", "mode", "duration", "sound", "image_tail", "junk"]), values))
def test_any_body_is_a_task_or_a_refusal(world: World, extra: dict[str, Any]) -> None:
    status, answer = world.post({"image": "https://i.example/1.png", **extra})
    assert (status, answer["code"]) in ((200, 0), (400, 1201))
    assert (answer["data"]["task_id"] if status == 200 else answer["message"]) and answer["request_id"] == "gateway-1"
