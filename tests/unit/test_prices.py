"""What a task may cost at most, and the amounts that providers write."""

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kling_relay.catalogue import OverlayError, estimate, overlaid, shipped
from kling_relay.spending import MOST_UNITS, in_units, milli_units, month_of

from local.simulator.rules import units_of
from tests.unit.world import START

MODELS = shipped().models
SECONDS = [str(seconds) for seconds in range(3, 16)]


@pytest.mark.parametrize(
    ("model", "kind", "body", "milli"),
    [
        ("kling-v2-5-turbo", "image2video", {}, 1500),
        ("kling-v2-5-turbo", "image2video", {"mode": "pro", "duration": "10"}, 5000),
        ("kling-v2-6", "image2video", {"mode": "pro", "sound": "off"}, 2500),
        ("kling-v2-6", "image2video", {"mode": "pro", "sound": "on"}, 6000),
        ("kling-v3", "text2video", {"mode": "std", "sound": "on", "duration": "7"}, 6300),
        ("kling-v3", "text2video", {"mode": "4k", "duration": "15"}, 45_000),
        ("kling-video-o1", "omni-video", {}, 6000),  # pro, which is omni-video's own default
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


def test_what_is_on_no_list_is_estimated_from_the_dearest_that_is() -> None:
    """Kling's published list, per second: kling-v2-5-turbo, kling-v2-6 without a voice, kling-v3."""
    prices = {(name, mode): price for name, model in MODELS.items() for mode, price in model.units_per_second.items()}
    estimated = {(name, mode) for name, model in MODELS.items() for mode in model.units_estimated}
    listed = {key: price for key, price in prices.items() if key not in estimated}
    assert estimated < set(prices) and {name for name, _ in listed} == {"kling-v2-5-turbo", "kling-v2-6", "kling-v3"}
    for name, mode in estimated:
        in_that_mode = [price for (_, listed_mode), price in listed.items() if listed_mode.startswith(mode[:3])]
        assert prices[name, mode] >= max(in_that_mode), (name, mode)


LIVING = sorted(name for name, model in MODELS.items() if not model.retired)


@given(st.sampled_from(LIVING), st.sampled_from(["std", "pro", "4k"]), st.sampled_from(SECONDS))
def test_an_estimate_is_never_below_what_the_simulator_bills(model: str, mode: str, seconds: str) -> None:
    for sound in ("on", "off"):
        body = {"model_name": model, "mode": mode, "duration": seconds, "sound": sound}
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
    [None, "", "-1", "-0.001", "NaN", "sNaN", "Infinity", "1e999999999", "3,5", "many", "1/3", str(MOST_UNITS + 1)],
)
def test_what_is_no_amount_settles_nothing(text: str | None) -> None:
    assert milli_units(text) is None


@given(st.text(max_size=40))
def test_any_text_is_an_amount_or_none(text: str) -> None:
    found = milli_units(text)
    assert found is None or 0 <= found <= MOST_UNITS * 1000


@given(st.integers(0, 10**9))
def test_figures_for_people_are_exact(milli: int) -> None:
    assert "E" not in in_units(milli) and milli_units(in_units(milli)) == milli


def test_months_are_utc() -> None:
    assert month_of(START) == "2026-09"
    assert month_of(1_793_491_199_999) == "2026-10" and month_of(1_793_491_200_000) == "2026-11"
