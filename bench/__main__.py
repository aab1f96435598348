"""Run the benchmarks, print a table and write `.local/bench.json`.

python -m bench [PART ...]    cold, warm, archive, transitions, polling, scale; all of them by default
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

from bench.ratio import Ratio
from kling_relay_cli import REPOSITORY, STATE

PARTS = ("cold", "warm", "archive", "transitions", "polling", "scale")
RESULTS = STATE / "bench.json"
_GOALS = json.loads(Path(__file__).with_name("goals.json").read_text())
_HEADS = ("benchmark", "ours", "reference", "unit", "ratio", "95 % within", "goal")


def row(one: Ratio) -> tuple[str, ...]:
    goal = ""
    if one.name in _GOALS:
        what, sign, bound = _GOALS[one.name]
        value = getattr(one, what)
        met = value <= bound if sign == "<=" else value >= bound
        goal = f"{what} {sign} {bound}{'' if met else ', missed'}"
    spread = f"{one.low:.2f} to {one.high:.2f}" if one.low != one.high else "counted"
    return (one.name, f"{one.ours:,.4g}", f"{one.reference:,.4g}", one.unit, f"{one.ratio:.2f}", spread, goal)


def table(ratios: list[Ratio]) -> str:
    """Format the ratios as the Markdown table of docs/explanation/performance.md."""
    lines = [_HEADS, *map(row, ratios)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADS))]
    written = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([written[0], " | ".join("-" * width for width in widths), *written[1:]])


def keep(one: Ratio) -> None:
    """Write one ratio to the file at once, so that an interrupted run keeps its figures."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(known | {one.name: one.as_json()}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=" ".join(PARTS))
    ratios: list[Ratio] = []
    began = time.monotonic()
    for part in parser.parse_args().parts or PARTS:
        print(f"{part} ...", file=sys.stderr, flush=True)
        for one in importlib.import_module(f"bench.{part}").measure():
            print(f"  {' | '.join(row(one))}", file=sys.stderr, flush=True)
            ratios.append(one)
            keep(one)
    print(table(ratios))
    print(f"{time.monotonic() - began:.0f} s; written to {RESULTS.relative_to(REPOSITORY)}", file=sys.stderr)


if __name__ == "__main__":
    main()
