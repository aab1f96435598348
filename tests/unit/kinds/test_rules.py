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
        ({"image": None}, "image: image or image_tail is required (got neither)"),
        ({"image": 5}, "image: must be a string (got 5)"),
        ({"image": ["x"]}, "image: must be a string (got a list with 1 entries)"),
        ({"prompt": LONG}, "prompt: must be a string of at most 2500 characters (got a string of 2501 characters)"),
        ({"prompt": {"a": 1}}, "prompt: must be a string of at most 2500 characters (got an object with 1 entries)"),
        ({"negative_prompt": LONG}, "negative_prompt: must be a string of at most 2500 characters"),
        ({"model_name": "m" * 129}, "model_name: must be a string of at most 128 characters"),
        ({"cfg_scale": 1.1}, "cfg_scale: must be a number from 0 to 1 (got 1.1)"),
        ({"cfg_scale": -0.1}, "cfg_scale: must be a number from 0 to 1 (got -0.1)"),
        ({"cfg_scale": "0,5"}, "cfg_scale: must be a number from 0 to 1 (got a string of 3 characters)"),
        ({"cfg_scale": 10**400}, "cfg_scale: must be a number from 0 to 1 (got a number of more than 15 digits)"),
        ({"cfg_scale": True}, "cfg_scale: must be a number from 0 to 1 (got true)"),
        ({"mode": "fast"}, "mode: must be one of 4k, pro, std (got 'fast')"),
        ({"mode": "x" * 33}, "mode: must be one of 4k, pro, std (got a string of 33 characters)"),
        ({"mode": 1}, "mode: must be one of 4k, pro, std (got 1)"),
        ({"duration": "16"}, f"duration: must be one of {SECONDS} (got '16')"),
        ({"duration": 2}, f"duration: must be one of {SECONDS} (got '2')"),
        ({"duration": 5.5}, f"duration: must be one of {SECONDS} (got 5.5)"),
        ({"duration": "5\n"}, f"duration: must be one of {SECONDS} (got '5"),
        ({"duration": True}, f"duration: must be one of {SECONDS} (got true)"),
        ({"duration": 10**400}, f"duration: must be one of {SECONDS} (got a number of more than 15 digits)"),
        ({"duration": -5}, f"duration: must be one of {SECONDS} (got -5)"),
        ({"sound": "yes"}, "sound: must be one of off, on (got 'yes')"),
        ({"sound": True}, "sound: must be one of off, on (got true)"),
        ({"multi_shot": "yes"}, "multi_shot: must be true or false (got a string of 3 characters)"),
        ({"multi_shot": 1}, "multi_shot: must be true or false (got 1)"),
        ({"callback_url": "ftp://a.b/c"}, "callback_url: must be an http(s) URL of at most 2048 characters"),
        ({"callback_url": "https://"}, "callback_url: must be an http(s) URL"),
        ({"callback_url": "https://a.b/c\nd"}, "callback_url: must be an http(s) URL"),
        ({"callback_url": "https://a.b/" + "c" * 2048}, "callback_url: must be an http(s) URL of at most 2048"),
        ({"external_task_id": "e" * 257}, "external_task_id: must be a string of at most 256 characters"),
        ({"external_task_id": 5.5}, "external_task_id: must be a string of at most 256 characters (got 5.5)"),
        ({"watermark_info": {"enabled": "yes"}}, "watermark_info.enabled: must be true or false"),
        ({"watermark_info": {"x": 1}}, "watermark_info.enabled: is required"),
        ({"watermark_info": True}, "watermark_info: must be an object (got true)"),
        # at most one of tail, masks and camera
        ({"image_tail": URL, "camera_control": CAMERA}, "image_tail: cannot be used together with camera_control"),
        ({"image_tail": URL, "static_mask": URL}, "image_tail: cannot be used together with dynamic_masks/static_mask"),
        ({"image_tail": URL, "dynamic_masks": MASKS}, "image_tail: cannot be used together with dynamic_masks/static_"),
        ({"static_mask": URL, "camera_control": CAMERA}, "dynamic_masks/static_mask: cannot be used together with cam"),
        # brushes
        ({"dynamic_masks": MASKS * 7}, "dynamic_masks: must be a list of 0 to 6 entries (got a list with 7 entr"),
        ({"dynamic_masks": [{"mask": URL}]}, "dynamic_masks[0].trajectories: is required"),
        ({"dynamic_masks": [*MASKS, {"trajectories": POINTS}]}, "dynamic_masks[1].mask: is required"),
        (
            {"dynamic_masks": [{"mask": URL, "trajectories": POINTS[:1]}]},
            "dynamic_masks[0].trajectories: must be a list of 2 to 77 entries (got a list with 1 entries)",
        ),
        ({"dynamic_masks": [{"mask": URL, "trajectories": POINTS * 39}]}, "trajectories: must be a list of 2 to 77"),
        (
            {"dynamic_masks": {"mask": URL, "trajectories": [POINTS[0], {"x": 1.5, "y": 0}]}},
            "dynamic_masks[0].trajectories[1].x: must be a whole number from -100000 to 100000 (got 1.5)",
        ),
        # camera
        ({"camera_control": {"config": {"pan": 1}}}, "camera_control.type: is required"),
        ({"camera_control": {"type": "up"}}, "camera_control.type: must be one of down_back, forward_up, left_turn"),
        ({"camera_control": {"type": "simple"}}, "camera_control.config: must have exactly one value that"),
        ({"camera_control": {"type": "simple", "config": {"pan": 0}}}, "not zero for type \"simple\" (got 0)"),
        ({"camera_control": {"type": "simple", "config": {"pan": 1, "tilt": -1}}}, "for type \"simple\" (got 2)"),
        ({"camera_control": {"type": "simple", "config": {"pan": 10.1}}}, "config.pan: must be a number from -10 to"),
        ({"camera_control": {"type": "simple", "config": {"roll": 10**400}}}, "roll: must be a number from -10 to 10"),
        ({"camera_control": {**CAMERA, "type": "down_back"}}, "camera_control.config: requires type \"simple\""),
        # shots
        ({"multi_shot": True}, "shot_type: is required if multi_shot is true"),
        ({"multi_shot": True, "shot_type": "customize"}, "have 1 to 6 shots if shot_type is \"customize\" (got none)"),
        ({"multi_shot": True, "shot_type": "auto"}, "shot_type: must be one of customize, intelligence (got 'au"),
        (
            {"multi_shot": True, "shot_type": "customize", "multi_prompt": SHOTS, "duration": "10"},
            "multi_prompt: the durations of the shots must add up to duration, 10 s (got 5 s)",
        ),
        (
            {"multi_shot": True, "shot_type": "customize", "multi_prompt": SHOTS[:1]},
            "multi_prompt: the durations of the shots must add up to duration, 5 s (got 2 s)",
        ),
        ({"multi_prompt": SHOTS * 4}, "multi_prompt: must be a list of 1 to 6 entries (got a list with 8 entrie"),
        ({"multi_prompt": [{**SHOTS[0], "prompt": "x" * 513}]}, "multi_prompt[0].prompt: must be a string of at most"),
        ({"multi_prompt": [{**SHOTS[0], "duration": "0"}]}, "multi_prompt[0].duration: must be one of 1, 2, 3"),
        ({"multi_prompt": [{**SHOTS[0], "index": "one"}]}, "multi_prompt[0].index: must be a whole number from 0 to 1"),
        ({"multi_prompt": [{**SHOTS[0], "prompt": ""}]}, "multi_prompt[0].prompt: is required"),
        ({"multi_prompt": "two dogs"}, "multi_prompt: must be a list of 1 to 6 entries (got a string of 8 charact"),
        # elements and voices
        ({"element_list": [{"element_id": 1}] * 4}, "element_list: must be a list of 0 to 3 entries"),
        ({"element_list": [{"element_id": 2**63}]}, "element_list[0].element_id: must be a whole number from 0 to 9"),
        ({"element_list": [{"element_id": "e" * 65}]}, "or a string of at most 64 characters (got a string"),
        ({"element_list": [{"element_id": None}]}, "element_list[0].element_id: is required"),
        ({"voice_list": [{"voice_id": "v"}] * 3, "sound": "on"}, "voice_list: must be a list of 0 to 2 entries"),
        ({"voice_list": [{"voice_id": "v"}]}, "voice_list: requires sound \"on\" (got null)"),
        ({"voice_list": [{"voice_id": "v"}], "sound": "off"}, "voice_list: requires sound \"on\" (got \"off\")"),
        (
            {"voice_list": [{"voice_id": "v"}], "sound": "on", "element_list": [{"element_id": 1}]},
            "voice_list: cannot be used together with element_list; send one of them",
        ),
        # images
        ({"image": "not base64!"}, "image: must be an http(s) URL or valid base64; source: a string of 11 characters"),
        ({"image": "ftp://a.b/c"}, "image: must be an http(s) URL or valid base64"),
        ({"image": "https:///c.png"}, "image: must be a URL with a host, without spaces, and with at most 8192 chara"),
        ({"image": "https://a.b/c d"}, "image: must be a URL with a host, without spaces"),
        ({"image": "https://a.b/" + "c" * 8192}, "at most 8192 characters (got a string of 8204 characters)"),
        ({"image": "data:image/png;base64,"}, "image: must be a JPEG or PNG image"),
        ({"image": text(b"GIF89a" + bytes(99))}, "image: must be a JPEG or PNG image"),
        ({"image": text(png(299, 400))}, "image: both sides must have at least 300 px (got 299x400); source: a"),
        ({"image_tail": text(jpeg(300, 751))}, "image_tail: the ratio of the sides must be between 1:2.5 and 2.5:1"),
        ({"static_mask": text(png(9, 9))}, "static_mask: both sides must have at least 300 px"),
        ({"dynamic_masks": [*MASKS, {**MASKS[0], "mask": text(png(9, 9))}]}, "dynamic_masks[1].mask: both sides must"),
    ],
)  # fmt: skip
def test_image2video_refuses(fields: dict[str, Any], message: str) -> None:
    assert message in refusal(one, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_list": None}, "image_list: is required (got no value, or an empty one)"),
        ({"image_list": []}, "image_list: is required (got no value, or an empty one)"),
        ({"image_list": [{"image": URL}] * 5}, "image_list: must be a list of 1 to 4 entries (got a list with 5"),
        ({"image_list": [URL]}, "image_list[0]: must be an object (got a string of 27 characters)"),
        ({"image_list": {"image": URL}}, "image_list: must be a list of 1 to 4 entries (got an object with 1"),
        ({"image_list": [{"image": URL}, {"image": ""}]}, "image_list[1].image: is required"),
        ({"image_list": [{"image_url": URL}]}, "image_list[0].image: is required"),
        ({"image_list": [{"image": "x"}]}, "image_list[0].image: must be an http(s) URL or valid base64"),
        ({"prompt": None}, "prompt: is required"),
        ({"prompt": " \n"}, "prompt: is required"),
        ({"prompt": LONG}, "prompt: must be a string of at most 2500 characters (got a string of 2501 characters)"),
        ({"mode": "4k"}, "mode: must be one of pro, std (got '4k')"),
        ({"aspect_ratio": "4:3"}, "aspect_ratio: must be one of 16:9, 1:1, 9:16 (got '4:3')"),
        ({"cfg_scale": 2}, "cfg_scale: must be a number from 0 to 1 (got 2)"),
        ({"static_mask": "x"}, "static_mask: must be an http(s) URL or valid base64"),
        ({"dynamic_masks": MASKS * 7}, "dynamic_masks: must be a list of 0 to 6 entries"),
        ({"dynamic_masks": {"mask": URL}}, "dynamic_masks[0].trajectories: is required"),
        ({"duration": "4 "}, f"duration: must be one of {SECONDS} (got '4 ')"),
    ],
)
def test_multi_image2video_refuses(fields: dict[str, Any], message: str) -> None:
    assert message in refusal(many, **fields)


VIDEO = {"video_url": URL}
FIRST, END = {"image_url": URL, "type": "first_frame"}, {"image_url": URL, "type": "end_frame"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": None}, 'prompt: is required unless multi_shot is true and shot_type is "customize"'),
        ({"prompt": "", "multi_shot": True, "shot_type": "intelligence"}, "prompt: is required unless"),
        ({"prompt": LONG}, "prompt: must be a string of at most 2500 characters (got a string of 2501 characters)"),
        ({"negative_prompt": LONG}, "negative_prompt: must be a string of at most 2500 characters"),
        ({"mode": "8k"}, "mode: must be one of 4k, pro, std (got '8k')"),
        ({"duration": "2"}, f"duration: must be one of {SECONDS} (got '2')"),
        ({"aspect_ratio": "2:1"}, "aspect_ratio: must be one of 16:9, 1:1, 2:3, 3:2, 3:4, 4:3, 9:16 (got '2:1')"),
        ({"cfg_scale": 1.01}, "cfg_scale: must be a number from 0 to 1 (got 1.01)"),
        ({"sound": 1}, "sound: must be one of off, on (got 1)"),
        ({"camera_control": {"config": {"pan": 1, "tilt": 1}}}, 'that is not zero for type "simple" (got 2)'),
        ({"camera_control": {**CAMERA, "type": "down_back"}}, 'camera_control.config: requires type "simple"'),
        ({"multi_shot": True}, "shot_type: is required if multi_shot is true"),
        ({"multi_shot": True, "shot_type": "customize"}, "multi_prompt: must have 1 to 6 shots if shot_type is"),
        ({"voice_list": [{"voice_id": "v"}]}, 'voice_list: requires sound "on" (got null)'),
        ({"voice_list": [{"voice_id": "v"}] * 3, "sound": "on"}, "voice_list: must be a list of 0 to 2 entries"),
    ],
)
def test_text2video_refuses(fields: dict[str, Any], message: str) -> None:
    assert message in refusal(request_bodies.text, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": None}, "prompt: is required unless multi_shot is true"),
        ({"prompt": LONG}, "prompt: must be a string of at most 2500 characters"),
        ({"aspect_ratio": "4:3"}, "aspect_ratio: must be one of 16:9, 1:1, 9:16 (got '4:3')"),
        ({"aspect_ratio": None}, "aspect_ratio: is required without a first_frame or a video to edit (got no value)"),
        ({"aspect_ratio": None, "image_list": [{"image_url": URL}]}, "aspect_ratio: is required without"),
        ({"aspect_ratio": None, "video_list": [{**VIDEO, "refer_type": "feature"}]}, "aspect_ratio: is required wit"),
        ({"image_list": [{"image_url": URL}] * 8}, "image_list: must be a list of 0 to 7 entries (got a list wi"),
        ({"image_list": [{"image": URL}]}, "image_list[0].image_url: is required"),
        ({"image_list": [{"image_url": "x"}]}, "image_list[0].image_url: must be an http(s) URL or valid base64"),
        ({"image_list": [{"image_url": text(png(9, 9))}]}, "image_list[0].image_url: both sides must have at least"),
        (
            {"image_list": [{"image_url": URL, "type": "last"}]},
            "image_list[0].type: must be one of end_frame, first_frame",
        ),
        ({"image_list": [END]}, "image_list: an end_frame requires a first_frame (got none)"),
        (
            {"image_list": [{"image_url": URL}] * 4, "element_list": [{"element_id": 1}] * 4},
            "image_list/element_list: must have at most 7 entries together (got 8)",
        ),
        (
            {"image_list": [{"image_url": URL}] * 3, "element_list": [{"element_id": 1}] * 2, "video_list": [VIDEO]},
            "image_list/element_list: must have at most 4 entries together if video_list is sent (got 5)",
        ),
        (
            {"image_list": [FIRST], "element_list": [{"element_id": 1}] * 4},
            "element_list: must have at most 3 entries with a first_frame (got 4)",
        ),
        ({"element_list": [{"element_id": 1}] * 8}, "element_list: must be a list of 0 to 7 entries"),
        ({"element_list": [{"id": 1}]}, "element_list[0].element_id: is required"),
        ({"video_list": [VIDEO] * 2}, "video_list: must be a list of 0 to 1 entries (got a list with 2 entries)"),
        ({"video_list": [{"refer_type": "base"}]}, "video_list[0].video_url: is required"),
        ({"video_list": [{"video_url": "AAAA"}]}, "video_list[0].video_url: must be an http(s) URL of at most 2048"),
        ({"video_list": [{**VIDEO, "refer_type": "x"}]}, "video_list[0].refer_type: must be one of base, feature (got"),
        ({"video_list": [{**VIDEO, "keep_original_sound": True}]}, "keep_original_sound: must be one of no, yes"),
        ({"video_list": [VIDEO], "sound": "on"}, 'sound: must be "off" with video_list (got "on")'),
        ({"mode": "hd"}, "mode: must be one of 4k, pro, std (got 'hd')"),
        ({"duration": "16"}, f"duration: must be one of {SECONDS} (got '16')"),
        ({"multi_shot": True}, "shot_type: is required if multi_shot is true"),
        (
            {"multi_shot": True, "shot_type": "customize", "multi_prompt": SHOTS, "duration": 7},
            "multi_prompt: the durations of the shots must add up to duration, 7 s (got 5 s)",
        ),
        ({"watermark_info": {"enabled": 1}}, "watermark_info.enabled: must be true or false (got 1)"),
        ({"callback_url": "x"}, "callback_url: must be an http(s) URL of at most 2048 characters"),
        ({"external_task_id": "e" * 257}, "external_task_id: must be a string of at most 256 characters"),
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
