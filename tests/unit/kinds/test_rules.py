"""Test one refusal per row of the field tables and per rule: the message has the field, the limit and the value."""

import json
from typing import Any

import pytest
from kling_relay.api.request import parse
from kling_relay.errors import KlingError

from tests.support import request_bodies
from tests.support.image_files import jpeg, png, text
from tests.support.request_bodies import CAMERA, LONG, MASKS, POINTS, SECONDS, SHOTS, URL, many, omni, one, refusal


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
        ({"cfg_scale": "0,5"}, "cfg_scale: a number from 0 to 1 is expected; sent: a text of 3 characters"),
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
        ({"callback_url": "https://a.b/c\nd"}, "callback_url: an http(s) URL"),
        ({"callback_url": "https://a.b/" + "c" * 2048}, "callback_url: an http(s) URL of at most 2048 characters"),
        ({"external_task_id": "e" * 257}, "external_task_id: a text of at most 256 characters is expected"),
        ({"external_task_id": 5.5}, "external_task_id: a text of at most 256 characters is expected; sent: 5.5"),
        ({"watermark_info": {"enabled": "yes"}}, "watermark_info.enabled: true or false is expected"),
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
        ({"multi_prompt": [{**SHOTS[0], "index": "one"}]}, "multi_prompt[0].index: a whole number from 0 to 100"),
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
        ({"static_mask": "x"}, "static_mask: neither an http(s) URL nor valid base64"),
        ({"dynamic_masks": MASKS * 7}, "dynamic_masks: a list of 0 to 6 entries is expected"),
        ({"dynamic_masks": {"mask": URL}}, "dynamic_masks[0].trajectories: this field is required"),
        ({"duration": "4 "}, f"duration: one of {SECONDS} is expected; sent: '4 '"),
    ],
)
def test_multi_image2video_refuses(fields: dict[str, Any], message: str) -> None:
    assert message in refusal(many, **fields)


VIDEO = {"video_url": URL}
FIRST, END = {"image_url": URL, "type": "first_frame"}, {"image_url": URL, "type": "end_frame"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": None}, 'prompt: this field is required unless multi_shot is true with shot_type "customize"'),
        ({"prompt": "", "multi_shot": True, "shot_type": "intelligence"}, "prompt: this field is required unless"),
        ({"prompt": LONG}, "prompt: a text of at most 2500 characters is expected; sent: a text of 2501 characters"),
        ({"negative_prompt": LONG}, "negative_prompt: a text of at most 2500 characters"),
        ({"mode": "8k"}, "mode: one of 4k, pro, std is expected; sent: '8k'"),
        ({"duration": "2"}, f"duration: one of {SECONDS} is expected; sent: '2'"),
        ({"aspect_ratio": "2:1"}, "aspect_ratio: one of 16:9, 1:1, 2:3, 3:2, 3:4, 4:3, 9:16 is expected; sent: '2:1'"),
        ({"cfg_scale": 1.01}, "cfg_scale: a number from 0 to 1 is expected; sent: 1.01"),
        ({"sound": 1}, "sound: one of off, on is expected; sent: 1"),
        ({"camera_control": {"config": {"pan": 1, "tilt": 1}}}, "that is not zero; sent: 2"),
        ({"camera_control": {**CAMERA, "type": "down_back"}}, 'camera_control.config: is only for type "simple"'),
        ({"multi_shot": True}, "shot_type: is required when multi_shot is true"),
        ({"multi_shot": True, "shot_type": "customize"}, "multi_prompt: is required when shot_type is"),
        ({"voice_list": [{"voice_id": "v"}]}, 'voice_list: needs sound "on"; sent: null'),
        ({"voice_list": [{"voice_id": "v"}] * 3, "sound": "on"}, "voice_list: a list of 0 to 2 entries is expected"),
    ],
)
def test_text2video_refuses(fields: dict[str, Any], message: str) -> None:
    assert message in refusal(request_bodies.text, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": None}, "prompt: this field is required unless multi_shot is true"),
        ({"prompt": LONG}, "prompt: a text of at most 2500 characters is expected"),
        ({"aspect_ratio": "4:3"}, "aspect_ratio: one of 16:9, 1:1, 9:16 is expected; sent: '4:3'"),
        ({"aspect_ratio": None}, "aspect_ratio: is required without a first_frame or a video to edit; it was not sent"),
        ({"aspect_ratio": None, "image_list": [{"image_url": URL}]}, "aspect_ratio: is required without"),
        ({"aspect_ratio": None, "video_list": [{**VIDEO, "refer_type": "feature"}]}, "aspect_ratio: is required wit"),
        ({"image_list": [{"image_url": URL}] * 8}, "image_list: a list of 0 to 7 entries is expected; sent: a list wi"),
        ({"image_list": [{"image": URL}]}, "image_list[0].image_url: this field is required"),
        ({"image_list": [{"image_url": "x"}]}, "image_list[0].image_url: neither an http(s) URL nor valid base64"),
        ({"image_list": [{"image_url": text(png(9, 9))}]}, "image_list[0].image_url: both sides must have at least"),
        ({"image_list": [{"image_url": URL, "type": "last"}]}, "image_list[0].type: one of end_frame, first_frame is"),
        ({"image_list": [END]}, "image_list: an end_frame needs a first_frame, none was sent"),
        (
            {"image_list": [{"image_url": URL}] * 4, "element_list": [{"element_id": 1}] * 4},
            "image_list/element_list: at most 7 together are allowed; sent: 8",
        ),
        (
            {"image_list": [{"image_url": URL}] * 3, "element_list": [{"element_id": 1}] * 2, "video_list": [VIDEO]},
            "image_list/element_list: at most 4 together are allowed beside a video; sent: 5",
        ),
        (
            {"image_list": [FIRST], "element_list": [{"element_id": 1}] * 4},
            "element_list: at most 3 are allowed with a first_frame; sent: 4",
        ),
        ({"element_list": [{"element_id": 1}] * 8}, "element_list: a list of 0 to 7 entries is expected"),
        ({"element_list": [{"id": 1}]}, "element_list[0].element_id: this field is required"),
        ({"video_list": [VIDEO] * 2}, "video_list: a list of 0 to 1 entries is expected; sent: a list with 2 entries"),
        ({"video_list": [{"refer_type": "base"}]}, "video_list[0].video_url: this field is required"),
        ({"video_list": [{"video_url": "AAAA"}]}, "video_list[0].video_url: an http(s) URL of at most 2048 charact"),
        ({"video_list": [{**VIDEO, "refer_type": "x"}]}, "video_list[0].refer_type: one of base, feature is expecte"),
        ({"video_list": [{**VIDEO, "keep_original_sound": True}]}, "keep_original_sound: one of no, yes is expected;"),
        ({"video_list": [VIDEO], "sound": "on"}, 'sound: must be "off" with video_list; sent: "on"'),
        ({"mode": "hd"}, "mode: one of 4k, pro, std is expected; sent: 'hd'"),
        ({"duration": "16"}, f"duration: one of {SECONDS} is expected; sent: '16'"),
        ({"multi_shot": True}, "shot_type: is required when multi_shot is true"),
        (
            {"multi_shot": True, "shot_type": "customize", "multi_prompt": SHOTS, "duration": 7},
            "multi_prompt: the shots must last 7 s together, as duration says; sent: 5 s",
        ),
        ({"watermark_info": {"enabled": 1}}, "watermark_info.enabled: true or false is expected; sent: 1"),
        ({"callback_url": "x"}, "callback_url: an http(s) URL of at most 2048 characters is expected"),
        ({"external_task_id": "e" * 257}, "external_task_id: a text of at most 256 characters is expected"),
    ],
)
def test_omni_video_refuses(fields: dict[str, Any], message: str) -> None:
    assert message in refusal(omni, **fields)


@pytest.mark.parametrize(
    ("kind", "sent", "field", "hint"),
    [
        ("image2video", {"image_url": URL}, "image", "unknown field image_url: did you mean image?"),
        ("image2video", {"imageUrl": URL, "image": ""}, "image", "unknown field imageUrl: did you mean image?"),
        ("image2video", {"img": URL}, "image", "unknown field img: did you mean image?"),
        ("text2video", {"promt": "p"}, "prompt", "unknown field promt: did you mean prompt?"),
        ("multi-image2video", {"prompt": "p", "images": [URL]}, "image_list", "field images: did you mean image_list?"),
        ("multi-image2video", {"prompt": "p", "image_list": [{"image_url": URL}]}, "image_list[0].image", "image_url"),
    ],
)
def test_a_misspelt_field_is_named_in_the_refusal_it_causes(kind: str, sent: Any, field: str, hint: str) -> None:
    with pytest.raises(KlingError) as caught:
        parse(kind, json.dumps(sent).encode())
    assert caught.value.message.startswith(f"{field}: ") and hint in caught.value.message


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("image2video", {"picture": URL}),
        ("image2video", {"image_list": [URL]}),  # another kind's field is named in the log
        ("image2video", {"image": URL, "imag": URL, "cfg_scale": 7}),
        ("image2video", {"image": "x", "images": URL}),
        ("image2video", {"image<b>": URL}),
        ("multi-image2video", {"prompt": "p", "image_list": [5]}),
        ("multi-image2video", {"prompt": "p", "image_list": {"0": URL}}),
    ],
)
def test_no_other_refusal_guesses(kind: str, sent: Any) -> None:
    with pytest.raises(KlingError) as caught:
        parse(kind, json.dumps(sent).encode())
    assert "did you mean" not in caught.value.message
