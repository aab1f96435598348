"""Provide the campaigns' common parts: one seed, two sizes, and the reported figures.

`make test` runs the short forms from a fixed seed, `make campaign` the long ones. Each life has its own random
generator, seeded with the seed, the campaign and the life's number. So earlier lives do not change its course.
"""

import json
import logging
import os
import random
import secrets
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kling_relay import observability

from tests.support.counted_effects import planned

SEED = int(os.environ.get("CAMPAIGN_SEED") or 20_260_901)
LONG = os.environ.get("CAMPAIGN") == "long"
_LIVES = int(os.environ.get("CAMPAIGN_LIVES") or 0)
_PROGRESS_SECONDS = 10


class Campaign:
    """One test's lives. `figures` are added up over the variants of a test and become its row in the table."""

    def __init__(self, name: str) -> None:
        self.name, self.seed = name, SEED
        self.thorough = LONG  # whether every effect has its turn
        self.figures: Counter[str] = Counter(lives=0)
        self.caught: list[BaseException | None] = []  # what functions have caught and logged
        self._began = self._told = time.monotonic()

    @property
    def lives(self) -> int:
        return self.figures["lives"]

    def size(self, short: int, long: int) -> int:
        """How many lives (or events, or addresses) this run is to have: `LIVES=` overrides the long form's number."""
        return (_LIVES or long) if LONG else short

    def live(self, case: Any, live: Callable[[random.Random], object]) -> None:
        """One life, `live(dice)`. What it draws from `random`, `secrets` and `uuid4` comes from its seed as well. An
        error names the life by `case`."""
        seed = f"{SEED} {self.name} {self.lives}"
        random.seed(seed)
        try:
            live(random.Random(seed))
            self.expect_no_surprise()
        except BaseException as exc:
            exc.add_note(f"life {self.lives} of {self.name} ({case}): make campaign SEED={SEED}")
            raise
        self.figures["lives"] += 1
        if LONG and time.monotonic() - self._told > _PROGRESS_SECONDS:
            self._told = time.monotonic()
            print(f"{self.name}: {self.lives:,} lives", file=sys.__stderr__, flush=True)

    def expect_no_surprise(self) -> None:
        """A function may catch everything, so that nobody is hurt; but only a planned fault may be the reason."""
        caught, self.caught = self.caught, []
        surprises = [exc for exc in caught if not planned(exc)]
        assert not surprises, f"a function caught {surprises}"

    def run(self, cases: Iterable[Any], live: Callable[[Any, random.Random], object]) -> None:
        """`live(case, dice)` for every case."""
        for case in cases:
            self.live(case, partial(live, case))

    def end(self) -> dict[str, float]:
        return {**self.figures, "seconds": time.monotonic() - self._began}


@pytest.fixture
def campaign(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The campaign of a test. Ids and tokens that the code under test draws follow the seed too."""
    monkeypatch.setattr(secrets, "token_bytes", lambda size=32: random.randbytes(size))
    monkeypatch.setattr(secrets, "token_hex", lambda size=32: random.randbytes(size).hex())
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=random.randbytes(16), version=4))
    going = Campaign(request.node.name.removeprefix("test_"))
    log = observability.logger.exception

    def note(*given: Any, **more: Any) -> None:
        going.caught.append(sys.exc_info()[1])
        log(*given, **more)

    monkeypatch.setattr(observability.logger, "exception", note)
    for handler in logging.getLogger().handlers:  # pytest's: it would format each record again; stdout has them
        monkeypatch.setattr(handler, "level", logging.CRITICAL)
    if LONG:  # pytest would keep millions of lines
        logging.disable(logging.CRITICAL)
        monkeypatch.setattr(observability, "emit", lambda *_: None)
    yield going
    logging.disable(logging.NOTSET)
    request.node.user_properties.append(("campaign", (going.name.partition("[")[0], going.end())))


def figures_of(reports: Iterable[Any]) -> dict[str, dict[str, float]]:
    """The figures of every campaign among the reports of a test run, from all of its processes."""
    added: dict[str, Counter[str]] = {}
    for report in reports:
        for name, given in getattr(report, "user_properties", []):
            if name == "campaign":
                added.setdefault(given[0], Counter()).update(given[1])
    return {name: {**figures, "seconds": round(figures["seconds"], 1)} for name, figures in sorted(added.items())}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of figures; the long form's goes to .local/campaign.json too."""
    campaigns = figures_of(report for reports in terminalreporter.stats.values() for report in reports)
    if not campaigns:
        return
    terminalreporter.section(f"campaigns, {'long' if LONG else 'short'} form, seed {SEED}")
    for name, figures in campaigns.items():
        terminalreporter.line(f"{name:<44} " + ", ".join(f"{value:,} {key}" for key, value in figures.items()))
    if LONG:
        path = Path(__file__).resolve().parents[2] / ".local" / "campaign.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"seed": SEED, "campaigns": campaigns}, indent=2) + "\n")
