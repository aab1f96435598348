"""Test provider answers from the submission to the copy, with the real provider client, fetch and archive.

tests/fixtures/answers.json is self-made after reports about providers and stores; each case has its `why`. `certain`:
false marks a proposal.
"""

import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from kling_relay.lifecycle import archive
from kling_relay.provider.client import Provider
from kling_relay.provider.profiles import profile
from kling_relay.tasks.task import Phase
from kling_relay.transfer.s3_copy import client_config

from tests.support.loopback_servers import respond, serve
from tests.support.provider_calls import Keys
from tests.support.stack_in_memory import World

pytestmark = pytest.mark.enable_socket

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
CASES = json.loads((FIXTURES / "answers.json").read_text())
KEY = "the-key-of-the-provider"
FILE = "/files/842250903629086785/video.mp4"


class Played:
    """The provider of one case; `seen`: path and key of every request for the file."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        self.origin = ""
        self.seen: list[tuple[str, bool]] = []

    def __call__(self, connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        if path.startswith("/files/"):
            return self._file(connection, path, "authorization" in headers)
        posted = headers[":method"] == "POST"
        left = int(headers.get("content-length", 0))
        while left > 0:
            left -= len(connection.recv(min(left, 65536)))
        answer = self.case["submit" if posted else "query"]
        wire = answer if "json" in answer else {"json": answer, **self.wire}
        body = json.dumps(wire["json"]).replace("{provider}", self.origin).encode()
        sent = {name.replace("-", "_"): value for name, value in wire.get("headers", {}).items()}
        return respond(connection, gzip.compress(body) if wire.get("gzip") else body, **sent)

    @property
    def wire(self) -> dict[str, Any]:
        """A provider that compresses its answer to the submission compresses the others too."""
        return {name: value for name, value in self.case["submit"].items() if name in ("gzip", "headers")}

    def _file(self, connection: socket.socket, path: str, key: bool) -> None:
        self.seen.append((path, key))
        file = self.case["file"]
        hops = int(path.partition("?hop=")[2] or 0)
        if hops < file.get("redirects", 0):
            return respond(connection, status=302, Location=f"{self.origin}{FILE}?hop={hops + 1}")
        if "without_authorization" in file:
            file = file["with_authorization" if key else "without_authorization"]
        body = json.dumps(file["json"]).encode() if "json" in file else (FIXTURES / file["body"][1:]).read_bytes()
        sent = {name.replace("-", "_"): value for name, value in file.get("headers", {}).items()}
        return respond(connection, body, status=file["status"], **sent)


@pytest.fixture(params=CASES, ids=[case["id"] for case in CASES])
def played(request: pytest.FixtureRequest) -> Iterator[Played]:
    one = Played(request.param)
    with serve(one) as port:
        one.origin = f"http://127.0.0.1:{port}"
        yield one


def test_an_answer_becomes_what_its_client_expects(world: World, played: Played) -> None:
    expected = played.case["expect"]
    world.services.provider = Provider(profile(played.case["provider"], played.origin), Keys(KEY))
    world.cloud.apps["archive_video"].copy_outputs = archive.copy_outputs  # type: ignore[attr-defined]
    world.services.archive_s3 = boto3.client("s3", region_name="us-east-1", config=client_config())
    task = world.create()
    world.run(900)
    task = world.task(task.id)
    status = world.http("GET", f"/kling/v1/videos/image2video/{task.id}", authorization=world.key())[1]["data"]
    assert status["task_status"] == expected["task_status"]
    if expected["task_status"] == "succeed":
        stored = world.cloud.s3.get_object(Bucket="videos", Key=task.videos[0]["key"])["Body"].read()
        assert stored == (FIXTURES / played.case["file"].get("body", "@videos/plain.mp4")[1:]).read_bytes()
    else:
        assert task.phase is Phase.PROCESSING
    assert bool(world.measured["ResultHostNotListed"]) is expected.get("operator_told", False)
    assert any(key for _, key in played.seen) is ("key_seen_only_at" in expected)
