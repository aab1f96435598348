"""The rules for request bodies, one by one; what is forgiven; and that any other body is refused, never an error."""

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kling_relay.errors import KlingError
from kling_relay.request import KINDS, MAX_BODY_BYTES, Request, image_places, parse

from tests.unit.pictures import jpeg, png, text

URL = "https://files.example/a.png"
PNG = text(png(320, 320))
POINTS = [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
SHOTS = [{"index": 1, "prompt": "a", "duration": "2"}, {"index": 2, "prompt": "b", "duration": "3"}]
VALID: dict[str, dict[str, Any]] = {
    "image2video": {
        "model_name": "kling-v3",
        "image": URL,
        "image_tail": PNG,
        "prompt": "a prompt",
        "negative_prompt": "none",
        "cfg_scale": 0.5,
        "mode": "pro",
        "duration": "5",
        "sound": "on",
        "multi_shot": True,
        "shot_type": "customize",
        "multi_prompt": SHOTS,
        "element_list": [{"element_id": 829836802793406551}],
        "watermark_info": {"enabled": True},
        "callback_url": "https://client.example/hook",
        "external_task_id": "mine-1",
    },
    "multi-image2video": {
        "model_name": "kling-v1-6",
        "image_list": [{"image": URL}, {"image": PNG}],
        "prompt": "a prompt",
        "negative_prompt": "none",
        "mode": "std",
        "duration": "10",
        "aspect_ratio": "9:16",
        "cfg_scale": 1,
        "watermark_info": {"enabled": False},
        "callback_url": "http://client.example:8080/hook?a=b",
        "external_task_id": "mine-1",
    },
}


def one(**fields: Any) -> Request:
    return parse("image2video", json.dumps({"image": URL, **fields}).encode())


def many(**fields: Any) -> Request:
    return parse("multi-image2video", json.dumps({"image_list": [{"image": URL}], "prompt": "p", **fields}).encode())


def refusal(make: Any, **fields: Any) -> str:
    with pytest.raises(KlingError) as caught:
        make(**fields)
    assert (caught.value.code, caught.value.http) == (1201, 400)
    assert not re.search(r"[\^`$]|null .*expected|\bstr\b|\bint\b|array|regex", caught.value.message)
    return caught.value.message


@pytest.mark.parametrize("kind", KINDS)
def test_everything_at_once(kind: str) -> None:
    sent = VALID[kind]
    request = parse(kind, json.dumps(sent).encode())
    assert (request.callback_url, request.external_task_id) == (sent["callback_url"], sent["external_task_id"])
    assert set(request.body) == set(sent) - {"callback_url", "external_task_id"}
    [(place, picture)] = request.images.items()
    assert picture == png(320, 320)
    for name, holder, key in image_places(request.body):
        assert holder[key] == ({"inline": place} if name == place else URL)
    expected = json.loads(json.dumps(sent).replace(json.dumps(PNG), json.dumps({"inline": place})))
    assert {name: expected[name] for name in request.body} == request.body


def test_only_what_was_sent_goes_on() -> None:
    assert one().body == {"image": URL}
    assert parse("image2video", json.dumps({"image_tail": URL}).encode()).body == {"image_tail": URL}
    assert many().body == {"image_list": [{"image": URL}], "prompt": "p"}


CAMERA = {"type": "simple", "config": {"zoom": 1}}
MASKS = [{"mask": URL, "trajectories": POINTS}]
LONG = "w" * 2501
SECONDS = "3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": None}, "image: at least one of image and image_tail is required, neither was sent"),
        ({"image": 5}, "image: a text is expected; sent: 5"),
        ({"image": ["x"]}, "image: a text is expected; sent: a list with 1 entries"),
        ({"prompt": LONG}, "prompt: a text of at most 2500 characters is expected; sent: a text of 2501 characters"),
        ({"prompt": {"a": 1}}, "prompt: a text of at most 2500 characters is expected; sent: an object with 1 entries"),
        ({"negative_prompt": LONG}, "negative_prompt: a text of at most 2500 characters is expected"),
        ({"model_name": "m" * 129}, "model_name: a text of at most 128 characters is expected"),
        ({"cfg_scale": 1.1}, "cfg_scale: a number from 0 to 1 is expected; sent: 1.1"),
        ({"cfg_scale": -0.1}, "cfg_scale: a number from 0 to 1 is expected; sent: -0.1"),
        ({"cfg_scale": "0.5"}, "cfg_scale: a number from 0 to 1 is expected; sent: a text of 3 characters"),
        ({"cfg_scale": 10**400}, "cfg_scale: a number from 0 to 1 is expected; sent: a number of more than 15 digits"),
        ({"cfg_scale": True}, "cfg_scale: a number from 0 to 1 is expected; sent: true"),
        ({"mode": "fast"}, "mode: one of 4k, pro, std is expected; sent: 'fast'"),
        ({"mode": "x" * 33}, "mode: one of 4k, pro, std is expected; sent: a text of 33 characters"),
        ({"mode": 1}, "mode: one of 4k, pro, std is expected; sent: 1"),
        ({"duration": "16"}, f"duration: one of {SECONDS} is expected; sent: '16'"),
        ({"duration": 2}, f"duration: one of {SECONDS} is expected; sent: '2'"),
        ({"duration": 5.5}, f"duration: one of {SECONDS} is expected; sent: 5.5"),
        ({"duration": "5\n"}, f"duration: one of {SECONDS} is expected; sent: '5"),
        ({"duration": True}, f"duration: one of {SECONDS} is expected; sent: true"),
        ({"duration": 10**400}, f"duration: one of {SECONDS} is expected; sent: a number of more than 15 digits"),
        ({"duration": -5}, f"duration: one of {SECONDS} is expected; sent: -5"),
        ({"sound": "yes"}, "sound: one of off, on is expected; sent: 'yes'"),
        ({"sound": True}, "sound: one of off, on is expected; sent: true"),
        ({"multi_shot": "yes"}, "multi_shot: true or false is expected; sent: a text of 3 characters"),
        ({"multi_shot": 1}, "multi_shot: true or false is expected; sent: 1"),
        ({"callback_url": "ftp://a.b/c"}, "callback_url: an http(s) URL of at most 2048 characters is expected"),
        ({"callback_url": "https://"}, "callback_url: an http(s) URL"),
        ({"callback_url": "https://a.b/c\n"}, "callback_url: an http(s) URL"),
        ({"callback_url": "https://a.b/" + "c" * 2048}, "callback_url: an http(s) URL of at most 2048 characters"),
        ({"external_task_id": "e" * 257}, "external_task_id: a text of at most 256 characters is expected"),
        ({"external_task_id": 5}, "external_task_id: a text of at most 256 characters is expected; sent: 5"),
        ({"watermark_info": {"enabled": "true"}}, "watermark_info.enabled: true or false is expected"),
        ({"watermark_info": {"x": 1}}, "watermark_info.enabled: this field is required"),
        ({"watermark_info": True}, "watermark_info: an object is expected; sent: true"),
        # at most one of tail, masks and camera
        ({"image_tail": URL, "camera_control": CAMERA}, "image_tail: cannot be used together with camera_control"),
        ({"image_tail": URL, "static_mask": URL}, "image_tail: cannot be used together with dynamic_masks/static_mask"),
        ({"image_tail": URL, "dynamic_masks": MASKS}, "image_tail: cannot be used together with dynamic_masks/static_"),
        ({"static_mask": URL, "camera_control": CAMERA}, "dynamic_masks/static_mask: cannot be used together with cam"),
        # brushes
        ({"dynamic_masks": MASKS * 7}, "dynamic_masks: a list of 0 to 6 entries is expected; sent: a list with 7 entr"),
        ({"dynamic_masks": [{"mask": URL}]}, "dynamic_masks[0].trajectories: this field is required"),
        ({"dynamic_masks": [*MASKS, {"trajectories": POINTS}]}, "dynamic_masks[1].mask: this field is required"),
        (
            {"dynamic_masks": [{"mask": URL, "trajectories": POINTS[:1]}]},
            "dynamic_masks[0].trajectories: a list of 2 to 77 entries is expected; sent: a list with 1 entries",
        ),
        ({"dynamic_masks": [{"mask": URL, "trajectories": POINTS * 39}]}, "trajectories: a list of 2 to 77 entries"),
        (
            {"dynamic_masks": {"mask": URL, "trajectories": [POINTS[0], {"x": 1.5, "y": 0}]}},
            "dynamic_masks[0].trajectories[1].x: a whole number from -100000 to 100000 is expected; sent: 1.5",
        ),
        # camera
        ({"camera_control": {"config": {"pan": 1}}}, "camera_control.type: this field is required"),
        ({"camera_control": {"type": "up"}}, "camera_control.type: one of down_back, forward_up, left_turn_forward, "),
        ({"camera_control": {"type": "simple"}}, "camera_control.config: type \"simple\" needs exactly one value that"),
        ({"camera_control": {"type": "simple", "config": {"pan": 0}}}, "exactly one value that is not zero; sent: 0"),
        ({"camera_control": {"type": "simple", "config": {"pan": 1, "tilt": -1}}}, "that is not zero; sent: 2"),
        ({"camera_control": {"type": "simple", "config": {"pan": 10.1}}}, "config.pan: a number from -10 to 10 is exp"),
        ({"camera_control": {"type": "simple", "config": {"roll": 10**400}}}, "roll: a number from -10 to 10 is expec"),
        ({"camera_control": {**CAMERA, "type": "down_back"}}, "camera_control.config: is only for type \"simple\""),
        # shots
        ({"multi_shot": True}, "shot_type: is required when multi_shot is true"),
        ({"multi_shot": True, "shot_type": "customize"}, "multi_prompt: is required when shot_type is \"customize\""),
        ({"multi_shot": True, "shot_type": "auto"}, "shot_type: one of customize, intelligence is expected; sent: 'au"),
        (
            {"multi_shot": True, "shot_type": "customize", "multi_prompt": SHOTS, "duration": "10"},
            "multi_prompt: the shots must last 10 s together, as duration says; sent: 5 s",
        ),
        (
            {"multi_shot": True, "shot_type": "customize", "multi_prompt": SHOTS[:1]},
            "multi_prompt: the shots must last 5 s together, as duration says; sent: 2 s",
        ),
        ({"multi_prompt": SHOTS * 4}, "multi_prompt: a list of 1 to 6 entries is expected; sent: a list with 8 entrie"),
        ({"multi_prompt": [{**SHOTS[0], "prompt": "x" * 513}]}, "multi_prompt[0].prompt: a text of at most 512 charac"),
        ({"multi_prompt": [{**SHOTS[0], "duration": "0"}]}, "multi_prompt[0].duration: one of 1, 2, 3"),
        ({"multi_prompt": [{**SHOTS[0], "index": "1"}]}, "multi_prompt[0].index: a whole number from 0 to 100"),
        ({"multi_prompt": [{**SHOTS[0], "prompt": ""}]}, "multi_prompt[0].prompt: this field is required"),
        ({"multi_prompt": "two dogs"}, "multi_prompt: a list of 1 to 6 entries is expected; sent: a text of 8 charact"),
        # elements and voices
        ({"element_list": [{"element_id": 1}] * 4}, "element_list: a list of 0 to 3 entries is expected"),
        ({"element_list": [{"element_id": 2**63}]}, "element_list[0].element_id: a whole number from 0 to 92233720368"),
        ({"element_list": [{"element_id": "e" * 65}]}, "or a text of at most 64 characters is expected; sent: a text"),
        ({"element_list": [{"element_id": None}]}, "element_list[0].element_id: this field is required"),
        ({"voice_list": [{"voice_id": "v"}] * 3, "sound": "on"}, "voice_list: a list of 0 to 2 entries is expected"),
        ({"voice_list": [{"voice_id": "v"}]}, "voice_list: needs sound \"on\"; sent: null"),
        ({"voice_list": [{"voice_id": "v"}], "sound": "off"}, "voice_list: needs sound \"on\"; sent: \"off\""),
        (
            {"voice_list": [{"voice_id": "v"}], "sound": "on", "element_list": [{"element_id": 1}]},
            "voice_list: cannot be used together with element_list",
        ),
        # images
        ({"image": "not base64!"}, "image: neither an http(s) URL nor valid base64; sent: a text of 11 characters"),
        ({"image": "ftp://a.b/c"}, "image: neither an http(s) URL nor valid base64"),
        ({"image": "https:///c.png"}, "image: a URL has a host, no blanks and at most 8192 characters; sent: a text o"),
        ({"image": "https://a.b/c d"}, "image: a URL has a host, no blanks"),
        ({"image": "https://a.b/" + "c" * 8192}, "at most 8192 characters; sent: a text of 8204 characters"),
        ({"image": "data:image/png;base64,"}, "image: the bytes are neither a JPEG nor a PNG image"),
        ({"image": text(b"GIF89a" + bytes(99))}, "image: the bytes are neither a JPEG nor a PNG image"),
        ({"image": text(png(299, 400))}, "image: both sides must have at least 300 px, the image has 299x400; sent: a"),
        ({"image_tail": text(jpeg(300, 751))}, "image_tail: the ratio of the sides must lie between 1:2.5 and 2.5:1"),
        ({"static_mask": text(png(9, 9))}, "static_mask: both sides must have at least 300 px"),
        ({"dynamic_masks": [*MASKS, {**MASKS[0], "mask": text(png(9, 9))}]}, "dynamic_masks[1].mask: both sides must"),
    ],
)  # fmt: skip
def test_image2video_refuses(fields: dict[str, Any], message: str) -> None:
    assert message in refusal(one, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_list": None}, "image_list: this field is required; it was not sent, or is empty"),
        ({"image_list": []}, "image_list: this field is required; it was not sent, or is empty"),
        ({"image_list": [{"image": URL}] * 5}, "image_list: a list of 1 to 4 entries is expected; sent: a list with 5"),
        ({"image_list": [URL]}, "image_list[0]: an object is expected; sent: a text of 27 characters"),
        ({"image_list": {"image": URL}}, "image_list: a list of 1 to 4 entries is expected; sent: an object with 1"),
        ({"image_list": [{"image": URL}, {"image": ""}]}, "image_list[1].image: this field is required"),
        ({"image_list": [{"image_url": URL}]}, "image_list[0].image: this field is required"),
        ({"image_list": [{"image": "x"}]}, "image_list[0].image: neither an http(s) URL nor valid base64"),
        ({"prompt": None}, "prompt: this field is required"),
        ({"prompt": " \n"}, "prompt: this field is required"),
        ({"prompt": LONG}, "prompt: a text of at most 2500 characters is expected; sent: a text of 2501 characters"),
        ({"mode": "4k"}, "mode: one of pro, std is expected; sent: '4k'"),
        ({"aspect_ratio": "4:3"}, "aspect_ratio: one of 16:9, 1:1, 9:16 is expected; sent: '4:3'"),
        ({"cfg_scale": 2}, "cfg_scale: a number from 0 to 1 is expected; sent: 2"),
        ({"duration": "4 "}, f"duration: one of {SECONDS} is expected; sent: '4 '"),
    ],
)
def test_multi_image2video_refuses(fields: dict[str, Any], message: str) -> None:
    assert message in refusal(many, **fields)


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


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=40)
NAMES = st.text(max_size=8)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
TRAPS = [10**4000, -(10**20), 1e308, "5\n", "x" * 3000, [[]] * 9, {"": {}}, "data:,", "http://", "\0"]
ODD = JSON | st.sampled_from(TRAPS)
FIELDS = sorted({field for schema in KINDS.values() for field in schema.__struct_fields__} | {"model"})


def only_refused(kind: str, raw: bytes) -> None:
    try:
        request = parse(kind, raw)
    except KlingError as error:
        assert 400 <= error.http < 500
        assert len(error.message) < 600
        error.message.encode()
    else:
        json.dumps(request.body).encode()


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(list(KINDS)), st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body(kind: str, raw: bytes) -> None:
    only_refused(kind, raw)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(list(KINDS)), st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=4), st.data())
def test_a_valid_body_with_changes(kind: str, changes: dict[str, Any], data: st.DataObject) -> None:
    body = json.loads(json.dumps(VALID[kind]))
    deep = data.draw(st.sampled_from(["image_list", "multi_prompt", "element_list"]))
    if deep in body:
        item = body[deep][0]
        item[data.draw(st.sampled_from([*item, "else"]))] = data.draw(ODD)
    only_refused(kind, json.dumps({**body, **changes}).encode())


CANARY = "Zebra-walks-into-a-bar"
SECRETS = [CANARY, [CANARY], {CANARY: CANARY}, CANARY * 200, f"https://a b/?sig={CANARY}", f"data:,{CANARY}"]
PLACES = [name for name in FIELDS if name not in ("mode", "duration", "sound", "aspect_ratio", "shot_type")]


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from(list(KINDS)),
    st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=3),
    st.sampled_from(SECRETS),
    st.sampled_from(PLACES),
)
def test_nothing_of_a_prompt_or_an_image_is_repeated(kind: str, changes: Any, secret: Any, where: str) -> None:
    body = {**VALID[kind], **changes, where: secret}
    try:
        parse(kind, json.dumps(body).encode())
    except KlingError as error:
        assert "Zebra" not in error.message
