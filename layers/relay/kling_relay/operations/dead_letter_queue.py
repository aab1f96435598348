"""Inspect the stack's dead-letter queues, and redrive their messages to their source queues.

SQS has its own redrive, but reports neither when it is done nor how much it moved, and not every SQS has that call. A
message may be delivered twice anyway: all consumers are idempotent.
"""

import json
from dataclasses import dataclass
from typing import Any

from kling_relay.services import Services

_BATCH_SIZE = 10  # SQS's own limit
_MAX_MESSAGES = 1000
_SECONDS = 120
_SYSTEM = ["SentTimestamp", "ApproximateReceiveCount"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message in a dead-letter queue.

    `at`: when it was first sent (ms). `about`: its subject, if it can be parsed.
    """

    at: int
    receives: int
    about: str


@dataclass(frozen=True, slots=True)
class QueuePeek:
    """The state of a queue. `count` and `in_hand` (received, not yet deleted) are SQS's own approximate figures.

    `letters`: some of its messages.
    """

    count: int
    in_hand: int
    letters: list[DeadLetter]


def queues(services: Services) -> dict[str, tuple[str, str]]:
    """Return logical id -> the queue's URL, and the URL of its source queue."""
    settings = services.settings
    return {"IntakeDeadLetters": (settings.need("intake_dead_letters_url"), settings.need("intake_queue_url"))}


def look(services: Services, url: str) -> QueuePeek:
    """Return the state of a queue. It reads at most ten messages, which stay in the queue."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counts = services.queues.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    answer = services.queues.receive_message(
        QueueUrl=url, MaxNumberOfMessages=_BATCH_SIZE, VisibilityTimeout=0, MessageSystemAttributeNames=_SYSTEM
    )
    letters = {one["MessageId"]: _letter(one) for one in answer.get("Messages", [])}
    count, in_hand = (int(counts[name]) for name in names)
    return QueuePeek(max(count, len(letters)), in_hand, sorted(letters.values(), key=lambda letter: letter.at))


def redrive(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """Move the messages of the dead-letter queue `queue` (its logical id) back to its source.

    At most a thousand messages, for at most two minutes. Each is deleted after it was sent: a crash in between repeats
    it. Raises ValueError.
    """
    name, known = event.get("queue"), queues(services)
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"queue: must be one of {', '.join(known)} (got {name!r})")
    url, source = known[name]
    ends_at, moved = services.clock.now_ms() + _SECONDS * 1000, 0
    while moved < _MAX_MESSAGES and services.clock.now_ms() < ends_at:
        # 1: queries all its servers
        limits = {"MaxNumberOfMessages": min(_BATCH_SIZE, _MAX_MESSAGES - moved), "WaitTimeSeconds": 1}
        messages = services.queues.receive_message(QueueUrl=url, MessageAttributeNames=["All"], **limits)
        batch = messages.get("Messages", [])
        for one in batch:
            more = {"MessageAttributes": one["MessageAttributes"]} if one.get("MessageAttributes") else {}
            services.queues.send_message(QueueUrl=source, MessageBody=one["Body"], **more)
            services.queues.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
            moved += 1
        if not batch:
            break
    return {"queue": name, "moved": moved, "left": look(services, url).count}


def _letter(message: dict[str, Any]) -> DeadLetter:
    attributes = message.get("Attributes", {})
    return DeadLetter(
        int(attributes.get("SentTimestamp", 0)), int(attributes.get("ApproximateReceiveCount", 0)), _about(message)
    )


def _about(message: dict[str, Any]) -> str:
    """Return the key of the object that an inbox message is about, or the start of another message."""
    body = message["Body"]
    try:
        content = json.loads(body)
        if "detail" in content:
            return str(content["detail"]["object"]["key"])
        line = content["source"].get("line") or content.get("from_line")
        return str(content["source"]["key"]) + (f", line {line}" if line else "")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return str(body)[:200]
