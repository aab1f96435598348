"""Provide request bodies: one of every kind with every field, and short ones to change a field of."""

import json
import re
from typing import Any

import pytest
from kling_relay.api.request import Request, parse
from kling_relay.errors import KlingError

from tests.support import image_files

URL = "https://files.example/a.png"
PNG = image_files.text(image_files.png(320, 320))
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
        "static_mask": URL,
        "dynamic_masks": [{"mask": URL, "trajectories": POINTS}],
        "watermark_info": {"enabled": False},
        "callback_url": "https://client.example/hook?a=b",
        "external_task_id": "mine-1",
    },
    "text2video": {
        "model_name": "kling-v3",
        "prompt": "a prompt",
        "negative_prompt": "none",
        "cfg_scale": 0.5,
        "mode": "4k",
        "duration": "15",
        "aspect_ratio": "3:2",
        "sound": "on",
        "camera_control": {"type": "simple", "config": {"zoom": -1.5}},
        "multi_shot": True,
        "shot_type": "intelligence",
        "multi_prompt": SHOTS,
        "voice_list": [{"voice_id": "v"}],
        "watermark_info": {"enabled": True},
        "callback_url": "https://client.example/hook",
        "external_task_id": "mine-1",
    },
    "omni-video": {
        "model_name": "kling-v3-omni",
        "prompt": "<<<image_1>>> meets <<<element_1>>>",
        "image_list": [
            {"image_url": URL, "type": "first_frame"},
            {"image_url": PNG, "type": "end_frame"},
            {"image_url": URL},
        ],
        "element_list": [{"element_id": 829836802793406551}],
        "video_list": [{"video_url": URL, "refer_type": "feature", "keep_original_sound": "yes"}],
        "mode": "pro",
        "duration": "5",
        "aspect_ratio": "1:1",
        "sound": "off",
        "multi_shot": True,
        "shot_type": "customize",
        "multi_prompt": SHOTS,
        "watermark_info": {"enabled": True},
        "callback_url": "https://client.example/hook",
        "external_task_id": "mine-1",
    },
}

CAMERA = {"type": "simple", "config": {"zoom": 1}}
MASKS = [{"mask": URL, "trajectories": POINTS}]
LONG = "w" * 2501
SECONDS = "3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15"


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


def text(**fields: Any) -> Request:
    return parse("text2video", json.dumps({"prompt": "p", **fields}).encode())


def omni(**fields: Any) -> Request:
    return parse("omni-video", json.dumps({"prompt": "p", "aspect_ratio": "1:1", **fields}).encode())
