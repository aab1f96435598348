"""Test the waits: the start of polling, its even intervals, and the spread of retries."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from kling_relay.lifecycle.polling import backoff, poll_wait
from kling_relay.provider.models import render_p5_seconds, shipped


def test_polling_starts_when_renders_usually_finish() -> None:
    assert poll_wait(0, 45) == 45
    assert poll_wait(40, 45) == 5
    assert poll_wait(45, 45) == 10


def polls(seconds: float, p5: float) -> list[float]:
    at, times = 0.0, []
    while at < seconds:
        at += poll_wait(at, p5)
        times.append(at)
    return times


def test_polling_is_even_and_a_day_costs_a_few_hundred_polls() -> None:
    first_minutes = polls(900, 45)
    assert {later - sooner for sooner, later in pairwise(first_minutes)} == {10}
    assert len(polls(86_400, 45)) < 400
    slow = polls(900, 160)
    assert {later - sooner for sooner, later in pairwise(slow)} == {20}  # an eighth of p5


@settings(deadline=None)
@given(st.floats(0, 1e7), st.floats(0, 1e4))
def test_a_wait_is_never_nothing_but_before_the_first_poll(age: float, p5: float) -> None:
    assert poll_wait(age, p5) > 0
    assert poll_wait(age, p5) <= max(p5, 10, age / 60)


@settings(deadline=None)
@given(st.integers(-5, 10_000), st.floats(0.1, 100), st.floats(100, 1e5))
def test_backoff_stays_in_its_bounds(tries: int, first: float, maximum: float) -> None:
    assert first / 2 <= backoff(tries, first=first, maximum=maximum) <= maximum


def test_backoff_doubles_and_spreads() -> None:
    waits = [[backoff(tries, first=2, maximum=60) for _ in range(200)] for tries in range(1, 7)]
    for tries, drawn in enumerate(waits, 1):
        full = min(60, 2**tries)
        assert full / 2 <= min(drawn) < full * 0.6
        assert full * 0.9 < max(drawn) <= full


def test_the_catalogue_answers_for_every_model() -> None:
    known = shipped()
    default = known.default_render_p5_seconds
    assert render_p5_seconds(known, "a-model-of-next-year", "std", "5") == default
    assert render_p5_seconds(known, "kling-v3", "std", "14") == default
    for name, model in known.models.items():
        for kind, seconds in model.render_p5_seconds.items():
            assert render_p5_seconds(known, name, *kind.split("/")) == seconds > 0
