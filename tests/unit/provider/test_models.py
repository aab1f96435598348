"""Test the models' features, row by row of the official capability map; unknown values; the operator's overlay."""

import json
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kling_relay.errors import KlingError
from kling_relay.kinds.fields import KINDS
from kling_relay.provider.models import (
    Catalogue,
    OverlayError,
    check,
    check_retired,
    overlaid,
    render_p5_seconds,
    shipped,
)

IMAGE = {"image": "https://files.example/a.png"}
TAIL = {**IMAGE, "image_tail": "https://files.example/b.png"}
TAIL_ONLY = {"image_tail": "https://files.example/b.png"}
BRUSH = {**IMAGE, "static_mask": "https://files.example/m.png"}
SIMPLE = {"camera_control": {"type": "simple", "config": {"pan": 1}}}
PRESET = {"camera_control": {"type": "down_back"}}
SOUND = {**IMAGE, "sound": "on"}
SHOTS = {**IMAGE, "multi_shot": True, "shot_type": "intelligence"}
VOICE = {**IMAGE, "sound": "on", "voice_list": [{"voice_id": "v"}]}
ELEMENTS = {**IMAGE, "element_list": [{"element_id": 1}]}
FRAME = {"image_url": "u", "type": "first_frame"}
ALL_FIVE_TEN = "std/5 std/10 pro/5 pro/10"
ALL_V3 = " ".join(f"{mode}/{seconds}" for mode in ("std", "pro", "4k") for seconds in range(3, 16))
NONE = ""
EVERY = [f"{mode}/{seconds}" for mode in ("std", "pro", "4k") for seconds in range(3, 16)]
I2V, T2V, OMNI, MULTI = "image2video", "text2video", "omni-video", "multi-image2video"

# model, kind, body, where it works
ROWS: list[tuple[str, str, dict[str, Any], str]] = [
    ("kling-v1", I2V, IMAGE, ALL_FIVE_TEN),
    ("kling-v1", I2V, TAIL, "std/5 pro/5"),
    ("kling-v1", I2V, TAIL_ONLY, NONE),
    ("kling-v1", I2V, BRUSH, "std/5 pro/5"),
    ("kling-v1", I2V, {**IMAGE, **SIMPLE}, NONE),
    ("kling-v1", T2V, SIMPLE, "std/5"),
    ("kling-v1", T2V, PRESET, "std/5"),
    ("kling-v1", I2V, SOUND, NONE),
    ("kling-v1-5", I2V, IMAGE, ALL_FIVE_TEN),
    ("kling-v1-5", I2V, TAIL, "std/5 pro/5 pro/10"),  # std/5: YutoAI's sample
    ("kling-v1-5", I2V, TAIL_ONLY, "pro/5 pro/10"),
    ("kling-v1-5", I2V, BRUSH, "pro/5"),
    ("kling-v1-5", I2V, {**IMAGE, **SIMPLE}, "pro/5"),
    ("kling-v1-5", I2V, {**IMAGE, **PRESET}, NONE),
    ("kling-v1-6", I2V, TAIL, "std/5 pro/5 pro/10"),
    ("kling-v1-6", I2V, TAIL_ONLY, "pro/5 pro/10"),
    ("kling-v1-6", I2V, BRUSH, NONE),
    ("kling-v1-6", MULTI, {}, ALL_FIVE_TEN),
    ("kling-v1-6", T2V, {}, ALL_FIVE_TEN),
    ("kling-v2-master", I2V, IMAGE, ALL_FIVE_TEN),
    ("kling-v2-master", I2V, TAIL, NONE),
    ("kling-v2-1", I2V, TAIL, "pro/5 pro/10"),
    ("kling-v2-1", I2V, TAIL_ONLY, NONE),
    ("kling-v2-1-master", I2V, {**TAIL_ONLY, **SHOTS, **VOICE, **ELEMENTS}, ALL_V3.split(" 4k")[0]),  # PowerTokens
    ("kling-v2-5-turbo", I2V, IMAGE, ALL_FIVE_TEN),
    ("kling-v2-5-turbo", I2V, TAIL, "pro/5 pro/10"),
    ("kling-v2-5-turbo", I2V, SOUND, NONE),
    ("kling-v2-5-turbo", I2V, SHOTS, NONE),
    ("kling-v2-6", I2V, IMAGE, ALL_FIVE_TEN),  # Kling's capability map of 2026-05-19; it had 3 to 10 s here before
    ("kling-v2-6", I2V, TAIL, "pro/5 pro/10"),
    ("kling-v2-6", I2V, SOUND, "pro/5 pro/10"),
    ("kling-v2-6", T2V, {"sound": "on"}, "pro/5 pro/10"),
    ("kling-v2-6", I2V, VOICE, "pro/5 pro/10"),
    ("kling-v2-6", I2V, {**TAIL, "sound": "on"}, NONE),
    ("kling-v2-6", I2V, SHOTS, NONE),
    ("kling-v2-6", I2V, ELEMENTS, NONE),
    ("kling-v3", I2V, IMAGE, ALL_V3),
    ("kling-v3", I2V, TAIL, ALL_V3),
    ("kling-v3", I2V, TAIL_ONLY, NONE),
    ("kling-v3", I2V, BRUSH, NONE),
    ("kling-v3", I2V, {**IMAGE, **SIMPLE}, ALL_V3.split(" 4k")[0]),
    ("kling-v3", I2V, {**SHOTS, **VOICE}, ALL_V3),
    ("kling-v3", I2V, ELEMENTS, ALL_V3),
    ("kling-v3", T2V, {}, ALL_V3),
    ("kling-v3-omni", OMNI, {}, ALL_V3),
    ("kling-v3-omni", OMNI, {"image_list": [FRAME, {"image_url": "u"}, {"image_url": "u"}], "sound": "on"}, ALL_V3),
    ("kling-video-o1", OMNI, {}, ALL_FIVE_TEN),
    ("kling-video-o1", OMNI, {"image_list": [FRAME]}, ALL_FIVE_TEN),
    ("kling-video-o1", OMNI, {"image_list": [FRAME, {"image_url": "u"}, {"image_url": "u"}]}, NONE),
    (
        "kling-video-o1",
        OMNI,
        {"image_list": [{"image_url": "u"}]},
        " ".join(f"{mode}/{seconds}" for mode in ("std", "pro") for seconds in range(3, 11)),
    ),
    ("kling-video-o1", OMNI, {"sound": "on", "video_list": [{}]}, NONE),
    ("kling-video-o1", OMNI, {"multi_shot": True, "video_list": [{}]}, NONE),
]


def works(known: Catalogue, model: str, kind: str, body: dict[str, Any]) -> bool:
    try:
        check(known, model, kind, body)
    except KlingError as error:
        assert (error.code, error.http) == (1201, 400)
        mode, seconds = body["mode"], body["duration"]
        assert error.message.startswith(f"model/mode/duration({model}/{mode}/{seconds}) is not supported")
        assert len(error.message) < 300
        return False
    return True


@pytest.mark.parametrize(("model", "kind", "body", "where"), ROWS)
def test_a_row_of_the_table(model: str, kind: str, body: dict[str, Any], where: str) -> None:
    asked = {combination: dict(zip(("mode", "duration"), combination.split("/"), strict=True)) for combination in EVERY}
    worked = {combination for combination in EVERY if works(shipped(), model, kind, {**body, **asked[combination]})}
    assert worked == set(where.split())


def test_klings_own_words() -> None:
    with pytest.raises(KlingError) as caught:
        check(shipped(), "kling-v2-5-turbo", I2V, TAIL)
    begins = "model/mode/duration(kling-v2-5-turbo/std/5) is not supported with image_tail"
    assert caught.value.message == f"{begins}; kling-v2-5-turbo supports it with pro/*"
    with pytest.raises(KlingError) as caught:
        check(shipped(), "kling-v3", T2V, {"mode": "4k", "duration": "2"})
    assert (
        "(kling-v3/4k/2) is not supported; kling-v3 supports std (3 to 15 s), pro (3 to 15 s)" in caught.value.message
    )
    with pytest.raises(KlingError, match=r'\(kling-v2-6/pro/5\) is not supported with image_tail and sound "on" toge'):
        check(shipped(), "kling-v2-6", I2V, {**TAIL, "mode": "pro", "sound": "on"})


def test_the_default_mode_of_omni_video_is_pro() -> None:
    with pytest.raises(KlingError, match=r"\(kling-video-o1/pro/11\)"):
        check(shipped(), "kling-video-o1", OMNI, {"duration": "11"})


@pytest.mark.parametrize("model", [*shipped().models, "a-model-of-next-year"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_uses_nothing_is_never_refused(model: str, kind: str) -> None:
    """What clients send by default, with and without the fields that mean off."""
    body = {
        "sound": "off",
        "multi_shot": False,
        "watermark_info": {"enabled": False},
        "cfg_scale": 0.5,
        "duration": "5",
    }
    dropped, notes = check(shipped(), model, kind, {**body, **IMAGE})
    known = shipped().models.get(model)
    listed = known is not None and kind in known.kinds
    assert dropped == (["cfg_scale"] if listed and model.startswith("kling-v2") else [])
    assert bool(dropped) == any("cfg_scale is not supported by" in note for note in notes)
    assert listed != any("; not checked" in note for note in notes)
    assert (known is not None and known.retired is not None) == any("retired on 2026-09-15" in note for note in notes)


@pytest.mark.parametrize("body", [TAIL, BRUSH, SOUND, SHOTS, {"mode": "4k", "duration": "15"}])
def test_the_unknown_passes_with_a_note(body: dict[str, Any]) -> None:
    assert check(shipped(), "kling-v9" * 99, I2V, body)[0] == []
    assert check(shipped(), "kling-v3-omni", MULTI, body) == (
        [],
        ["kling-v3-omni is not listed for multi-image2video; not checked"],
    )
    (note,) = check(shipped(), "m" * 128, I2V, body)[1]
    assert len(note) < 130


def test_the_shipped_data_is_sound() -> None:
    kinds = {kind for model in shipped().models.values() for kind in model.kinds}
    assert kinds == set(KINDS)
    for name, model in shipped().models.items():
        durations = {f"{mode}/{seconds}" for mode, every in model.modes.items() for seconds in every}
        assert set(model.render_p5_seconds) <= durations, name
    assert {name for name, model in shipped().models.items() if model.retired} == {
        *("kling-v1", "kling-v1-5", "kling-v1-6", "kling-v2-master", "kling-v2-1", "kling-v2-1-master")
    }


# -- retired models

RETIRED = sorted(name for name, model in shipped().models.items() if model.retired)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", RETIRED)
def test_a_retired_model_is_refused_in_words_that_name_another(model: str, kind: str) -> None:
    with pytest.raises(KlingError) as caught:
        check_retired(shipped(), model, kind, named=True)
    assert (caught.value.code, caught.value.http) == (1201, 400)
    said = caught.value.message
    assert said.startswith(f"model_name: {model} was discontinued by Kling on 2026-09-15; use ")
    named = {name for name in shipped().models if name in said.partition("; use ")[2]}
    assert named and not named & set(RETIRED)


def test_a_retired_default_is_refused_as_one() -> None:
    with pytest.raises(KlingError) as caught:
        check_retired(shipped(), "kling-v1-6", MULTI, named=False)
    assert caught.value.message == (
        "model_name: is required, because kling-v1-6, the default of multi-image2video, was discontinued by Kling on "
        "2026-09-15; use omni-video with image_list and kling-v3-omni or kling-video-o1"
    )


@pytest.mark.parametrize("model", [*sorted(set(shipped().models) - set(RETIRED)), "kling-v9", ""])
def test_a_model_that_is_not_known_to_be_gone_passes(model: str) -> None:
    for kind in KINDS:
        check_retired(shipped(), model, kind, named=True)


def test_an_overlay_retires_models_and_brings_them_back() -> None:
    patch = {"models": {"kling-v2-6": {"retired": "2027-01-31"}, "kling-v1": {"retired": None}}, "use_instead": None}
    known = overlaid(json.dumps(patch))
    check_retired(known, "kling-v1", I2V, named=True)
    with pytest.raises(KlingError) as caught:
        check_retired(known, "kling-v2-6", I2V, named=True)
    assert caught.value.message == "model_name: kling-v2-6 was discontinued by Kling on 2027-01-31"


# -- the overlay


def test_an_overlay_adds_changes_and_takes_away() -> None:
    patch = {
        "models": {
            "kling-v4": {"kinds": [I2V], "modes": {"std": [5]}, "render_p5_seconds": {"std/5": 7}},
            "kling-v2-5-turbo": {"features": {"image_tail": ["*"]}},
            "kling-v1": None,
        },
        "default_render_p5_seconds": 9,
    }
    known = overlaid(json.dumps(patch))
    assert works(known, "kling-v4", I2V, {"mode": "std", "duration": "5"})
    assert not works(known, "kling-v4", I2V, {"mode": "pro", "duration": "5"})
    assert works(known, "kling-v2-5-turbo", I2V, {**TAIL, "mode": "std", "duration": "5"})
    assert not works(known, "kling-v2-5-turbo", I2V, {**SOUND, "mode": "std", "duration": "5"}), "the rest stays"
    assert "kling-v1" not in known.models and "kling-v1" in shipped().models
    assert render_p5_seconds(known, "kling-v4", "std", "5") == 7
    assert render_p5_seconds(known, "nobody", "std", "5") == 9
    assert overlaid("{}") == shipped()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Input data was truncated"),
        ("{", "truncated"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('{"model": {}}', "unknown field `model`"),
        ('{"models": 5}', r"\$.models"),
        ('{"models": null}', "missing required field `models`"),
        ('{"models": {"m": {"kinds": ["image3video"]}}}', r"image3video.*kinds"),
        ('{"models": {"m": {"modes": {"fast": [5]}}}}', "fast"),
        ('{"models": {"m": {"modes": {"std": ["5"]}}}}', "Expected `int`"),
        ('{"models": {"m": {"modes": {"std": [0]}}}}', ">= 1"),
        ('{"models": {"m": {"features": {"wings": ["*"]}}}}', "wings"),
        ('{"models": {"m": {"drops": ["image"]}}}', "image"),
        ('{"models": {"m": {"retired": "soon"}}}', "retired"),
        ('{"models": {"m": {"render_p5_seconds": {"std/5": -1}}}}', "render_p5_seconds"),
        ('{"default_render_p5_seconds": "x"}', "default_render_p5_seconds"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_broken_overlay_says_where(text: str, reason: str) -> None:
    with pytest.raises(OverlayError, match=reason):
        overlaid(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["models", "kling-v3", "modes", "std", "features", "kinds", "x"]), inner)
    ),
)


@settings(deadline=None, max_examples=200)
@given(st.text() | JSON.map(json.dumps))
@pytest.mark.slow
def test_any_overlay_is_taken_or_refused(text: str) -> None:
    try:
        assert overlaid(text).models is not None
    except OverlayError as error:
        assert str(error)


class Parameters:
    """SSM with one parameter, or with trouble."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.calls = answer, 0

    def get_parameter(self, **asked: str) -> dict[str, Any]:
        self.calls += 1
        assert asked == {"Name": "/s/models"}
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"Parameter": {"Value": self.answer}}


@pytest.mark.parametrize("reported", [True, False])
def test_the_relay_reads_it_once_in_a_while(reported: bool, monkeypatch: Any, caplog: pytest.LogCaptureFixture) -> None:
    from kling_relay.services import Services
    from kling_relay.settings import Settings

    parameters = Parameters("{broken" if reported else '{"models": {"kling-v9": {"kinds": []}}}')
    services = Services(Settings(models_parameter="/s/models"))
    monkeypatch.setattr(services, "client", lambda service, config: parameters)
    with caplog.at_level(logging.ERROR, logger="kling-relay"):
        known = services.catalogue
    assert services.catalogue is known and parameters.calls == 1
    assert (known is shipped()) == reported == ("models_overlay_ignored" in caplog.text)
    assert reported or "kling-v9" in known.models
    services._catalogue._seconds = -1
    assert services.catalogue == known and parameters.calls == 2


def test_without_a_parameter_nobody_is_asked_and_trouble_takes_nothing_down(
    monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from botocore.exceptions import ConnectTimeoutError
    from kling_relay.services import Services
    from kling_relay.settings import Settings

    from tests.support.stack_in_memory import client_error

    assert Services(Settings()).catalogue is shipped()
    for trouble, is_reported in (
        (client_error("ParameterNotFound"), False),
        (client_error("AccessDeniedException"), True),
        (client_error("ThrottlingException"), True),
        (ConnectTimeoutError(endpoint_url="https://ssm"), True),
    ):
        caplog.clear()
        services = Services(Settings(models_parameter="/s/models"))
        parameters = Parameters(trouble)
        monkeypatch.setattr(services, "client", lambda service, config, found=parameters: found)
        assert services.catalogue is shipped()
        assert ("models_overlay_ignored" in caplog.text) == is_reported
