"""Test lost answers with the real SDK and moto: a write takes effect, its answer is lost, and botocore retries.

moto repeats a transaction whatever its ClientRequestToken; here it takes effect once, as in DynamoDB.
"""

import json
import random
from typing import Any

import pytest
from botocore.endpoint import Endpoint
from botocore.exceptions import ReadTimeoutError

from tests.reliability.campaign import LONG, Campaign
from tests.reliability.life import PROFILES, Life, Story
from tests.support.stack_in_memory import Cloud

WRITES = {"UpdateItem", "TransactWriteItems", "PutObject"}
FAULTS = ("done", "not done")
MAX_WRITES = 60


class Wire:
    """Stands in Endpoint._do_get_response, below the SDK's retries. The `lose`-th write gets no answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes, self.lose, self.done = 0, 0, True
        self.answers: dict[str, Any] = {}  # of transactions, by token
        self.send = Endpoint._do_get_response
        monkeypatch.setattr(Endpoint, "_do_get_response", lambda endpoint, *given: self(endpoint, *given))
        monkeypatch.setattr("time.sleep", lambda seconds: None)

    def __call__(self, endpoint: Endpoint, request: Any, model: Any, context: Any) -> Any:
        if model.name not in WRITES:
            return self.send(endpoint, request, model, context)
        self.writes += 1
        lost = self.writes == self.lose
        if lost and not self.done:
            return None, ReadTimeoutError(endpoint_url="https://aws.example")
        answer = self.once(endpoint, request, model, context)
        return (None, ReadTimeoutError(endpoint_url="https://aws.example")) if lost else answer

    def once(self, endpoint: Endpoint, request: Any, model: Any, context: Any) -> Any:
        if model.name != "TransactWriteItems":
            return self.send(endpoint, request, model, context)
        token = json.loads(request.body)["ClientRequestToken"]
        if token not in self.answers:
            answer, error = self.send(endpoint, request, model, context)
            if error is not None or answer[0].status_code != 200:
                return answer, error
            self.answers[token] = answer, error
        return self.answers[token]


@pytest.mark.parametrize("fault", FAULTS)
def test_sdk_repeats(campaign: Campaign, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """At every write in turn: nothing differs for the client, and nothing is parked."""
    wire = Wire(monkeypatch)

    def live(dice: random.Random) -> None:
        life = Life(PROFILES[profile], Story(callbacks=(95,)), cloud)
        wire.writes, wire.lose, wire.done = 0, write, fault == "done"
        life.live().check()
        campaign.figures["repeated"] += wire.writes >= wire.lose

    for profile in sorted(PROFILES)[: 6 if LONG else 1]:
        for write in range(1, MAX_WRITES):
            campaign.live(f"{profile}, write {write} {fault}", live)
            if wire.writes < write:
                break
        else:
            raise AssertionError("the writes never ended")
    assert campaign.figures["repeated"] > 8
