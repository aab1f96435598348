"""The dead-letter queues of the stack: what lies in them, and how it goes back to where it came from.

SQS can redrive by itself, but says neither when it is done nor how much it moved, and not every SQS has that call. What
lies here may come twice anyway: all its receivers know a repetition.
"""

import json
from dataclasses import dataclass
from typing import Any

from kling_relay.services import Services

_AT_ONCE = 10  # SQS's own limit
_MOST = 1000
_SECONDS = 120
_SYSTEM = ["SentTimestamp", "ApproximateReceiveCount"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`at`: when it was first sent (ms). `about`: what it is about, as far as it can be read."""

    at: int
    receives: int
    about: str


@dataclass(frozen=True, slots=True)
class QueuePeek:
    """`count` and `in_hand` (received, not yet deleted) are SQS's own approximate figures; `letters` are some."""

    count: int
    in_hand: int
    letters: list[DeadLetter]


def queues(services: Services) -> dict[str, tuple[str, str]]:
    """Logical id -> the queue's URL, and that of the queue which its messages come from."""
    settings = services.settings
    return {"IntakeDeadLetters": (settings.need("intake_dead_letters_url"), settings.need("intake_queue_url"))}


def look(services: Services, url: str) -> QueuePeek:
    """What lies in a queue. At most ten messages are read, and they stay where they are."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counts = services.queues.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    found = services.queues.receive_message(
        QueueUrl=url, MaxNumberOfMessages=_AT_ONCE, VisibilityTimeout=0, MessageSystemAttributeNames=_SYSTEM
    )
    letters = {one["MessageId"]: _letter(one) for one in found.get("Messages", [])}
    count, in_hand = (int(counts[name]) for name in names)
    return QueuePeek(max(count, len(letters)), in_hand, sorted(letters.values(), key=lambda letter: letter.at))


def redrive(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """Send what lies in the dead-letter queue `queue` (its logical id) back to its source: at most a thousand messages,
    for at most two minutes. Each is deleted after it was sent: a death in between repeats it. Raises ValueError."""
    name, known = event.get("queue"), queues(services)
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"queue: must be one of {', '.join(known)} (got {name!r})")
    url, source = known[name]
    ends_at, moved = services.clock.now_ms() + _SECONDS * 1000, 0
    while moved < _MOST and services.clock.now_ms() < ends_at:
        wanted = {"MaxNumberOfMessages": min(_AT_ONCE, _MOST - moved), "WaitTimeSeconds": 1}  # 1: asks all its servers
        messages = services.queues.receive_message(QueueUrl=url, MessageAttributeNames=["All"], **wanted)
        found = messages.get("Messages", [])
        for one in found:
            more = {"MessageAttributes": one["MessageAttributes"]} if one.get("MessageAttributes") else {}
            services.queues.send_message(QueueUrl=source, MessageBody=one["Body"], **more)
            services.queues.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
            moved += 1
        if not found:
            break
    return {"queue": name, "moved": moved, "left": look(services, url).count}


def _letter(message: dict[str, Any]) -> DeadLetter:
    told = message.get("Attributes", {})
    return DeadLetter(int(told.get("SentTimestamp", 0)), int(told.get("ApproximateReceiveCount", 0)), _about(message))


def _about(message: dict[str, Any]) -> str:
    """The object that a message of the inbox is about, or the beginning of one that is none."""
    body = message["Body"]
    try:
        said = json.loads(body)
        if "detail" in said:
            return str(said["detail"]["object"]["key"])
        line = said["source"].get("line") or said.get("from_line")
        return str(said["source"]["key"]) + (f", line {line}" if line else "")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return str(body)[:200]
