"""Test the calls of fixtures/requests.json against their `expect`, in the real handler with a billing ledger.

The cases are self-made after reports of clients. `certain: false` marks a guess; docs/explanation/decisions/ has the
reason for each. The two cases with a `wire` are about the connection: test_api_gateway.py replays them.
"""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack_in_memory import World

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
CASES: dict[str, dict[str, Any]] = {case["id"]: case for case in json.loads((FIXTURES / "requests.json").read_text())}
CALLS = [name for name, case in CASES.items() if "wire" not in case]


def sent(case: dict[str, Any]) -> str:
    """The body as API Gateway hands it on: text, in which bytes that are not UTF-8 are U+FFFD."""
    if "body_hex" in case:
        return bytes.fromhex(case["body_hex"]).decode("utf-8", "replace")
    body = dict(case["body"])
    if (name := str(body.get("image"))).startswith("@"):
        body["image"] = base64.b64encode((FIXTURES / name[1:]).read_bytes()).decode()
    return json.dumps(body)


def differences(world: World, expect: dict[str, Any], status: int, answer: dict[str, Any]) -> dict[str, Any]:
    """What is not as `expect` has it: name -> what was seen."""
    posts = world.provider.posts
    seen: dict[str, Any] = {"http": status, "code": answer["code"], "sent_upstream": len(posts)}
    wrong = {name: value for name, value in seen.items() if expect.get(name, value) != value}
    if expect.get("message_has", "") not in answer["message"]:
        wrong["message"] = answer["message"]
    if posts and not expect.get("upstream_has", {}).items() <= posts[0].items():
        wrong["upstream"] = posts[0]
    return wrong


@pytest.mark.parametrize("name", CALLS)
def test_a_call_behaves_as_expected(world: World, name: str) -> None:
    case = CASES[name]
    status, answer = world.http(case["method"], case["path"], sent(case), authorization=world.key())
    expect = case["expect"]
    found = [differences(world, one, status, answer) for one in expect.get("either", [expect])]
    assert {} in found, found
    assert len(world.provider.sold) == len(world.provider.posts)
