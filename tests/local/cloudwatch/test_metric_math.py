"""Test local/cloudwatch/metric_math.py: CloudWatch's metric math."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.cloudwatch.metric_math import ExpressionError, evaluate
from local.cloudwatch.series import Series

MINUTE = 60_000
VALUES: dict[str, Series] = {"a": {0: 1.0, MINUTE: 2.0}, "b": {0: 4.0, 2 * MINUTE: 0.0}, "none": {}}


def math(expression: str, values: dict[str, Series] = VALUES, **others: str) -> Series:
    queries: list[dict[str, Any]] = [
        {"Id": name, "MetricStat": {"Metric": {"Namespace": "N", "MetricName": name}, "Period": 60, "Stat": "Sum"}}
        for name in values
    ]
    queries += [{"Id": name, "Expression": text} for name, text in {**others, "e": expression}.items()]
    return evaluate(queries, lambda _, metric, *__: values[metric], 0, 3 * MINUTE)["e"]


@pytest.mark.parametrize(
    ("expression", "series"),
    [
        ("a", {0: 1, MINUTE: 2}),
        ("a + b", {0: 5}),
        ("-a * 2 - 1", {0: -3, MINUTE: -5}),
        ("a / b", {0: 0.25}),
        ("1 / b", {0: 0.25}),
        ("a > 1", {0: 0, MINUTE: 1}),
        ("a == 1 OR a >= 2", {0: 1, MINUTE: 1}),
        ("a >= 1 && a < 2", {0: 1, MINUTE: 0}),
        ("FILL(a, 0) + FILL(none, 7)", {0: 8, MINUTE: 9, 2 * MINUTE: 7}),
        ("SUM([a, b])", {0: 5, MINUTE: 2, 2 * MINUTE: 0}),
        ("MAX([a, b, none])", {0: 4, MINUTE: 2, 2 * MINUTE: 0}),
        ("AVG(METRICS())", {0: 2.5, MINUTE: 2, 2 * MINUTE: 0}),
        ("MIN(FILL([a, b], 3))", {0: 1, MINUTE: 2, 2 * MINUTE: 0}),
        ("a * MAX(b)", {0: 4, MINUTE: 8}),
        ("IF(a > 1, a, 0)", {0: 0, MINUTE: 2}),
        ("IF(a > 1, 5)", {MINUTE: 5}),
        ("IF(a > 0, b, a)", {0: 4}),
        ("IF(SUM(b) > 3, a, b)", {0: 1, MINUTE: 2}),
        ("IF(none > 1, 1, 0)", {}),
        ("doubled + a", {0: 3, MINUTE: 6}),
    ],
)
def test_expressions(expression: str, series: Series) -> None:
    assert math(expression, doubled="a * 2") == series


@pytest.mark.parametrize(
    "expression",
    [
        "a +",
        "c + 1",
        "e",
        "5",
        "SUM(a)",
        "RATE(a)",
        "IF([a], 1, 0)",
        "FILL(a)",
        "a if b else a",
        "a.b",
        "'a'",
        "a < b < a",
        "1 / 0",
    ],
)
def test_what_cloudwatch_or_this_module_does_not_know_is_refused(expression: str) -> None:
    with pytest.raises(ExpressionError):
        math(expression)


SERIES = st.dictionaries(st.sampled_from([0, MINUTE, 2 * MINUTE]), st.integers(-5, 5).map(float))
FORMULAS = st.recursive(
    st.sampled_from(["a", "b", "2", "0.5"]),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda three: f"({' '.join(three)})"),
    max_leaves=6,
)


@given(formula=FORMULAS, a=SERIES, b=SERIES)
def test_arithmetic_is_that_of_each_moment(formula: str, a: Series, b: Series) -> None:
    """A moment has a value exactly where each series of the formula has one and nothing is divided by zero."""
    expected = {}
    for at in (0, MINUTE, 2 * MINUTE):
        known = {name: series[at] for name, series in (("a", a), ("b", b)) if at in series}
        try:
            expected[at] = float(eval(formula, {}, known))
        except (NameError, ZeroDivisionError):
            continue
    names = {name for name in "ab" if name in formula}
    if names:
        try:
            assert math(formula, {"a": a, "b": b}) == pytest.approx(expected)
        except ExpressionError:
            assert "/" in formula  # by zero, made of the formula's own numbers


@given(a=SERIES, b=SERIES)
def test_filled_series_are_added_everywhere(a: Series, b: Series) -> None:
    filled = math("FILL(a, 0) + FILL(b, 0)", {"a": a, "b": b})
    assert filled == {at: a.get(at, 0) + b.get(at, 0) for at in (0, MINUTE, 2 * MINUTE)}
    assert {at: filled[at] for at in {*a, *b}} == math("SUM([a, b])", {"a": a, "b": b})
