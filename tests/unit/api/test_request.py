"""Test the parsing of a request body: all fields at once, accepted variants, and invalid bodies."""

import base64
import json
from typing import Any

import pytest
from kling_relay.api.request import KINDS, MAX_BODY_BYTES, parse
from kling_relay.errors import KlingError
from kling_relay.kinds.image_places import image_places

from tests.support.image_files import png, text
from tests.support.request_bodies import MASKS, PNG, POINTS, SHOTS, URL, VALID, many, omni, one
from tests.support.request_bodies import text as text_body

MASKED = [{"mask": URL, "trajectories": [{"x": 1, "y": 2}] * 2}]


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
        # Numbers as text and text as numbers: reports of form builders and automation tools.
        ({"cfg_scale": "0.5"}, {"cfg_scale": 0.5}),
        ({"cfg_scale": " 1 "}, {"cfg_scale": 1}),
        ({"prompt": 7}, {"prompt": "7"}),
        ({"watermark_info": {"enabled": "True"}}, {"watermark_info": {"enabled": True}}),
        ({"sound": "on", "voice_list": [{"voice_id": 7}]}, {"sound": "on", "voice_list": [{"voice_id": "7"}]}),
        ({"multi_prompt": [{**SHOTS[0], "index": "1"}]}, {"multi_prompt": SHOTS[:1]}),
        ({"dynamic_masks": [{"mask": URL, "trajectories": [{"x": "1", "y": "2.0"}] * 2}]}, {"dynamic_masks": MASKED}),
        ({"prompt": "a \ud83d cat"}, {"prompt": "a \ufffd cat"}),
        ({"prompt": "a \ud83d\ude00"}, {"prompt": "a \U0001f600"}),
        ({"prompt": "\ude00\ud83d", "x": "\ud83d"}, {"prompt": "\ufffd\ufffd"}),
        ({"image": f" {URL}\n"}, {}),
        ({"image_tail": f"{URL}\r\n"}, {"image_tail": URL}),
    ],
)  # fmt: skip
def test_what_is_forgiven(fields: dict[str, Any], body: dict[str, Any]) -> None:
    request = one(**fields)
    assert request.body == {"image": URL, **body}
    assert (request.callback_url, request.external_task_id) == (None, None)


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("pad", [str, lambda data: data.rstrip("=")])
@pytest.mark.parametrize("width", [0, 64, 76])
@pytest.mark.parametrize("size", [320, 321, 322])
def test_base64_that_can_be_read_in_one_way_only(encode: Any, pad: Any, width: int, size: int) -> None:
    """Encoders differ in alphabet and padding; a shell makes blanks of the line breaks of its `base64`."""
    data = png(size, size)
    sent = pad(encode(data).decode())
    lines = [sent[at : at + width] for at in range(0, len(sent), width)] if width else [sent]
    assert one(image="\r\n".join(lines)).images == {"image": data}
    if len(sent) % 4 == 0:
        assert one(image=" ".join(lines)).images == {"image": data}


@pytest.mark.parametrize("plus", range(1, 6))
@pytest.mark.parametrize("pad", [str, lambda data: data.rstrip("=")])
def test_base64_that_has_lost_a_plus_is_refused(plus: int, pad: Any) -> None:
    """`application/x-www-form-urlencoded` reads "+" as a blank. Dropped, it moves every bit behind it."""
    data = png(320, 320)
    data += bytes(-len(data) % 3) + bytes.fromhex("fbefbe" * plus) + b"en"  # "++++" each
    sent = pad(base64.b64encode(data).decode())
    for lost in range(1, sent.count("+") + 1):
        damaged = sent.replace("+", " ", lost)
        with pytest.raises(KlingError, match=r'image: base64 must not contain spaces \(a web form turns "\+"'):
            one(image=damaged)


def test_blanks_where_lines_break_by_chance_are_still_a_lost_plus() -> None:
    data = png(320, 320)
    sent = base64.b64encode(data).decode()
    with pytest.raises(KlingError, match="image: base64 must not contain spaces"):
        one(image=f"{sent[:76]} {sent[77:]}")


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
        (b"", 400, "body: must be a JSON object (got an empty body)"),
        (b" \n", 400, "(got an empty body)"),
        (b"{", 400, "(got 1 bytes that are not valid JSON)"),
        (b"[]", 400, "(got a list with 0 entries)"),
        (b'"text"', 400, "(got a string of 4 characters)"),
        (b"null", 400, "(got null)"),
        (b"{}", 400, "image: image or image_tail is required"),
        (b'{"image":"x","cfg_scale":NaN}', 400, "not valid JSON"),
        (b'{"cfg_scale":1e999}', 400, "not valid JSON"),
        (b'{"a":"\\ud800","b":NaN}', 400, "not valid JSON"),
        (b'{"a":"\\ud800","b":1e999}', 400, "not valid JSON"),
        (b'{"a":"\\ud800","b":"\xff"}', 400, "not valid JSON"),
        (b'{"prompt":"\xff\xfe"}', 400, "not valid JSON"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "not valid JSON"),
        (b'{"image_list":' * 900 + b"1" + b"}" * 900, 400, "image: image or image_tail is required"),
        (
            b" " * (MAX_BODY_BYTES + 1),
            413,
            "must have at most 5500000 bytes (got 5500001); send the image",
        ),
        (b'{"image":"' + b"A" * 6_000_000 + b'"}', 413, "send the image as a URL"),
    ],
)
def test_bodies_that_are_none(raw: bytes, http: int, message: str) -> None:
    with pytest.raises(KlingError) as caught:
        parse("image2video", raw)
    assert (caught.value.code, caught.value.http) == (1201, http)
    assert message in caught.value.message


def test_an_unknown_kind() -> None:
    with pytest.raises(KlingError, match="must be one of image2video, multi-image2video") as caught:
        parse("lip-sync" * 100, b"{}")
    assert (caught.value.code, caught.value.http) == (1202, 404)
    assert len(caught.value.message) < 200


def test_fields_of_other_kinds_are_left_out_with_a_note() -> None:
    request = one(aspect_ratio="1:1", num_videos=3, image_list=[], video_list=[{"video_url": URL}])
    assert request.body == {"image": URL}
    assert request.notes == [
        f"{name} is not a field of image2video; ignored" for name in ("aspect_ratio", "video_list")
    ]
    assert text_body(image="", image_tail=None, multi_shot=False).notes == []
    assert many(multi_shot=False, sound="off", model="kling-v3-omni").notes == [
        "sound is not a field of multi-image2video; ignored"
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


def test_blanks_around_an_address_are_dropped() -> None:
    """What is copied from a table ends with a line break."""
    assert one(callback_url=f"{URL}\r\n").callback_url == URL
    assert omni(video_list=[{"video_url": f" {URL}"}], image_list=None).body["video_list"] == [{"video_url": URL}]
    with pytest.raises(KlingError, match="callback_url: must be an http"):
        one(callback_url=f"{URL}\n{URL}")


@pytest.mark.parametrize(("sent", "kept"), [(4711, "4711"), (4711.0, "4711"), (-(2**63) + 1, str(-(2**63) + 1))])
def test_an_id_may_be_a_number(sent: float, kept: str) -> None:
    assert one(external_task_id=sent).external_task_id == kept


@pytest.mark.parametrize("sent", [2**64, 1e30, 0.5, True])
def test_a_number_that_may_have_lost_digits_is_no_id(sent: float) -> None:
    with pytest.raises(KlingError, match="external_task_id: must be a string"):
        one(external_task_id=sent)


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
    with pytest.raises(KlingError, match=r"trajectories\[0\]\.x: must be a whole number"):
        one(dynamic_masks=[{**mask, "trajectories": [{"x": 1.5, "y": 2}] * 2}])
