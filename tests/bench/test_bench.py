"""Test the benchmarks' own arithmetic. `make bench` runs the measurements; no test depends on a time."""

import json
import random
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import polling, scale
from bench.ratio import compared, counted, in_turn


def test_the_ratio_is_that_of_pairs_whatever_the_machine_does_between_rounds() -> None:
    dice = random.Random(1)
    load = [dice.uniform(1, 10) for _ in range(15)]
    found = compared("x", [1.2 * one for one in load], load, "ms CPU")
    assert found.ratio == pytest.approx(1.2) and found.low == pytest.approx(1.2) == found.high


def test_the_spread_grows_with_the_noise() -> None:
    dice = random.Random(1)
    noisy = compared("x", [dice.uniform(1, 2) for _ in range(15)], [1.0] * 15, "ms CPU")
    assert noisy.low < noisy.ratio < noisy.high
    assert noisy.low > 1 and noisy.high < 2


def test_cases_take_turns_in_changing_order() -> None:
    order: list[str] = []
    given = in_turn({name: lambda name=name: order.append(name) or float(len(order)) for name in "abc"}, 8)
    assert all(len(given[name]) == 8 for name in "abc")
    rounds = ["".join(order[at : at + 3]) for at in range(0, 24, 3)]
    assert {"".join(sorted(one)) for one in rounds} == {"abc"} and len(set(rounds)) > 2


@pytest.mark.parametrize(("name", "ours", "goal"), [("transitions", 6, "ours <= 6"), ("transitions", 7, "missed")])
def test_a_goal_that_is_missed_says_so(name: str, ours: float, goal: str) -> None:
    assert bench.row(counted(name, ours, 38, "states"))[-1].endswith(goal)


def test_results_are_kept_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that is run alone leaves the figures of the others."""
    monkeypatch.setattr(bench, "RESULTS", tmp_path / ".local/bench.json")
    monkeypatch.setattr(bench, "REPOSITORY", tmp_path)
    monkeypatch.setattr("sys.argv", ["bench", "polling"])
    bench.RESULTS.parent.mkdir()
    bench.RESULTS.write_text('{"archive_raw": {"ours": 1}}')
    monkeypatch.setattr(polling, "measure", lambda: iter([counted("polling", 3, 4, "queries")]))
    bench.main()
    assert json.loads(bench.RESULTS.read_text()) == {
        "archive_raw": {"ours": 1},
        "polling": {"ours": 3, "reference": 4, "ratio": 0.75, "unit": "queries"},
    }


def test_the_schedule_keeps_its_goal() -> None:
    """Simulated, so the same everywhere."""
    found = {one.name: one for one in polling.measure()}
    assert found["polling"].ratio == max(one.ratio for one in found.values()) <= 0.85


def test_a_page_and_a_query_read_as_much_among_a_million() -> None:
    assert scale._read(1_000_000) == scale._read(10) == {"page": 2, "query": 1}
