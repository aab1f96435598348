"""Play a provider with scripted answers, build rows for queries, and run the report on both."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kling_relay.operations import reconcile
from kling_relay.provider.client import Provider
from kling_relay.provider.profiles import profile
from kling_relay.tasks.task import Phase, Task

from tests.support.loopback_servers import respond, serve
from tests.support.provider_calls import Keys
from tests.support.row_builders import DAY, RowBuilder

Answer = tuple[int, Any]
NOT_FOUND: Answer = (404, {"code": 1203, "message": "task not found"})
EMPTY: Answer = (200, {"code": 0, "message": "SUCCEED", "data": []})
KIND = "image2video"


def entry(upstream_id: Any, at: Any, reference: str | None = None, status: Any = "succeed") -> dict[str, Any]:
    info = {} if reference is None else {"external_task_id": reference}
    return {"task_id": upstream_id, "task_status": status, "task_info": info, "created_at": at}


class ScriptedProvider:
    """Play a provider. `lists(kind, page)` and `query(id)` return (status, body); bytes are sent unchanged."""

    def __init__(self, lists: Callable[[str, int], Answer], query: Callable[[str], Answer]) -> None:
        self.lists, self.query = lists, query
        self.pages: list[tuple[str, int]] = []

    def __call__(self, connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        asked = urlsplit(path)
        kind, _, reference = asked.path.removeprefix("/v1/videos/").partition("/")
        if reference:
            status, body = self.query(reference)
        else:
            given = parse_qs(asked.query)
            assert 1 <= int(given["pageNum"][0]) <= 1000 and 1 <= int(given["pageSize"][0]) <= 500
            self.pages.append((kind, int(given["pageNum"][0])))
            status, body = self.lists(*self.pages[-1])
        respond(connection, body if isinstance(body, bytes) else json.dumps(body).encode(), status=status)


@contextmanager
def scripted_provider(
    builder: RowBuilder, lists: Callable[[str, int], Answer], query: Any = None
) -> Iterator[ScriptedProvider]:
    script = ScriptedProvider(lists, query or (lambda _: NOT_FOUND))
    with serve(script) as port:
        real = Provider(profile("kling", f"http://127.0.0.1:{port}"), Keys("a-key"))
        builder.world.services.provider = real
        yield script


def known(builder: RowBuilder, count: int) -> list[Task]:
    now = builder.world.clock.now
    return [
        builder.row(Phase.SUCCEEDED, created_at=now - (number + 1) * DAY, upstream_id=f"up-{number}", kind=KIND)
        for number in range(count)
    ]


def as_listed(tasks: list[Task]) -> list[dict[str, Any]]:
    return [entry(task.upstream_id, task.created_at, task.id) for task in tasks]


def report(builder: RowBuilder) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(reconcile.reconcile(builder.world.services)))
    return made
