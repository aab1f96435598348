"""Define the request bodies, one Struct for each kind: fields, types, limits. Pure.

Sources: the CometAPI, YutoAI and PowerTokens pages. If they disagree, Kling's official legacy pages decide (prompts up
to 2,500 characters; `image_list` up to four). Every text and list has a limit, so that a task fits into its row.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Text = Annotated[str, Meta(max_length=2500)]
Url = Annotated[str, Meta(max_length=2048, pattern=r"^(?i:https?)://[^\s/][^\s]*\Z")]
ModelName = Annotated[str, Meta(max_length=128)]
Reference = Annotated[str, Meta(max_length=256)]
Pixel = Annotated[int, Meta(ge=-100_000, le=100_000)]
Axis = Annotated[float, Meta(ge=-10, le=10)]
Share = Annotated[float, Meta(ge=0, le=1)]
Duration = Literal["3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"]
Mode = Literal["std", "pro", "4k"]
OnOff = Literal["on", "off"]
CameraMove = Literal["simple", "down_back", "forward_up", "right_turn_forward", "left_turn_forward"]
ShotType = Literal["customize", "intelligence"]
Ratio = Literal["16:9", "9:16", "1:1"]
WideRatio = Literal["16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3"]  # Kling lists three, CometAPI seven


class Point(Struct, frozen=True):
    """Pixels from the lower left corner."""

    x: Pixel
    y: Pixel


class DynamicMask(Struct, omit_defaults=True):
    mask: str
    trajectories: Annotated[list[Point], Meta(min_length=2, max_length=77)]


class CameraConfig(Struct, omit_defaults=True):
    """A camera move. Exactly one value may differ from zero."""

    horizontal: Axis = 0
    vertical: Axis = 0
    pan: Axis = 0
    tilt: Axis = 0
    roll: Axis = 0
    zoom: Axis = 0


class CameraControl(Struct, omit_defaults=True):
    type: CameraMove
    config: CameraConfig | None = None


class FreeCameraControl(Struct, omit_defaults=True):
    """The camera control of text2video. Its type defaults to simple."""

    type: CameraMove | None = None
    config: CameraConfig | None = None


class Shot(Struct):
    index: Annotated[int, Meta(ge=0, le=100)]
    prompt: Annotated[str, Meta(max_length=512)]
    duration: Literal["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"]


class Element(Struct):
    element_id: Annotated[int, Meta(ge=0, le=2**63 - 1)] | Annotated[str, Meta(max_length=64)]


class Voice(Struct):
    voice_id: Annotated[str, Meta(max_length=128)]


class Watermark(Struct):
    enabled: bool


class ListedImage(Struct):
    image: str


class OmniImage(Struct, omit_defaults=True):
    image_url: str
    type: Literal["first_frame", "end_frame"] | None = None


class ListedVideo(Struct, omit_defaults=True):
    """A reference video. `refer_type` base (the default) is the video to edit, feature is one to learn from."""

    video_url: Url
    refer_type: Literal["base", "feature"] | None = None
    keep_original_sound: Literal["yes", "no"] | None = None


Masks = Annotated[list[DynamicMask], Meta(max_length=6)]
Shots = Annotated[list[Shot], Meta(min_length=1, max_length=6)]
Voices = Annotated[list[Voice], Meta(max_length=2)]


class Image2Video(Struct, omit_defaults=True):
    model_name: ModelName | None = None
    image: str | None = None
    image_tail: str | None = None
    prompt: Text | None = None
    negative_prompt: Text | None = None
    cfg_scale: Share | None = None
    mode: Mode | None = None
    duration: Duration | None = None
    sound: OnOff | None = None
    static_mask: str | None = None
    dynamic_masks: Masks | None = None
    camera_control: CameraControl | None = None
    multi_shot: bool = False
    shot_type: ShotType | None = None
    multi_prompt: Shots | None = None
    element_list: Annotated[list[Element], Meta(max_length=3)] | None = None
    voice_list: Voices | None = None
    watermark_info: Watermark | None = None
    callback_url: Url | None = None
    external_task_id: Reference | None = None


class MultiImage2Video(Struct, omit_defaults=True):
    """The body of multi-image2video. cfg_scale and the masks come from CometAPI, not from Kling."""

    image_list: Annotated[list[ListedImage], Meta(min_length=1, max_length=4)]
    prompt: Text
    model_name: ModelName | None = None
    negative_prompt: Text | None = None
    mode: Literal["std", "pro"] | None = None
    duration: Duration | None = None
    aspect_ratio: Ratio | None = None
    cfg_scale: Share | None = None
    static_mask: str | None = None
    dynamic_masks: Masks | None = None
    watermark_info: Watermark | None = None
    callback_url: Url | None = None
    external_task_id: Reference | None = None


class Text2Video(Struct, omit_defaults=True):
    model_name: ModelName | None = None
    prompt: Text | None = None
    negative_prompt: Text | None = None
    cfg_scale: Share | None = None
    mode: Mode | None = None
    duration: Duration | None = None
    aspect_ratio: WideRatio | None = None
    sound: OnOff | None = None
    camera_control: FreeCameraControl | None = None
    multi_shot: bool = False
    shot_type: ShotType | None = None
    multi_prompt: Shots | None = None
    voice_list: Voices | None = None
    watermark_info: Watermark | None = None
    callback_url: Url | None = None
    external_task_id: Reference | None = None


class OmniVideo(Struct, omit_defaults=True):
    model_name: ModelName | None = None
    prompt: Text | None = None
    image_list: Annotated[list[OmniImage], Meta(max_length=7)] | None = None
    element_list: Annotated[list[Element], Meta(max_length=7)] | None = None
    video_list: Annotated[list[ListedVideo], Meta(max_length=1)] | None = None
    mode: Mode | None = None
    duration: Duration | None = None
    aspect_ratio: Ratio | None = None
    sound: OnOff | None = None
    multi_shot: bool = False
    shot_type: ShotType | None = None
    multi_prompt: Shots | None = None
    watermark_info: Watermark | None = None
    callback_url: Url | None = None
    external_task_id: Reference | None = None


KINDS: dict[str, type[Struct]] = {
    "image2video": Image2Video,
    "multi-image2video": MultiImage2Video,
    "text2video": Text2Video,
    "omni-video": OmniVideo,
}
FIELDS = {name for body in KINDS.values() for name in body.__struct_fields__}


def default_mode(kind: str) -> str:
    """Return the mode that Kling uses if `mode` is not sent."""
    return "pro" if kind == "omni-video" else "std"
