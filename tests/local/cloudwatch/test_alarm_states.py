"""Test local/cloudwatch/alarm_states.py against AWS's documentation of the evaluation of alarms."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.cloudwatch import alarm_states
from local.cloudwatch.series import Series

NOW = 1_790_000_039_500  # 39.5 s into a minute
MINUTE = 60_000
LAST = NOW // MINUTE * MINUTE
TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
KEPT = "OK"  # the state before: what "ignore" retains


def points(row: str) -> list[bool | None]:
    return [{"X": True, "0": False, "-": None}[one] for one in row.split()]


@pytest.mark.parametrize(
    ("needed", "row", "states"),
    [
        (3, "0 - X - X", "OK OK OK OK"),
        (3, "0 - - - -", "OK OK OK OK"),
        (3, "- - - - -", "INSUFFICIENT_DATA OK ALARM OK"),
        (3, "0 X X - X", "ALARM ALARM ALARM ALARM"),
        (3, "- - X - -", "ALARM OK ALARM OK"),
        (2, "0 - X - X", "ALARM ALARM ALARM ALARM"),
        (2, "0 0 X 0 X", "ALARM ALARM ALARM ALARM"),
        (2, "0 - X - -", "OK OK ALARM OK"),
        (2, "- - - - 0", "OK OK ALARM OK"),
        (2, "- - - X -", "ALARM OK ALARM OK"),
    ],
)
def test_the_tables_of_awss_documentation(needed: int, row: str, states: str) -> None:
    """Configuring how CloudWatch alarms treat missing data: three evaluation periods, an evaluation range of five."""
    assert [alarm_states.decide(points(row), 3, needed, one, KEPT) for one in TREATMENTS] == states.split()


@pytest.mark.parametrize("row", ["- - - - X", "- - - X -"])
def test_one_breaching_point_that_is_still_young_rings_nothing(row: str) -> None:
    """Avoiding premature transitions to alarm state."""
    assert alarm_states.decide(points(row), 3, 3, "missing", "OK") == "OK"


ROWS = st.lists(st.sampled_from([True, False, None]), min_size=5, max_size=5)
LIMITS = st.integers(1, 3)


@given(found=ROWS, needed=LIMITS, before=st.sampled_from(["OK", "ALARM"]))
def test_with_enough_data_missing_data_does_not_matter(found: list[bool | None], needed: int, before: Any) -> None:
    real = [one for one in found if one is not None]
    states = {alarm_states.decide(found, 3, needed, one, before) for one in TREATMENTS}
    if len(real) >= 3:
        assert states == {"ALARM" if sum(real[-3:]) >= needed else "OK"}


@given(found=ROWS, needed=LIMITS, treatment=st.sampled_from(["breaching", "notBreaching"]))
def test_missing_points_count_as_they_are_treated(found: list[bool | None], needed: int, treatment: str) -> None:
    real = [one for one in found if one is not None][-3:]
    filled = real + [treatment == "breaching"] * (3 - len(real))
    assert alarm_states.decide(found, 3, needed, treatment, "OK") == ("ALARM" if sum(filled) >= needed else "OK")


@given(found=ROWS, at=st.integers(0, 4), needed=LIMITS, treatment=st.sampled_from(TREATMENTS))
def test_one_more_breaching_point_ends_no_alarm(found: list[bool | None], at: int, needed: int, treatment: str) -> None:
    worse = [True if index == at and one is False else one for index, one in enumerate(found)]
    if alarm_states.decide(found, 3, needed, treatment, "OK") == "ALARM":
        assert alarm_states.decide(worse, 3, needed, treatment, "ALARM") == "ALARM"


def store(**metrics: Series) -> Callable[..., Series]:
    """A `Read` of metrics that have a value for each of their moments."""

    def read(_: str, metric: str, __: Any, statistic: str, period_s: int, start_ms: int, end_ms: int) -> Series:
        assert start_ms % MINUTE == 0 and (end_ms - start_ms) % (period_s * 1000) == 0
        found: Series = {}
        for at, value in metrics[metric].items():
            if start_ms <= at < end_ms:
                period = at - (at - start_ms) % (period_s * 1000)
                found[period] = found.get(period, 0) + (1 if statistic == "SampleCount" else value)
        return found

    return read


PLAIN: dict[str, Any] = {
    "AlarmName": "plain",
    "Namespace": "N",
    "MetricName": "m",
    "Dimensions": [{"Name": "service", "Value": "s"}],
    "Statistic": "Sum",
    "Period": 300,
    "EvaluationPeriods": 1,
    "Threshold": 2,
    "ComparisonOperator": "GreaterThanThreshold",
    "TreatMissingData": "notBreaching",
}


def test_periods_slide_and_end_at_the_last_full_minute() -> None:
    three_and_now = {LAST - 4 * MINUTE: 1.0, LAST - MINUTE: 2.0, LAST + 1000: 100.0}
    read = store(m=three_and_now)
    assert alarm_states.points(PLAIN, read, NOW) == [None, None, 3.0]
    assert alarm_states.state(PLAIN, read, NOW) == "ALARM"
    assert alarm_states.points(PLAIN, read, NOW + MINUTE) == [None, None, 103.0]
    assert alarm_states.points(PLAIN, read, NOW + 2 * MINUTE)[-2:] == [1.0, 102.0]


def test_a_period_without_data_lets_an_older_one_decide() -> None:
    """With notBreaching as well: only where there is too little real data is anything filled in."""
    read = store(m={LAST - 7 * MINUTE: 3.0})
    assert alarm_states.points(PLAIN, read, NOW) == [None, 3.0, None]
    assert alarm_states.state(PLAIN, read, NOW) == "ALARM"
    assert alarm_states.state(PLAIN, read, NOW + 9 * MINUTE) == "OK"


@pytest.mark.parametrize(
    ("comparison", "breaching"),
    [
        ("GreaterThanThreshold", {3}),
        ("GreaterThanOrEqualToThreshold", {2, 3}),
        ("LessThanThreshold", {1}),
        ("LessThanOrEqualToThreshold", {1, 2}),
    ],
)
def test_comparisons(comparison: str, breaching: set[int]) -> None:
    alarm = {**PLAIN, "ComparisonOperator": comparison}
    found = {n for n in (1, 2, 3) if alarm_states.state(alarm, store(m={LAST - MINUTE: float(n)}), NOW) == "ALARM"}
    assert found == breaching


def test_percentiles_are_asked_for_by_name() -> None:
    asked: list[str] = []

    def read(*question: Any) -> Series:
        asked.append(question[3])
        return {}

    alarm = {key: value for key, value in PLAIN.items() if key != "Statistic"}
    assert (
        alarm_states.state({**alarm, "ExtendedStatistic": "p99", "TreatMissingData": None}, read, NOW)
        == "INSUFFICIENT_DATA"
    )
    assert asked == ["p99"]


def test_metric_math_is_judged_by_the_one_query_that_returns_data() -> None:
    def metric(name: str, **more: Any) -> dict[str, Any]:
        stat = {"Metric": {"Namespace": "N", "MetricName": name}, "Period": 300, "Stat": "Sum"}
        return {"Id": name, "MetricStat": stat, "ReturnData": False, **more}

    share = {"Id": "share", "Expression": "IF(bad >= 2, 100 * bad / (bad + FILL(good, 0)), 0)"}
    alarm = {**PLAIN, "Metrics": [metric("bad"), metric("good"), share], "Threshold": 50}
    assert alarm_states.state(alarm, store(bad={LAST - MINUTE: 2.0}, good={}), NOW) == "ALARM"
    assert alarm_states.state(alarm, store(bad={LAST - MINUTE: 2.0}, good={LAST - MINUTE: 2.0}), NOW) == "OK"
    assert alarm_states.state(alarm, store(bad={LAST - MINUTE: 1.0}, good={}), NOW) == "OK"
    assert alarm_states.state(alarm, store(bad={}, good={LAST - MINUTE: 9.0}), NOW) == "OK"


RULES = st.recursive(
    st.tuples(st.sampled_from(["ALARM", "OK", "INSUFFICIENT_DATA"]), st.sampled_from(["a-1", "b c", "d"])),
    lambda inner: st.tuples(st.sampled_from(["AND", "OR"]), inner, inner) | st.tuples(st.just("NOT"), inner),
    max_leaves=6,
)


def spelled(rule: Any) -> str:
    match rule:
        case ("NOT", inner):
            return f"NOT ({spelled(inner)})"
        case (("AND" | "OR") as word, left, right):
            return f"({spelled(left)}) {word} ({spelled(right)})"
    return f'{rule[0]}("{rule[1]}")'


def holds(rule: Any, states: dict[str, str]) -> bool:
    match rule:
        case ("NOT", inner):
            return not holds(inner, states)
        case ("AND", left, right):
            return holds(left, states) and holds(right, states)
        case ("OR", left, right):
            return holds(left, states) or holds(right, states)
    return states[rule[1]] == rule[0]


@given(rule=RULES, found=st.tuples(*[st.sampled_from(["ALARM", "OK", "INSUFFICIENT_DATA"])] * 3))
def test_rules_of_composites(rule: Any, found: tuple[str, ...]) -> None:
    states: Any = dict(zip(["a-1", "b c", "d"], found, strict=True))
    assert alarm_states.composite(spelled(rule), states) == ("ALARM" if holds(rule, states) else "OK")


def test_rules_may_do_without_quotes_and_name_arns() -> None:
    states: Any = {"a-1": "ALARM", "d": "OK"}
    rule = "ALARM(a-1) AND\n  NOT ALARM(arn:aws:cloudwatch:us-east-1:000000000000:alarm:d) OR FALSE"
    assert alarm_states.composite(rule, states) == "ALARM" and alarm_states.named_in(rule) == ["a-1", "d"]
    for wrong in ("ALARM(a-1) XOR OK(d)", "ALARM(a-1", "1 + 1", "__import__('os')"):
        with pytest.raises(ValueError):
            alarm_states.composite(wrong, states)


def test_composites_over_composites_and_who_is_told() -> None:
    quiet = {**PLAIN, "AlarmName": "quiet", "MetricName": "n"}
    inner = {"AlarmName": "inner", "AlarmRule": "ALARM(plain) OR ALARM(quiet)", "AlarmActions": ["t"]}
    outer = {
        "AlarmName": "outer",
        "AlarmRule": "ALARM(inner)",
        "AlarmActions": ["t"],
        "ActionsSuppressor": "a:alarm:quiet",
    }
    all_of_them = [outer, inner, quiet, {**PLAIN, "AlarmActions": ["t"]}]
    found = alarm_states.states(all_of_them, store(m={LAST - MINUTE: 3.0}, n={}), NOW, {})
    assert found == {"plain": "ALARM", "quiet": "OK", "inner": "ALARM", "outer": "ALARM"}
    assert {one["AlarmName"] for one in all_of_them if alarm_states.rings(one, found)} == {"plain", "inner", "outer"}
    storm = alarm_states.states(all_of_them, store(m={LAST - MINUTE: 3.0}, n={LAST - MINUTE: 3.0}), NOW, {})
    assert {one["AlarmName"] for one in all_of_them if alarm_states.rings(one, storm)} == {"plain", "inner"}
    with pytest.raises(ValueError, match="outer"):
        alarm_states.states([outer], store(), NOW, {})
