"""Provide new tasks, recorded or not, and lost responses of AWS, for tests of the table."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.endpoint import Endpoint
from botocore.exceptions import ClientError, ReadTimeoutError
from kling_relay.tasks import idempotency
from kling_relay.tasks.table import TaskTable
from kling_relay.tasks.task import Phase, Task, new_task_id

from tests.support.stack_in_memory import START, World


def new_task(tenant: str = "acme", **fields: Any) -> Task:
    known = {"kind": "image2video", "phase": Phase.ACCEPTED, "request": {"prompt": "x"}, "created_at": START}
    task_id = new_task_id()
    known |= {"updated_at": START, "due_at": START + 1, "execution": task_id}
    return Task(id=task_id, tenant=tenant, **{**known, **fields})


@pytest.fixture
def table(world: World) -> TaskTable:
    return world.table


@pytest.fixture
def drop_response(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Drop the response of the next call of that operation: the call takes effect, and the SDK retries it."""
    to_lose: list[str] = []
    real = Endpoint._do_get_response

    def lossy(self: Any, request: Any, model: Any, context: Any) -> Any:
        answer = real(self, request, model, context)
        if model.name in to_lose:
            to_lose.remove(model.name)
            return None, ReadTimeoutError(endpoint_url="https://lost.example")
        return answer

    monkeypatch.setattr(Endpoint, "_do_get_response", lossy)
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    yield to_lose.append
    assert to_lose == [], "no answer was lost"


def record_task(table: TaskTable, **fields: Any) -> Task:
    return idempotency.record(table, new_task(**fields), body_hash="h")


class FailingClient:
    """Play a DynamoDB client whose `operation` raises `errors`, the last first, and then succeeds."""

    def __init__(self, real: Any, operation: str, errors: list[ClientError]) -> None:
        self._real, self._operation, self._errors = real, operation, errors

    def __getattr__(self, name: str) -> Any:
        return self._fail if name == self._operation and self._errors else getattr(self._real, name)

    def _fail(self, **_: Any) -> None:
        raise self._errors.pop()


def before_a_write(
    table: TaskTable, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any], *, number: int = 1
) -> None:
    """Call `act` right before the `number`-th transaction from now."""
    real, turns = table.rows.transact, []

    def transact(items: list[dict[str, Any]], token: str) -> None:
        turns.append(token)
        if len(turns) == number:
            monkeypatch.setattr(table.rows, "transact", real)
            act()
        real(items, token)

    monkeypatch.setattr(table.rows, "transact", transact)
