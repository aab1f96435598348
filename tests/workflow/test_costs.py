"""Test the counts of the cost model against those of the stack."""

import json

from bench.usage import measure
from kling_relay_cli import REPOSITORY
from tests.workflow.driver import Driver


def test_a_video_uses_what_the_cost_model_says(driver: Driver) -> None:
    """Within a quarter and two: how many callbacks come, and which of two writers is first, is a matter of moments."""
    driver.account(render_seconds=1)  # so that no callback follows another too soon
    used = json.loads((REPOSITORY / "bench/usage.json").read_text())
    known, found = used["measured"], measure(driver.stack, used["assumed"]["queries"])
    for what in ("video", "sweep"):
        for name, number in found[what].pop("invocations").items():
            assert abs(number - known[what]["invocations"][name]) <= 1, (what, name)
        known[what].pop("invocations")
        for name, number in known[what].items():
            assert abs(found[what][name] - number) <= number / 4 + 2, (what, name, found[what])
