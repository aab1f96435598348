"""Compute a stack's costs: dollars per 1,000 videos by part, per idle month, and for waiting versus a polling loop.

    python -m bench.costs             write the tables into docs/costs.md
    python -m bench.costs --measure   first count the usage on the local stack (bench/usage.py), which takes a minute

Prices are in `prices.json`, counts and assumptions in `usage.json`. Alarms, secrets and memory sizes are read from the
template.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from bench import usage
from kling_relay_cli import REPOSITORY
from local.stack.deploy_template import load_template
from local.stack.expand_template import transformed
from local.stack.stack import Options, Stack

_DOCUMENT, _USAGE = REPOSITORY / "docs/costs.md", REPOSITORY / "bench/usage.json"
_LISTED = json.loads((REPOSITORY / "bench/prices.json").read_text())["prices"]
_PRICES: dict[str, float] = {name: row["usd"] for name, row in _LISTED.items()}
_FREE: dict[str, float] = {name: row.get("free", 0) for name, row in _LISTED.items()}
_SWEEPS = 43_800  # minutes in a month
_VIDEOS = 1000
_GB = 1e9
_RENDERS = (120, 300)  # seconds
_POLL_SECONDS = 10

Lines = list[tuple[str, float, str]]
"""Each billed item: its name, its quantity, and the name of its price."""


def per_video(used: dict[str, Any], memory: dict[str, float]) -> Lines:
    """Return the billed items of one video. Its client sends an image inline and downloads the video `views` times."""
    video, assumed = used["measured"]["video"], used["assumed"]
    calls = video["invocations"]
    requests = calls["TaskApiFunction"] + calls["KlingCallbackFunction"]
    straggling = assumed["lost_callbacks"] * assumed["polls_without_callback"]
    megabytes = assumed["video_mb"] + assumed["image_mb"]
    return [
        ("API Gateway: requests of the client, callbacks", requests, "api_request"),
        ("Lambda: requests", sum(calls.values()) + straggling, "lambda_request"),
        ("Lambda: GB-seconds", _gb_seconds(calls, assumed, memory), "lambda_gb_second"),
        (
            "Step Functions: transitions",
            video["transitions"] + straggling * assumed["states_of_a_poll"],
            "state_transition",
        ),
        ("DynamoDB: write units", video["write_units"], "write_unit"),
        ("DynamoDB: read units", video["read_units"], "read_unit"),
        ("S3: writes", video["s3_writes"], "s3_write"),
        ("S3: reads", video["s3_reads"] + assumed["views"], "s3_read"),
        ("S3: GB stored for a month", megabytes / 1000, "s3_gb_month"),
        ("EventBridge: events", video["events"], "event"),
        ("CloudWatch: GB of logs, metrics within", video["log_bytes"] / _GB, "log_gb"),
        ("X-Ray: traces, were none sampled away", sum(calls.values()), "trace"),
        ("CloudFront: requests", assumed["views"], "edge_request"),
        ("CloudFront: GB of video", assumed["views"] * assumed["video_mb"] / 1000, "edge_gb"),
        ("Data transfer: GB of images to the provider, and of answers", _sent_gb(assumed, requests), "transfer_gb"),
    ]


def per_idle_month(used: dict[str, Any], memory: dict[str, float], template: dict[str, Any]) -> Lines:
    sweep, assumed = used["measured"]["sweep"], used["assumed"]
    alarms, composites, dashboards, secrets = _watching(template)
    return [
        ("Lambda: requests of the sweeper", _SWEEPS, "lambda_request"),
        (
            "Lambda: GB-seconds of the sweeper",
            _SWEEPS * _gb_seconds(sweep["invocations"], assumed, memory),
            "lambda_gb_second",
        ),
        ("DynamoDB: read units of the sweeper", _SWEEPS * sweep["read_units"], "read_unit"),
        ("SQS: long polls of the intake's queue", assumed["queue_polls_a_month"], "queue_request"),
        ("CloudWatch: GB of logs", _SWEEPS * sweep["log_bytes"] / _GB, "log_gb"),
        ("CloudWatch: series that an idle stack writes", assumed["idle_series"], "metric_month"),
        ("CloudWatch: metrics of alarms", alarms, "alarm_metric_month"),
        ("CloudWatch: composite alarms", composites, "composite_alarm_month"),
        ("CloudWatch: dashboards", dashboards, "dashboard_month"),
        ("X-Ray: traces", _SWEEPS, "trace"),
        ("Secrets Manager: secrets, the delivery key among them", secrets, "secret_month"),
    ]


def waiting(used: dict[str, Any], memory: dict[str, float], render_seconds: float) -> dict[str, float]:
    """Return the dollars for the waiting of 1,000 videos.

    Ours, and that of a loop of Wait, Lambda and Choice every ten seconds.
    """
    ours = per_video(used, memory)
    transitions = next(quantity for what, quantity, _ in ours if what.startswith("Step Functions"))
    polls = render_seconds / _POLL_SECONDS
    query = _gb_seconds({"AdvanceTaskFunction": 1}, used["assumed"], memory) * _PRICES["lambda_gb_second"]
    each = 3 * _PRICES["state_transition"] + _PRICES["lambda_request"] + query
    fixed = 2 * _PRICES["state_transition"]  # one start and one end
    return {"ours": _VIDEOS * transitions * _PRICES["state_transition"], "polling": _VIDEOS * (fixed + polls * each)}


def memory_of(template: dict[str, Any]) -> dict[str, float]:
    """Return the memory of each function in GB."""
    return {
        name: resource["Properties"]["MemorySize"] / 1024
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::Lambda::Function"
    }


def total(lines: Lines) -> float:
    return sum(quantity * _PRICES[price] for _, quantity, price in lines)


def own_account(lines: Lines) -> Lines:
    """Return a month's `lines` in an account with no other usage: AWS's permanent free allowances are subtracted."""
    return [(what, max(0, quantity - _FREE[price]), price) for what, quantity, price in lines]


def tables(used: dict[str, Any]) -> dict[str, str]:
    """Return the tables of docs/costs.md by the name of their marker."""
    template = transformed(load_template())
    memory = memory_of(template)
    compared = ["| a render of | ours | polling every 10 s | times as much |", "|---|---|---|---|"]
    for seconds in _RENDERS:
        both = waiting(used, memory, seconds)
        ratio = both["polling"] / both["ours"]
        compared.append(f"| {seconds} s | ${both['ours']:.2f} | ${both['polling']:.2f} | {ratio:.1f} |")
    return {
        "videos": _video_table(per_video(used, memory)),
        "idle": _idle_table(per_idle_month(used, memory, template)),
        "waiting": "\n".join(compared),
    }


def written(document: str, used: dict[str, Any]) -> str:
    """Return `document` with its tables replaced by current ones."""
    for name, table in tables(used).items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, _, after = document.partition(begin)
        document = f"{before}{begin}{table}\n{end}{after.partition(end)[2]}"
    return document


def _video_table(lines: Lines) -> str:
    rows = ["| what | a video | dollars, 1,000 videos |", "|---|---|---|"]
    rows += [
        f"| {what} | {quantity:,.4g} | {_VIDEOS * quantity * _PRICES[price]:.4f} |" for what, quantity, price in lines
    ]
    return "\n".join([*rows, f"| **all** | | **{_VIDEOS * total(lines):.2f}** |"])


def _idle_table(lines: Lines) -> str:
    rows = ["| what | a month | dollars, list | dollars, alone in its account |", "|---|---|---|---|"]
    for (what, quantity, price), (_, left, _) in zip(lines, own_account(lines), strict=True):
        rows.append(f"| {what} | {quantity:,.4g} | {quantity * _PRICES[price]:.4f} | {left * _PRICES[price]:.4f} |")
    return "\n".join([*rows, f"| **all** | | **{total(lines):.2f}** | **{total(own_account(lines)):.2f}** |"])


def _gb_seconds(calls: dict[str, float], assumed: dict[str, Any], memory: dict[str, float]) -> float:
    seconds: dict[str, float] = {name: number / 1000 for name, number in assumed["milliseconds"].items()}
    return sum(number * memory[name] * seconds[name] for name, number in calls.items())


def _sent_gb(assumed: dict[str, Any], requests: float) -> float:
    base64 = assumed["image_mb"] * 4 / 3
    return float(base64 / 1000 + requests * assumed["answer_kb"] / 1e6)


def _watching(template: dict[str, Any]) -> tuple[int, int, int, int]:
    """Count the template's alarm metrics, composite alarms, dashboards and secrets."""
    resources = list(template["Resources"].values())

    def number(kind: str) -> int:
        return sum(resource["Type"] == kind for resource in resources)

    alarms = [one["Properties"] for one in resources if one["Type"] == "AWS::CloudWatch::Alarm"]
    metrics = sum(
        sum("MetricStat" in metric for metric in alarm["Metrics"]) if "Metrics" in alarm else 1 for alarm in alarms
    )
    composites, dashboards = number("AWS::CloudWatch::CompositeAlarm"), number("AWS::CloudWatch::Dashboard")
    return metrics, composites, dashboards, number("AWS::SecretsManager::Secret")


def measured(used: dict[str, Any]) -> dict[str, Any]:
    """Return `used` with counts from a local stack that is started for this purpose."""
    with tempfile.TemporaryDirectory() as state:
        fast = Options(port=0, wait_scale=0.05, render_seconds=1, render_size=160, state=Path(state))
        with Stack(fast) as stack:
            return {**used, "measured": usage.measure(stack, used["assumed"]["queries"])}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.costs", description=__doc__)
    parser.add_argument("--measure", action="store_true", help="count the usage on the local stack first")
    used: dict[str, Any] = json.loads(_USAGE.read_text())
    if parser.parse_args().measure:
        used = measured(used)
        _USAGE.write_text(json.dumps(used, indent=2) + "\n")
    _DOCUMENT.write_text(written(_DOCUMENT.read_text(), used))
    print("\n\n".join(tables(used).values()))


if __name__ == "__main__":
    main()
