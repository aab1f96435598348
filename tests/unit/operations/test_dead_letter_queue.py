"""Test dead letters: they are shown without removal, or sent back, and none is lost on the way."""

import json
from typing import Any

import pytest
from kling_relay.dynamodb import new_token
from kling_relay.operations import dead_letter_queue

from tests.support.stack_in_memory import Cloud, World
from tests.unit.operations.test_actions import operate
from tests.unit.operations.test_widget_views import OPERATE, drawn, payloads


@pytest.fixture
def posted(cloud: Cloud) -> World:
    """A world whose inbox has a queue and a dead-letter queue."""
    queues = cloud.session.client("sqs")
    made = [queues.create_queue(QueueName=f"{name}-{new_token()}")["QueueUrl"] for name in ("inbox", "dead")]
    return World(cloud, intake_queue_url=made[0], intake_dead_letters_url=made[1])


def in_queue(world: World, url: str) -> list[str]:
    found = world.services.queues.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
    return [one["Body"] for one in found.get("Messages", [])]


def test_dead_letters_are_shown_and_stay_where_they_are_until_they_are_redriven(posted: World) -> None:
    dead, inbox = posted.services.settings.intake_dead_letters_url, posted.services.settings.intake_queue_url
    assert "empty" in drawn(posted, "dead_letters").text and payloads(drawn(posted, "dead_letters"), OPERATE) == []
    event = {"detail": {"bucket": {"name": "inputs"}, "object": {"key": "inbox/<b>cat</b>.png", "version-id": "v"}}}
    line = {"source": {"bucket": "inputs", "key": "inbox/list.tasks.jsonl", "version": "v", "line": 7}, "at": [0, 9]}
    bodies = [json.dumps(event), json.dumps(line), "no JSON", "[]", '"text"']
    for body in bodies:
        posted.services.queues.send_message(QueueUrl=dead, MessageBody=body)
    widget = drawn(posted, "dead_letters")
    assert "5 messages" in widget.text and "inbox/<b>cat</b>.png" in widget.text
    assert "inbox/list.tasks.jsonl, line 7" in widget.text and "no JSON" in widget.text
    assert sorted(in_queue(posted, dead)) == sorted(bodies)
    ((call, redrive),) = [(call, values) for call, values in widget.calls if call["endpoint"] == OPERATE]
    assert call["confirmation"] == "Send the messages of IntakeDeadLetters back to its queue?"
    answer = posted.call("operate_tasks", redrive)
    assert answer == {"queue": "IntakeDeadLetters", "moved": 5, "left": 0}
    assert sorted(in_queue(posted, inbox)) == sorted(bodies) and in_queue(posted, dead) == []
    assert posted.call("operate_tasks", redrive)["moved"] == 0


@pytest.mark.parametrize("queue", [None, "", "IntakeQueue", 5, ["IntakeDeadLetters"], "https://sqs.example/1/dead"])
def test_only_a_dead_letter_queue_of_the_stack_is_redriven(posted: World, queue: Any) -> None:
    with pytest.raises(ValueError, match="queue: must be one of IntakeDeadLetters"):
        posted.call("operate_tasks", {"action": "redrive", "queue": queue})


class Queue:
    """SQS where a redrive dies or never ends: messages come back as long as they are not deleted."""

    def __init__(self, deaths: int = 0, endless: bool = False) -> None:
        self.dead, self.sent, self.deaths, self.endless = ["a", "b", "c"], [], deaths, endless  # type: ignore[var-annotated]

    def receive_message(self, *, MaxNumberOfMessages: int, **_: Any) -> dict[str, Any]:
        return {"Messages": [{"MessageId": m, "Body": m, "ReceiptHandle": m} for m in self.dead[:MaxNumberOfMessages]]}

    def send_message(self, *, MessageBody: str, **_: Any) -> None:
        self.sent.append(MessageBody)

    def delete_message(self, *, ReceiptHandle: str, **_: Any) -> None:
        if self.deaths:
            self.deaths -= 1
            raise ConnectionError("gone")
        if not self.endless:
            self.dead.remove(ReceiptHandle)

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        return {"Attributes": dict.fromkeys(names, str(len(self.dead)))}


def test_a_redrive_that_dies_loses_nothing(world: World) -> None:
    world.services.queues = Queue(deaths=1)
    with pytest.raises(ConnectionError):
        operate(world, "redrive", queue="IntakeDeadLetters")
    assert operate(world, "redrive", queue="IntakeDeadLetters") == {"queue": "IntakeDeadLetters", "moved": 3, "left": 0}
    assert world.services.queues.sent == ["a", "a", "b", "c"]


def test_a_redrive_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.services.queues = Queue(endless=True)
    monkeypatch.setattr(dead_letter_queue, "_MAX_MESSAGES", 20)
    assert operate(world, "redrive", queue="IntakeDeadLetters") == {
        "queue": "IntakeDeadLetters",
        "moved": 20,
        "left": 3,
    }
