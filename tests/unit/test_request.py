"""What a request body becomes: everything at once, what is forgiven, bodies that are none."""

import base64
import json
from typing import Any

import pytest
from kling_relay.errors import KlingError
from kling_relay.request import KINDS, MAX_BODY_BYTES, image_places, parse

from tests.unit.bodies import MASKS, PNG, POINTS, SHOTS, URL, VALID, many, omni, one
from tests.unit.bodies import text as text_body
from tests.unit.pictures import png, text


@pytest.mark.parametrize("kind", KINDS)
def test_everything_at_once(kind: str) -> None:
    sent = VALID[kind]
    request = parse(kind, json.dumps(sent).encode())
    assert (request.callback_url, request.external_task_id) == (sent["callback_url"], sent["external_task_id"])
    assert set(request.body) == set(sent) - {"callback_url", "external_task_id"}
    place = next(iter(request.images), "")
    assert list(request.images.values()) == [png(320, 320)] * (kind != "text2video")
    assert request.notes == []
    for name, holder, key in image_places(request.body):
        assert holder[key] == ({"inline": place} if name == place else URL)
    expected = json.loads(json.dumps(sent).replace(json.dumps(PNG), json.dumps({"inline": place})))
    assert {name: expected[name] for name in request.body} == request.body


def test_only_what_was_sent_goes_on() -> None:
    assert one().body == {"image": URL}
    assert parse("image2video", json.dumps({"image_tail": URL}).encode()).body == {"image_tail": URL}
    assert text_body().body == {"prompt": "p"}
    assert omni().body == {"prompt": "p", "aspect_ratio": "1:1"}
    assert many().body == {"image_list": [{"image": URL}], "prompt": "p"}


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"duration": 5}, {"duration": "5"}),
        ({"duration": 10.0}, {"duration": "10"}),
        ({"model": "kling-v3"}, {"model_name": "kling-v3"}),
        ({"model": "kling-v3", "model_name": "kling-v2-6"}, {"model_name": "kling-v2-6"}),
        ({"model": "kling-v3", "model_name": ""}, {"model_name": "kling-v3"}),
        ({"model_name": "a-model-of-next-year"}, {"model_name": "a-model-of-next-year"}),
        ({"multi_shot": "false"}, {}),
        ({"multi_shot": "true", "shot_type": "intelligence"}, {"multi_shot": True, "shot_type": "intelligence"}),
        ({"dynamic_masks": MASKS[0]}, {"dynamic_masks": MASKS}),
        ({"dynamic_masks": MASKS}, {"dynamic_masks": MASKS}),
        ({"dynamic_masks": [], "image_tail": URL}, {"image_tail": URL}),
        ({"camera_control": {"type": "down_back", "config": None}}, {"camera_control": {"type": "down_back"}}),
        ({"camera_control": {"type": "down_back", "config": {}}}, {"camera_control": {"type": "down_back"}}),
        (
            {"camera_control": {"type": "simple", "config": {"zoom": -10, "pan": 0, "tilt": None}}},
            {"camera_control": {"type": "simple", "config": {"zoom": -10, "pan": 0}}},
        ),
        ({"camera_control": {"type": "", "config": None}, "image_tail": URL}, {"image_tail": URL}),
        ({"voice_list": [{"voice_id": "v"}], "sound": "on"}, {"voice_list": [{"voice_id": "v"}], "sound": "on"}),
        ({"multi_prompt": [{**SHOTS[0], "duration": 2}]}, {"multi_prompt": SHOTS[:1]}),
        ({"aspect_ratio": "1:1", "num_videos": 1, "camera_json": "{", "imagination": None}, {}),
        (dict.fromkeys(("image_tail", "prompt", "negative_prompt", "mode", "sound", "callback_url"), ""), {}),
        (dict.fromkeys(("cfg_scale", "multi_prompt", "element_list", "watermark_info", "external_task_id")), {}),
        ({"image": "HTTPS://files.example/a"}, {"image": "HTTPS://files.example/a"}),
        ({"mode": "std (high performance)"}, {"mode": "std"}),
        ({"mode": "pro (high quality)"}, {"mode": "pro"}),
        ({"element_list": [{"element_id": "8298"}]}, {"element_list": [{"element_id": "8298"}]}),
    ],
)  # fmt: skip
def test_what_is_forgiven(fields: dict[str, Any], body: dict[str, Any]) -> None:
    request = one(**fields)
    assert request.body == {"image": URL, **body}
    assert (request.callback_url, request.external_task_id) == (None, None)


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "data:;base64,", "DATA:image/PNG;base64,"])
@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: base64.encodebytes(base64.b64decode(data)).decode()])
def test_ways_to_send_an_image(prefix: str, wrap: Any) -> None:
    request = one(image=prefix + wrap(PNG))
    assert request.images == {"image": png(320, 320)}
    assert request.body == {"image": {"inline": "image"}}


def test_every_image_has_a_place_of_its_own() -> None:
    pictures = [png(320, 320 + step) for step in range(4)]
    masks = [{"mask": text(picture), "trajectories": POINTS} for picture in pictures[1:3]]
    request = one(image=text(pictures[0]), dynamic_masks=masks, static_mask=text(pictures[3]))
    assert list(request.images) == ["image", "static_mask", "dynamic_masks[0].mask", "dynamic_masks[1].mask"]
    assert sorted(request.images.values()) == sorted(pictures)


@pytest.mark.parametrize(
    ("raw", "http", "message"),
    [
        (b"", 400, "body: a JSON object is expected, an empty body was sent"),
        (b" \n", 400, "an empty body was sent"),
        (b"{", 400, "this is no JSON (1 bytes were sent)"),
        (b"[]", 400, "a list with 0 entries was sent"),
        (b'"text"', 400, "a text of 4 characters was sent"),
        (b"null", 400, "null was sent"),
        (b"{}", 400, "image: at least one of"),
        (b'{"image":"x","cfg_scale":NaN}', 400, "this is no JSON"),
        (b'{"cfg_scale":1e999}', 400, "this is no JSON"),
        (b'{"image":"\\ud800"}', 400, "this is no JSON"),
        (b'{"prompt":"\xff\xfe"}', 400, "this is no JSON"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "this is no JSON"),
        (b'{"image_list":' * 900 + b"1" + b"}" * 900, 400, "image: at least one of"),
        (
            b" " * (MAX_BODY_BYTES + 1),
            413,
            "at most 5500000 bytes fit into a request, 5500001 were sent: give the image",
        ),
        (b'{"image":"' + b"A" * 6_000_000 + b'"}', 413, "give the image as a URL"),
    ],
)
def test_bodies_that_are_none(raw: bytes, http: int, message: str) -> None:
    with pytest.raises(KlingError) as caught:
        parse("image2video", raw)
    assert (caught.value.code, caught.value.http) == (1201, http)
    assert message in caught.value.message


def test_an_unknown_kind() -> None:
    with pytest.raises(KlingError, match="there are image2video, multi-image2video") as caught:
        parse("lip-sync" * 100, b"{}")
    assert (caught.value.code, caught.value.http) == (1202, 404)
    assert len(caught.value.message) < 200


def test_fields_of_other_kinds_are_left_out_with_a_note() -> None:
    request = one(aspect_ratio="1:1", num_videos=3, image_list=[], video_list=[{"video_url": URL}])
    assert request.body == {"image": URL}
    assert request.notes == [f"{name} is no field of image2video: left out" for name in ("aspect_ratio", "video_list")]
    assert text_body(image="", image_tail=None, multi_shot=False).notes == []
    assert many(multi_shot=False, sound="off", model="kling-v3-omni").notes == [
        "sound is no field of multi-image2video: left out"
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"camera_control": {"config": {"pan": 2}}},  # its type is optional here
        {"prompt": None, "multi_shot": True, "shot_type": "customize", "multi_prompt": SHOTS},
        {"aspect_ratio": "4:3"},
        {"mode": "4k", "duration": "3"},
    ],
)
def test_what_text2video_takes(fields: dict[str, Any]) -> None:
    sent = {"prompt": "p", **fields}
    assert text_body(**fields).body == {name: value for name, value in sent.items() if value is not None}


@pytest.mark.parametrize(
    "fields",
    [
        {"image_list": [{"image_url": URL}] * 7},
        {"image_list": [{"image_url": URL}] * 4, "element_list": [{"element_id": 1}] * 3},
        {"image_list": [{"image_url": URL}] * 4, "video_list": [{"video_url": URL}]},
        {"aspect_ratio": None, "image_list": [{"image_url": URL, "type": "first_frame"}]},
        {"aspect_ratio": None, "video_list": [{"video_url": URL}]},
        {"aspect_ratio": None, "video_list": [{"video_url": URL, "refer_type": "base"}], "sound": "off"},
        {"image_list": [{"image_url": URL, "type": "first_frame"}, {"image_url": URL, "type": "end_frame"}]},
        {"image_list": [{"image_url": URL, "type": "first_frame"}], "element_list": [{"element_id": 1}] * 3},
    ],
)
def test_what_omni_video_takes(fields: dict[str, Any]) -> None:
    sent = {"prompt": "p", "aspect_ratio": "1:1", **fields}
    assert omni(**fields).body == {name: value for name, value in sent.items() if value is not None}


def test_an_omni_image_is_decoded_as_any_other() -> None:
    request = omni(image_list=[{"image_url": URL}, {"image_url": f"data:image/png;base64,{PNG}", "type": ""}])
    assert request.body["image_list"] == [{"image_url": URL}, {"image_url": {"inline": "image_list[1].image_url"}}]
    assert request.images == {"image_list[1].image_url": png(320, 320)}


def test_a_whole_number_is_one_however_it_is_written() -> None:
    """JSON has one kind of number: 1.0 is an integer, in JSON Schema too."""
    shots = [{"index": 1.0, "prompt": "a", "duration": 5.0}]
    told = text_body(multi_shot=True, shot_type="customize", multi_prompt=shots, duration=5.0)
    assert told.body["multi_prompt"] == [{"index": 1, "prompt": "a", "duration": "5"}]
    mask = {"mask": URL, "trajectories": [{"x": 1.0, "y": 2.0}, {"x": 3, "y": 4}]}
    assert one(dynamic_masks=[mask], model_name="kling-v1").body["dynamic_masks"][0]["trajectories"][0] == {
        "x": 1,
        "y": 2,
    }
    assert json.dumps(one(element_list=[{"element_id": 7.0}]).body["element_list"]) == '[{"element_id": 7}]'
    with pytest.raises(KlingError, match=r"trajectories\[0\]\.x: a whole number"):
        one(dynamic_masks=[{**mask, "trajectories": [{"x": 1.5, "y": 2}] * 2}])
