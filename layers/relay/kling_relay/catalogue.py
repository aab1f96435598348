"""What is known of each model, from `models.json`."""

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _catalogue() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((Path(__file__).parent / "models.json").read_text())
    return loaded


def render_p5_seconds(model_name: str, mode: str, duration: str) -> int:
    """Seconds after which the first renders of this kind are usually finished: asking earlier is wasted.

    An unknown model, or a combination without data, gets the catalogue's default.
    """
    known = _catalogue()["models"].get(model_name, {}).get("render_p5_seconds", {})
    return int(known.get(f"{mode}/{duration}", _catalogue()["default_render_p5_seconds"]))
