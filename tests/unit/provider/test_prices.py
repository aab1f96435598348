"""Test the maximum cost of a task, and the amounts in provider answers."""

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kling_relay.provider.models import OverlayError, estimate, overlaid, shipped
from kling_relay.tasks.spend_cap import MAX_UNITS, in_units, milli_units, month_of

from local.simulator.rules import units_of
from tests.support.stack_in_memory import START

MODELS = shipped().models
SECONDS = [str(seconds) for seconds in range(3, 16)]


@pytest.mark.parametrize(
    ("model", "kind", "body", "milli"),
    [
        ("kling-v2-5-turbo", "image2video", {}, 1500),
        ("kling-v2-5-turbo", "image2video", {"mode": "pro", "duration": "10"}, 5000),
        ("kling-v2-6", "image2video", {"mode": "pro", "sound": "off"}, 2500),
        ("kling-v2-6", "image2video", {"mode": "pro", "sound": "on"}, 5000),
        ("kling-v2-6", "image2video", {"mode": "pro", "sound": "on", "voice_list": [{"voice_id": "v"}]}, 6000),
        ("kling-v3", "image2video", {"mode": "pro", "sound": "on", "voice_list": [{"voice_id": "v"}]}, 7000),
        ("kling-v3", "image2video", {"mode": "pro", "voice_list": []}, 4000),
        ("kling-v3", "text2video", {"mode": "std", "sound": "on", "duration": "7"}, 6300),
        ("kling-v3", "text2video", {"mode": "4k", "duration": "15"}, 45_000),
        ("kling-video-o1", "omni-video", {}, 4000),  # pro, which is omni-video's own default
        ("kling-v3-omni", "omni-video", {"mode": "std", "duration": "10"}, 6000),
        ("kling-v3-omni", "omni-video", {"sound": "on"}, 5000),
        ("kling-v3-omni", "omni-video", {"mode": "std", "video_list": [{"refer_type": "feature"}]}, 4500),
        ("kling-v3-omni", "omni-video", {"mode": "4k", "video_list": [{"refer_type": "feature"}]}, 15_000),
        ("kling-v2-6", "omni-video", {"video_list": [{"refer_type": "feature"}]}, 15_000),  # no such price
        ("kling-video-o1", "omni-video", {"video_list": [{"video_url": "u", "refer_type": "feature"}]}, 6000),
        ("kling-video-o1", "omni-video", {"video_list": [{"video_url": "u"}]}, 18_000),  # as long as what it edits
        ("kling-v2-1-master", "image2video", {"sound": "on"}, 15_000),  # no price with sound: the default
        ("kling-v9", "image2video", {}, 15_000),
    ],
)
def test_estimates(model: str, kind: str, body: dict[str, Any], milli: int) -> None:
    assert estimate(shipped(), model, kind, body) == milli


def test_every_living_model_has_prices_and_the_default_is_the_highest() -> None:
    for name, model in MODELS.items():
        if model.kinds and not model.retired:
            assert set(model.modes) <= set(model.units_per_second), name
    highest = max(price for model in MODELS.values() for price in model.units_per_second.values())
    assert shipped().default_units_per_second == highest


PUBLISHED = {
    ("kling-v3", "std"): 0.6, ("kling-v3", "pro"): 0.8, ("kling-v3", "4k"): 3.0,
    ("kling-v3", "std/sound"): 0.9, ("kling-v3", "pro/sound"): 1.2, ("kling-v3", "4k/sound"): 3.0,
    ("kling-v3-omni", "std"): 0.6, ("kling-v3-omni", "pro"): 0.8, ("kling-v3-omni", "4k"): 3.0,
    ("kling-v3-omni", "std/sound"): 0.8, ("kling-v3-omni", "pro/sound"): 1.0, ("kling-v3-omni", "4k/sound"): 3.0,
    ("kling-v3-omni", "std/video"): 0.9, ("kling-v3-omni", "pro/video"): 1.2, ("kling-v3-omni", "4k/video"): 3.0,
    ("kling-3.0-turbo", "std"): 0.8, ("kling-3.0-turbo", "pro"): 1.0,
    ("kling-3.0-turbo", "std/sound"): 0.8, ("kling-3.0-turbo", "pro/sound"): 1.0,
    ("kling-video-o1", "std"): 0.6, ("kling-video-o1", "pro"): 0.8,
    ("kling-video-o1", "std/video"): 0.9, ("kling-video-o1", "pro/video"): 1.2,
    ("kling-v2-6", "std"): 0.3, ("kling-v2-6", "pro"): 0.5,
    ("kling-v2-6", "pro/sound"): 1.0, ("kling-v2-6", "pro/voice"): 1.2,
    ("kling-v2-5-turbo", "std"): 0.3, ("kling-v2-5-turbo", "pro"): 0.5,
}  # fmt: skip
"""Capture of Kling's pricing page, September 2026: units a second. "kling-video-o1" is o1 and "kling-v3-omni" 3.0-omni
there: our reading of its names."""


def test_listed_prices_are_the_published_ones_and_every_price_names_its_source() -> None:
    listed = {}
    for name, model in MODELS.items():
        assert model.units_source in shipped().price_sources and set(model.units_estimated) <= set(
            model.units_per_second
        )
        if model.units_source != "estimate":
            prices = model.units_per_second.items()
            listed |= {(name, priced): price for priced, price in prices if priced not in model.units_estimated}
    assert listed == PUBLISHED and "estimate" in shipped().price_sources


def test_what_is_on_no_list_is_estimated_from_the_dearest_that_is() -> None:
    for name, model in MODELS.items():
        for priced, price in model.units_per_second.items():
            mode = priced.partition("/")[0]
            if (name, priced) not in PUBLISHED:
                assert priced in model.units_estimated, (name, priced)
                assert price >= max(one for (_, other), one in PUBLISHED.items() if other.startswith(mode)), name


LIVING = sorted(name for name, model in MODELS.items() if not model.retired)


@given(st.sampled_from(LIVING), st.sampled_from(["std", "pro", "4k"]), st.sampled_from(SECONDS))
def test_an_estimate_is_never_below_what_the_simulator_bills(model: str, mode: str, seconds: str) -> None:
    voice, video = {"voice_list": [{"voice_id": "v"}]}, {"video_list": [{"refer_type": "feature"}]}
    for asked in ({"sound": "off"}, {"sound": "on"}, {"sound": "on", **voice}, video):
        body = {"model_name": model, "mode": mode, "duration": seconds, **asked}
        assert estimate(shipped(), model, "image2video", body) >= Fraction(units_of("image2video", body)) * 1000


@given(st.decimals("0.0001", "100", places=4), st.sampled_from(SECONDS))
def test_an_estimate_is_rounded_up_and_by_less_than_one(price: Any, seconds: str) -> None:
    known = overlaid(json.dumps({"models": {"new": {"units_per_second": {"std": float(price)}}}}))
    exact = Fraction(price) * 1000 * int(seconds)
    found = estimate(known, "new", "image2video", {"mode": "std", "duration": seconds})
    assert type(found) is int and 0 <= found - exact < 1


def test_the_operators_overlay_covers_prices() -> None:
    patch = {"default_units_per_second": 9, "models": {"kling-v3": {"units_per_second": {"std": 0.0001, "pro": None}}}}
    known = overlaid(json.dumps(patch))
    assert estimate(known, "kling-v3", "image2video", {}) == 1
    assert estimate(known, "kling-v3", "image2video", {"mode": "pro"}) == 45_000
    assert estimate(known, "kling-v3", "image2video", {"mode": "4k"}) == 15_000


@pytest.mark.parametrize("prices", [{"std": 0}, {"std": -1}, {"std": 101}, {"std": "1"}, {"8k": 1}, {"std/5": 1}, []])
def test_prices_that_are_none(prices: Any) -> None:
    with pytest.raises(OverlayError, match="units_per_second"):
        overlaid(json.dumps({"models": {"kling-v3": {"units_per_second": prices}}}))
    with pytest.raises(OverlayError, match="default_units_per_second"):
        overlaid(json.dumps({"default_units_per_second": None}))


@pytest.mark.parametrize(
    ("text", "milli"),
    [("3.5", 3500), ("0", 0), ("10", 10_000), ("0.0001", 1), (" 2 ", 2000), ("1e-30", 1), ("1E+2", 100_000)],
)
def test_amounts(text: str, milli: int) -> None:
    assert milli_units(text) == milli


@pytest.mark.parametrize(
    "text",
    [None, "", "-1", "-0.001", "NaN", "sNaN", "Infinity", "1e999999999", "3,5", "many", "1/3", str(MAX_UNITS + 1)],
)
def test_what_is_no_amount_settles_nothing(text: str | None) -> None:
    assert milli_units(text) is None


@given(st.text(max_size=40))
def test_any_text_is_an_amount_or_none(text: str) -> None:
    found = milli_units(text)
    assert found is None or 0 <= found <= MAX_UNITS * 1000


@given(st.integers(0, 10**9))
def test_figures_for_people_are_exact(milli: int) -> None:
    assert "E" not in in_units(milli) and milli_units(in_units(milli)) == milli


def test_months_are_utc() -> None:
    assert month_of(START) == "2026-09"
    assert month_of(1_793_491_199_999) == "2026-10" and month_of(1_793_491_200_000) == "2026-11"
