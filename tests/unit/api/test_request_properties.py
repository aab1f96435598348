"""Test that any body is accepted with its meaning unchanged, or refused without repeating private data."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kling_relay.api.request import KINDS, parse
from kling_relay.errors import KlingError

from tests.support.request_bodies import VALID

pytestmark = pytest.mark.slow

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


# -- any valid body, drawn from the schema itself

SHOT_LENGTHS = st.lists(st.integers(1, 4), min_size=1, max_size=3).filter(lambda lengths: sum(lengths) >= 3)
WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=2500).filter(lambda text: not text.isspace())
URLS = st.sampled_from(["https://files.example/a.png", "http://files.example/b.jpg?x=1"])
POINTS = st.lists(st.fixed_dictionaries({"x": st.integers(-9, 9), "y": st.integers(-9, 9)}), min_size=2, max_size=77)
MASKS = st.lists(st.fixed_dictionaries({"mask": URLS, "trajectories": POINTS}), min_size=1, max_size=6)
AXES = st.sampled_from(["horizontal", "vertical", "pan", "tilt", "roll", "zoom"])
CAMERAS = st.sampled_from(["down_back", "forward_up", "right_turn_forward", "left_turn_forward"]).map(
    lambda preset: {"type": preset}
) | st.tuples(AXES, st.floats(-10, 10).filter(bool)).map(lambda move: {"type": "simple", "config": dict([move])})
IDS = st.fixed_dictionaries({"element_id": st.integers(0, 2**63 - 1)})
COMMON: dict[str, Any] = {
    "model_name": st.sampled_from(["kling-v3", "kling-of-next-year"]),
    "mode": st.sampled_from(["std", "pro"]),
    "duration": st.integers(3, 15).map(str),
    "watermark_info": st.fixed_dictionaries({"enabled": st.booleans()}),
    "callback_url": URLS,
    "external_task_id": WORDS.map(lambda text: text[:200]).filter(lambda text: not text.isspace()),
}
FREE = {"negative_prompt": WORDS, "cfg_scale": st.floats(0, 1)}
SOUND = {"sound": st.sampled_from(["on", "off"])}
RATIO = {"aspect_ratio": st.sampled_from(["16:9", "9:16", "1:1"])}
GROUPS = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"image_tail": URLS}),
    st.fixed_dictionaries({"dynamic_masks": MASKS}, optional={"static_mask": URLS}),
    st.fixed_dictionaries({"camera_control": CAMERAS}),
)
VOICES = st.fixed_dictionaries(
    {"sound": st.just("on"), "voice_list": st.lists(st.just({"voice_id": "v"}), min_size=1, max_size=2)}
)
ELEMENTS = st.fixed_dictionaries({"element_list": st.lists(IDS, min_size=1, max_size=3)})


def _shots(lengths: list[int]) -> dict[str, Any]:
    shots = [{"index": number, "prompt": "p", "duration": str(length)} for number, length in enumerate(lengths, 1)]
    return {"multi_shot": True, "shot_type": "customize", "multi_prompt": shots, "duration": str(sum(lengths))}


STORIES = st.just({}) | st.just({"multi_shot": True, "shot_type": "intelligence"}) | SHOT_LENGTHS.map(_shots)
FRAME = {"image_url": "https://files.example/a.png", "type": "first_frame"}
OMNI_IMAGES = st.lists(st.fixed_dictionaries({"image_url": URLS}), max_size=3).map(lambda more: [FRAME, *more])
VIDEOS = st.fixed_dictionaries({"video_url": URLS}, optional={"keep_original_sound": st.sampled_from(["yes", "no"])})


def _together(required: dict[str, Any], optional: dict[str, Any], *groups: st.SearchStrategy[Any]) -> Any:
    fields = st.fixed_dictionaries(required, optional=optional)
    return st.tuples(fields, *groups).map(lambda parts: {name: part[name] for part in parts for name in part})


VALID_BODIES = {
    "image2video": _together(
        {"image": URLS}, {**COMMON, **FREE, **SOUND, "prompt": WORDS}, GROUPS, STORIES, st.just({}) | VOICES | ELEMENTS
    ),
    "multi-image2video": _together(
        {"image_list": st.lists(st.fixed_dictionaries({"image": URLS}), min_size=1, max_size=4), "prompt": WORDS},
        {**COMMON, **FREE, **RATIO, "static_mask": URLS, "dynamic_masks": MASKS},
    ),
    "text2video": _together(
        {"prompt": WORDS},
        {**COMMON, **FREE, **SOUND, **RATIO, "camera_control": CAMERAS},
        STORIES,
        st.just({}) | VOICES,
    ),
    "omni-video": _together(
        {"prompt": WORDS, **RATIO},
        {**COMMON, "image_list": OMNI_IMAGES},
        STORIES,
        st.just({}) | ELEMENTS | st.fixed_dictionaries({"video_list": st.lists(VIDEOS, min_size=1, max_size=1)}),
    ),
}
ANY_VALID = st.sampled_from(sorted(VALID_BODIES)).flatmap(lambda kind: st.tuples(st.just(kind), VALID_BODIES[kind]))


def taken(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    request = parse(kind, json.dumps(body).encode())
    own = {"callback_url": request.callback_url, "external_task_id": request.external_task_id}
    return {name: value for name, value in {**request.body, **own}.items() if value is not None}


@settings(deadline=None, max_examples=300)
@given(ANY_VALID)
def test_a_valid_body_keeps_its_meaning(drawn: tuple[str, dict[str, Any]]) -> None:
    kind, body = drawn
    assert taken(kind, body) == body
    assert set(VALID_BODIES) == set(KINDS)


@settings(deadline=None, max_examples=400)
@given(ANY_VALID, st.sampled_from(FIELDS), ODD)
def test_a_mutated_one_is_refused_or_equal(drawn: tuple[str, dict[str, Any]], name: str, odd: Any) -> None:
    """Equal: what was sent under the name arrives as it is, as nothing (blank, or no field of the kind), or in the one
    other spelling that is known for it; no other field changes."""
    kind, body = drawn
    try:
        result = taken(kind, {**body, name: odd})
    except KlingError:
        return
    place = "model_name" if name == "model" else name
    untouched = {field: value for field, value in body.items() if field != place}
    assert {field: value for field, value in result.items() if field != place} == untouched
    sent = result.get(place)
    spellings = [odd, None, False, [odd], str(odd), body.get(place) if name == "model" else None]
    number = isinstance(odd, float) and odd == int(odd)
    assert sent in spellings or (number and sent == str(int(odd)))
