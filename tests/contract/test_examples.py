"""Test that every example request of the five source documents is accepted unchanged.

`examples/*.json`: the document and place of its origin, its kind, its body, and the values for placeholders. Document
004 shows only parts of a request; each is placed in the smallest request that can carry it.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from kling_relay.api import request
from kling_relay.provider import models

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.json"))
PROFILES = json.loads(Path(models.__file__).with_name("profiles.json").read_text())
MODES = {"std (high performance)": "std", "pro (high quality)": "pro"}


def load(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("provider", PROFILES)
def test_it_is_accepted_and_goes_on_as_it_is(path: Path, provider: str) -> None:
    example = load(path)
    kind, body = example["kind"], example["body"]
    parsed = request.parse(kind, json.dumps(body).encode())
    model = parsed.body.get("model_name") or PROFILES[provider]["default_model"][kind]
    dropped, _ = models.check(models.shipped(), model, kind, parsed.body)
    assert dropped == (["cfg_scale"] if model.startswith("kling-v2") and "cfg_scale" in body else [])
    own = {"callback_url": parsed.callback_url, "external_task_id": parsed.external_task_id}
    expected = {**body, "mode": MODES.get(body.get("mode"), body.get("mode"))}
    taken = {**parsed.body, **own}
    assert {name: value for name, value in taken.items() if value is not None} == {
        name: value for name, value in expected.items() if value is not None
    }


def test_every_document_is_here() -> None:
    assert {path.stem[:3] for path in EXAMPLES} == {"000", "001", "002", "003", "004"}
    assert all(load(path)["source"].startswith(path.stem[:3]) for path in EXAMPLES)
