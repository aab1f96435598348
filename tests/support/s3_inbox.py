"""Drop files into the input bucket, and pass S3's events to functions/image_upload like EventBridge and SQS."""

import itertools
import json
import random
from typing import Any
from uuid import uuid4

import pytest
from kling_relay.tasks.s3_source import Source
from kling_relay.tasks.task import Task

from tests.support.stack_in_memory import World

MAX_TRIES = 3


class Queue:
    """Play the queue in front of functions/image_upload: each message is delivered at most three times."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.messages: list[dict[str, Any]] = []
        self.dead: list[dict[str, Any]] = []
        self.fail_sends = self.sent = 0
        world.services.queues = self

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        assert QueueUrl == "queue" and 1 <= len(Entries) <= 10
        assert len({entry["Id"] for entry in Entries}) == len(Entries)
        assert sum(len(entry["MessageBody"].encode()) for entry in Entries) <= 262_144
        if self.fail_sends:
            self.fail_sends -= 1
            return {"Failed": [{"Id": Entries[0]["Id"]}]}
        for entry in Entries:
            assert 0 <= entry.get("DelaySeconds", 0) <= 900  # the limit of SQS
            due = self.world.clock.now + int(entry.get("DelaySeconds", 0)) * 1000
            self.messages.append({**message(entry["MessageBody"]), "due": due})
        self.sent += len(Entries)
        return {}

    def put(self, *events: dict[str, Any]) -> None:
        self.messages += [message(json.dumps(event)) for event in events]

    def run(self, dice: random.Random | None = None, *, batch: int = 5, left_ms: int = 28_000) -> None:
        """Deliver until no message is left, in random order if `dice` is given, else oldest first.

        The clock advances if all remaining messages are delayed.
        """
        while self.messages:
            self.world.clock.now = max(self.world.clock.now, min(one.get("due", 0) for one in self.messages))
            self.handle(dice, batch=batch, left_ms=left_ms)

    def handle(self, dice: random.Random | None = None, *, batch: int = 5, left_ms: int = 28_000) -> None:
        """Deliver the messages that are due now."""
        while True:
            if dice is not None:
                dice.shuffle(self.messages)
            now = self.world.clock.now
            taken = list(itertools.islice((one for one in self.messages if one.get("due", 0) <= now), batch))
            if not taken:
                return
            for one in taken:
                self.messages.remove(one)
            for one in taken:
                tries = int(one["attributes"]["ApproximateReceiveCount"]) + 1
                one["attributes"]["ApproximateReceiveCount"] = str(tries)
            answer = self.world.call("image_upload", {"Records": taken}, left_ms=left_ms)
            failed = {one["itemIdentifier"] for one in answer["batchItemFailures"]}
            for one in taken:
                if one["messageId"] in failed:
                    spent = int(one["attributes"]["ApproximateReceiveCount"]) >= MAX_TRIES
                    (self.dead if spent else self.messages).append(one)


def message(body: str) -> dict[str, Any]:
    return {"messageId": str(uuid4()), "body": body, "attributes": {"ApproximateReceiveCount": "0"}}


def drop(world: World, key: str, data: bytes, **metadata: str) -> dict[str, Any]:
    """Upload an object; return the event of EventBridge."""
    made = world.cloud.s3.put_object(Bucket="inputs", Key=key, Body=data, Metadata=metadata)
    return event(key, made["VersionId"])


def copy_onto_itself(world: World, key: str, **metadata: str) -> dict[str, Any]:
    """Change an object's metadata: a new version of the same bytes, made by CopyObject (S3's manual)."""
    source = {"Bucket": "inputs", "Key": key}
    made = world.cloud.s3.copy_object(
        Bucket="inputs", Key=key, CopySource=source, Metadata=metadata, MetadataDirective="REPLACE"
    )
    told = event(key, made["VersionId"])
    told["detail"]["reason"] = "CopyObject"
    return told


def event(key: str, version: str) -> dict[str, Any]:
    found = {"key": key, "version-id": version, "size": 1, "etag": "e", "sequencer": "0"}
    return {"detail-type": "Object Created", "detail": {"bucket": {"name": "inputs"}, "object": found}}


def source(event: dict[str, Any], line: int = 0) -> Source:
    made = Source.of_event(event["detail"])
    return Source(made.bucket, made.key, made.version, line)


def result(world: World, key: str, line: int = 0) -> dict[str, Any]:
    found = world.cloud.s3.get_object(Bucket="inputs", Key=Source("inputs", key, "", line).result_key())
    told: dict[str, Any] = json.loads(found["Body"].read())
    assert told["source"]["key"] == key and told["source"].get("line", 0) == line
    return told


def results(world: World) -> set[str]:
    pages = world.cloud.s3.get_paginator("list_objects_v2").paginate(Bucket="inputs", Prefix="results/")
    return {one["Key"] for page in pages for one in page.get("Contents", [])}


def task_of(world: World, event: dict[str, Any], line: int = 0) -> Task:
    return world.task(source(event, line).task_id(world.services.keyring))


def empty(world: World) -> None:
    """Empty the bucket, which the tests of a module share."""
    pages = world.cloud.s3.get_paginator("list_object_versions").paginate(Bucket="inputs")
    for page in pages:
        for one in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
            world.cloud.s3.delete_object(Bucket="inputs", Key=one["Key"], VersionId=one["VersionId"])


@pytest.fixture
def queue(world: World) -> Queue:
    return Queue(world)
