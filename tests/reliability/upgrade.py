"""Load the data of an older version into a World of this one. tests/fixtures/c90a538.json describes its recording.

A crowd is a whole stack at one moment. A story is one task as the log of the old functions' actions, so that an upgrade
can follow any of their effects, and any of their effects can follow the upgrade.
"""

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Iterable
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from kling_relay.lifecycle import archive
from kling_relay.security.auth import IssuedKey
from kling_relay.transfer.s3_copy import ArchiveError, StoredVideo

from tests.support.fake_provider import Sold
from tests.support.stack_in_memory import ROOT, START, World

# As profiles.json has had the official host since this version; the one before took it for a relay.
OFFICIAL = {"unique_reference": True, "settle_seconds": 20, "denial_gap_seconds": 10, "maintenance_refuses": True}


@cache
def fixture() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "tests" / "fixtures" / "c90a538.json").read_text())
    return found


class Upgraded:
    """A World that goes on where the old version stood. `listed`: the provider's videos by its id of a task."""

    def __init__(self, cloud: Any, patch: pytest.MonkeyPatch, **options: Any) -> None:
        self.world = World(cloud, **options)
        self.listed: dict[str, list[dict[str, str]]] = {}
        provider = self.world.provider
        provider._numbers = itertools.count(9001)
        provider.videos = lambda sold: self.listed.setdefault(sold.upstream_id, _listed(sold.upstream_id))
        self.world.services.archive_s3 = self.world.s3
        self.world.cloud.apps["archive_video"].copy_outputs = archive.copy_outputs  # type: ignore[attr-defined]
        patch.setattr(archive, "s3_copy", SimpleNamespace(archive=self._archive))

    def _archive(self, s3: Any, *, bucket: str, key: str, url: str, **_: Any) -> StoredVideo:
        """As s3_copy.archive, which overwrites nothing. The bytes of a video are its address."""
        if self.world.copy_faults:
            raise ArchiveError(self.world.copy_faults.pop(0))
        data = self.video(key)
        if data is None:
            data = _content(url)
            s3.put_object(Bucket=bucket, Key=key, Body=data)
        return StoredVideo(key, len(data), hashlib.md5(data).hexdigest())

    def video(self, key: str) -> bytes | None:
        """What lies at `key` of the video bucket."""
        try:
            data: bytes = self.world.cloud.s3.get_object(Bucket="videos", Key=key)["Body"].read()
        except (KeyError, ClientError):
            return None
        return data

    def bought(self, task_id: str) -> set[bytes]:
        """What the provider owes the task, by content."""
        sold = [one for one in self.world.provider.sold if one.reference == task_id and one.end == "succeed"]
        return {_content(video["url"]) for one in sold for video in self.world.provider.videos(one)}

    def call_back(self) -> None:
        """A callback for each task, which names what was sold for it."""
        for task in self.world.tasks():
            sold = [one.upstream_id for one in self.world.provider.sold if one.reference == task.id]
            assert self.world.callback(task, {"task_id": (sold or ["none"])[0], "task_status": "succeed"}) == 200

    # -- what the old version left

    def put(self, row: dict[str, Any]) -> None:
        self.world.dynamodb.put_item(TableName=self.world.table.rows.name, Item=row)

    def sell(self, one: dict[str, Any], at: int | None = None) -> None:
        """A sale of the old log. `at`: when it happens, if it comes later than it did."""
        known = {name: one[name] for name in ("reference", "upstream_id", "seconds", "end")}
        self.listed[one["upstream_id"]] = one["videos"]
        self.world.provider.sold.append(Sold(at=START + one["at"] if at is None else at, **known))

    def execution(self, name: str, task_id: str, kept: dict[str, Any]) -> None:
        state = {"task_id": task_id, **kept["state"]}
        wakes = START + kept.get("wakes", 0)
        one = SimpleNamespace(name=name, state=state, token=kept.get("token"), wakes=wakes, open=kept.get("open", True))
        self.world.states.executions[name] = one

    def store(self, bucket: str, key: str, text: str, **options: Any) -> str:
        """An object, by its bytes in base64; its version, if the bucket keeps some."""
        made = self.world.cloud.s3.put_object(Bucket=bucket, Key=key, Body=base64.b64decode(text), **options)
        return str(made.get("VersionId", ""))

    def write(self, parts: Iterable[dict[str, Any]]) -> None:
        """A request of the old functions to the table. Raises ClientError if its condition does not hold any more."""
        items = [_request(part, self.world.table.rows.name) for part in parts]
        if len(items) == 1 and "Update" in items[0]:
            self.world.dynamodb.update_item(**items[0]["Update"])
            return
        token = hashlib.sha256(json.dumps(items).encode()).hexdigest()[:36]
        self.world.dynamodb.transact_write_items(TransactItems=items, ClientRequestToken=token)

    def replay(self, entry: list[Any], at: int | None = None) -> None:
        """One effect of a log. `at`: when it happens, if it comes later than it did (ms of the world's clock)."""
        _, what, *told = entry
        if what == "write":
            self.write(told[0])
        elif what == "sold":
            self.sell(told[0], at)
        elif what == "object":
            self.store(*told)
        elif what == "removed":
            self.world.cloud.s3.objects.pop((told[0], told[1]), None)
        elif what == "execution":
            self.execution(told[0], told[0].partition("-r")[0], told[1])

    def settle_in(self, crowd: dict[str, Any]) -> None:
        """Everything that a stack held at one moment."""
        world, rows = self.world, json.dumps(crowd["rows"])
        versions = {}
        for bucket, key, text, metadata in crowd["objects"]:
            given = {name: versions.get(value, value) for name, value in metadata.items()}
            version = self.store(bucket, key, text, Metadata=given)
            if key in crowd["versions"]:  # the bucket has given the same object another one
                versions[crowd["versions"][key]] = version
                rows = rows.replace(crowd["versions"][key], version)
        for row in json.loads(rows):
            self.put(row)
        for one in crowd["sold"]:
            self.sell(one)
        for name, kept in crowd["executions"].items():
            self.execution(name, name.partition("-r")[0], kept)
        world.clock.now = START + crowd["now"]
        world.keys = {tenant: IssuedKey(key_id="", **keys) for tenant, keys in crowd["keys"].items()}

    def files(self, task_id: str) -> list[str]:
        """The keys of a task's objects, in both buckets."""
        keys = []
        for bucket in ("inputs", "videos"):
            found = self.world.cloud.s3.list_object_versions(Bucket=bucket)
            keys += [one["Key"] for one in [*found.get("Versions", []), *found.get("DeleteMarkers", [])]]
        return [key for key in keys if f"/{task_id}/" in key]


def _listed(upstream_id: str) -> list[dict[str, str]]:
    return [{"id": f"v-{upstream_id}", "url": f"https://cdn.example/{upstream_id}/0.mp4?sign=2", "duration": "5"}]


def _content(url: str) -> bytes:
    return url.partition("?")[0].encode()


def _request(part: dict[str, Any], table: str) -> dict[str, Any]:
    """A recorded part as DynamoDB takes it. `update` and `if` are numbers of the fixture's expressions; the names in
    them stand for themselves."""
    texts = fixture()["expressions"]
    known = {"TableName": table, "Item": part.get("item"), "ExpressionAttributeValues": part.get("values")}
    known["Key"] = {"pk": {"S": part["pk"]}} if "pk" in part else None
    for name, short in (("UpdateExpression", "update"), ("ConditionExpression", "if")):
        known[name] = texts[part[short]] if short in part else None
    names = re.findall(r"#(\w+)", f"{known['UpdateExpression']} {known['ConditionExpression']}")
    known["ExpressionAttributeNames"] = {f"#{name}": name for name in names} or None
    return {part["kind"]: {name: given for name, given in known.items() if given is not None}}
