"""Check the rules between the fields of one body, which types cannot express. Pure.

provider/models.py holds the capabilities of each model.
"""

import json

import msgspec
from msgspec import Struct

from kling_relay.errors import bad_parameter
from kling_relay.kinds.fields import CameraControl, FreeCameraControl, Image2Video, OmniVideo, Text2Video

_MAX_REFERENCES = 7  # images and elements of an omni-video
_MAX_BESIDE_A_VIDEO = 4
_MAX_ELEMENTS_AFTER_A_FRAME = 3


def check(body: Struct) -> None:
    """Raise KlingError that names the field, the rule and the received value."""
    if isinstance(body, Image2Video):
        _check_pictures(body)
    if isinstance(body, Text2Video | OmniVideo):
        _check_prompt(body)
    if isinstance(body, OmniVideo):
        _check_references(body)
    if isinstance(body, Image2Video | Text2Video):
        if body.camera_control is not None:
            _check_camera(body.camera_control)
        if body.voice_list and body.sound != "on":
            raise bad_parameter("voice_list", 'requires sound "on"', json.dumps(body.sound))
    if isinstance(body, Image2Video | Text2Video | OmniVideo) and body.multi_shot:
        _check_shots(body)


def _check_pictures(body: Image2Video) -> None:
    if body.image is None and body.image_tail is None:
        raise bad_parameter("image", "image or image_tail is required", "neither")
    brushes = body.static_mask is not None or body.dynamic_masks is not None
    groups = {
        "image_tail": body.image_tail is not None,
        "dynamic_masks/static_mask": brushes,
        "camera_control": body.camera_control is not None,
    }
    used = [name for name, present in groups.items() if present]
    if len(used) > 1:
        raise bad_parameter(used[0], f"cannot be used together with {used[1]}; choose one of {', '.join(groups)}")
    if body.element_list and body.voice_list:
        raise bad_parameter("voice_list", "cannot be used together with element_list; send one of them")


def _check_prompt(body: Text2Video | OmniVideo) -> None:
    """Require a prompt for kinds that start from text. image2video works without one."""
    if body.prompt is None and not (body.multi_shot and body.shot_type == "customize"):
        raise bad_parameter("prompt", 'is required unless multi_shot is true and shot_type is "customize"', "no value")


def _check_camera(camera: CameraControl | FreeCameraControl) -> None:
    if camera.type not in (None, "simple"):
        if camera.config is not None:
            raise bad_parameter("camera_control.config", 'requires type "simple"', repr(camera.type))
        return
    moves = [] if camera.config is None else [value for value in msgspec.structs.astuple(camera.config) if value]
    if len(moves) != 1:
        rule = 'must have exactly one value that is not zero for type "simple"'
        raise bad_parameter("camera_control.config", rule, len(moves))


def _check_shots(body: Image2Video | Text2Video | OmniVideo) -> None:
    if body.shot_type is None:
        raise bad_parameter("shot_type", "is required if multi_shot is true", "no value")
    if body.shot_type != "customize":
        return
    if not body.multi_prompt:
        raise bad_parameter("multi_prompt", 'must have 1 to 6 shots if shot_type is "customize"', "none")
    total, asked = sum(int(shot.duration) for shot in body.multi_prompt), int(body.duration or "5")
    if total != asked:
        rule = f"the durations of the shots must add up to duration, {asked} s"
        raise bad_parameter("multi_prompt", rule, f"{total} s")


def _check_references(body: OmniVideo) -> None:
    pictures, elements, videos = body.image_list or [], body.element_list or [], body.video_list or []
    frames = {picture.type for picture in pictures}
    maximum = _MAX_BESIDE_A_VIDEO if videos else _MAX_REFERENCES
    count = len(pictures) + len(elements)
    if count > maximum:
        rule = f"must have at most {maximum} entries together{' if video_list is sent' if videos else ''}"
        raise bad_parameter("image_list/element_list", rule, count)
    if "end_frame" in frames and "first_frame" not in frames:
        raise bad_parameter("image_list", "an end_frame requires a first_frame", "none")
    if "first_frame" in frames and len(elements) > _MAX_ELEMENTS_AFTER_A_FRAME:
        maximum = _MAX_ELEMENTS_AFTER_A_FRAME
        raise bad_parameter("element_list", f"must have at most {maximum} entries with a first_frame", len(elements))
    if videos and body.sound == "on":
        raise bad_parameter("sound", 'must be "off" with video_list', '"on"')
    edits = any(video.refer_type != "feature" for video in videos)
    if body.aspect_ratio is None and "first_frame" not in frames and not edits:
        raise bad_parameter("aspect_ratio", "is required without a first_frame or a video to edit", "no value")
