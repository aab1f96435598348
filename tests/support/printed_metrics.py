"""Read the metrics that functions print, like CloudWatch."""

import json

import pytest
from kling_relay.observability import DIMENSION, NAMESPACE, REASONS, UNITS, Metric


def published_metrics(capsys: pytest.CaptureFixture[str]) -> dict[str, list[float]]:
    """Return the printed metrics: name, or name/reason, -> values. Check their form."""
    values: dict[str, list[float]] = {}
    for line in capsys.readouterr().out.splitlines():
        entry = json.loads(line)
        if "_aws" not in entry:
            continue
        (directive,) = entry["_aws"]["CloudWatchMetrics"]
        (dimensions,) = directive["Dimensions"]
        assert directive["Namespace"] == NAMESPACE and isinstance(entry[DIMENSION], str)
        for metric in directive["Metrics"]:
            name = Metric(metric["Name"])
            second, reasons = REASONS.get(name, ("", ()))
            assert set(dimensions) == {DIMENSION, *([second] if second else [])}
            assert UNITS[name] == metric["Unit"]
            reason = f"/{entry[second]}" if second else ""
            assert not second or entry[second] in reasons
            values.setdefault(name + reason, []).extend(entry[name])
    return values
