"""Record a new task idempotently: one transaction with everything that makes it unique, and with its reserved cost.

The rows `external#{tenant}#{external_task_id}` and `idempotency#{tenant}#{key}` point to the task that was created with
that value. They hold the hash of its request.
"""

from dataclasses import replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from kling_relay.clock import Clock
from kling_relay.dynamodb import Rows, condition_failed, conflicted, failed_parts, new_token, plain, value
from kling_relay.errors import KlingError
from kling_relay.observability import logger
from kling_relay.tasks import spend_cap
from kling_relay.tasks.spend_cap import Budget, Spending
from kling_relay.tasks.table import TaskTable
from kling_relay.tasks.task import Task
from kling_relay.tasks.task_row import new_item

_PATIENCE_MS = 20_000  # for an answer of the table, within the gateway's 29 s
_PAUSE_SECONDS = 0.25
# Error codes that prove that the table wrote nothing and never will: the request itself is at fault. A conflict with
# another transaction is not among them, because `conflicted` is checked first.
_DEFINITE = {
    *("TransactionCanceledException", "ValidationException", "AccessDeniedException"),
    *("ResourceNotFoundException", "UnrecognizedClientException"),
}
_MAX_TURNS = 4  # of one request that replaces a failed one, while others try the same


def record(
    table: TaskTable,
    task: Task,
    *,
    body_hash: str,
    idempotency_key: str | None = None,
    budget: Budget | None = None,
    clock: Clock | None = None,
) -> Task:
    """Write a new task with its unique keys and, under a cap (`budget`), its reservation.

    The keys are the external id and the Idempotency-Key. One transaction: there is never a pointer without a task.
    Returns the task, or the one that the same request created before. Raises KlingError if the same external id or key
    was used with another body, unless that task failed and cost nothing: then the new task replaces it. Raises
    KlingError too if the cap leaves no room.

    If the table does not answer, the task may be recorded, and the sweeper will send it. So the row is read and the
    same transaction repeated until one of both is answered. After 20 s without an answer, raises KlingError 5000 with
    the task's id and without `Retry-After`: a client that sends the request again could pay twice.
    """
    clock = clock or Clock()
    # a task made from an upload has the same id at every attempt
    until, token = clock.now_ms() + _PATIENCE_MS, new_token()
    while True:
        try:
            return _record(table, task, body_hash, idempotency_key, budget, token)
        except (BotoCoreError, ClientError) as exc:
            written, failure = _written(table, task), exc
        if written is not None:
            table.on_move(None, task)
            return written
        if isinstance(failure, ClientError) and failure.response.get("Error", {}).get("Code") in _DEFINITE:
            raise failure
        if clock.now_ms() >= until:
            logger.error("task_write_unconfirmed", extra={"task_id": task.id, "error": type(failure).__name__})
            advice = f"GET .../{task.kind}/{task.id} before you send the request again"
            raise KlingError(5000, f"task {task.id} may have been recorded and may be sent; {advice}") from failure
        clock.sleep(_PAUSE_SECONDS)


def _written(table: TaskTable, task: Task) -> Task | None:
    """Read the row of a task whose transaction had no answer. None if it is missing or unreadable."""
    try:
        return table.get(task.id)
    except (BotoCoreError, ClientError):
        return None


def _record(
    table: TaskTable, task: Task, body_hash: str, idempotency_key: str | None, budget: Budget | None, token: str
) -> Task:
    """Run `record` once. The same `token` makes a repetition of a successful write a success."""
    rows, pointers = table.rows, _pointers(task.tenant, task.external_task_id, idempotency_key)
    ttl_after = table.ttl_after(task.created_at)
    item = {"task_id": value(task.id), "body_hash": value(body_hash), **ttl_after}
    raised = [] if budget is None else [spend_cap.raised(rows, task, budget.cap, ttl_after)]
    failed: dict[str, str] = {}
    for turn in range(_MAX_TURNS):
        puts = [_pointer(rows, {"pk": value(pk), **item}, failed.get(pk)) for _, pk in pointers]
        try:
            rows.transact([rows.put_new(new_item(task)), *puts, *raised], token=f"{token}-{turn}")
            table.on_move(None, task)
            return task
        except ClientError as exc:
            if conflicted(exc):
                if (written := table.get(task.id)) is not None:
                    return written
                raise KlingError(1302, "too many concurrent requests of this account; retry", retry_after=1) from exc
            if not condition_failed(exc):
                raise
            if budget is not None and failed_parts(exc) == {1 + len(puts)}:
                committed = Spending(rows).committed(task.tenant, budget.month)
                raise replace(budget, committed=committed).refusal(task.reserved or 0) from exc
            before, failed = _before(table, pointers, body_hash)
            # our own write with a lost answer, or the same upload's: nothing else draws the same 128 bits
            if not failed:
                before = before or table.get(task.id)
        if before is not None:
            return before
    raise KlingError(
        5001, "the same external_task_id or Idempotency-Key is being processed by another request; retry", retry_after=1
    )


def earlier(
    table: TaskTable, tenant: str, external_task_id: str | None, idempotency_key: str | None, body_hash: str
) -> Task | None:
    """Return the task that the same request created before. Raises KlingError if another request used the value."""
    return _before(table, _pointers(tenant, external_task_id, idempotency_key), body_hash)[0]


def _pointers(tenant: str, external_task_id: str | None, key: str | None) -> list[tuple[str, str]]:
    """Return a task's unique keys for its tenant: (name for people, key of the row that points to the task)."""
    named = {"external_task_id": ("external", external_task_id), "Idempotency-Key": ("idempotency", key)}
    return [(name, f"{kind}#{tenant}#{given}") for name, (kind, given) in named.items() if given is not None]


def _pointer(rows: Rows, item: dict[str, Any], failed: str | None) -> dict[str, Any]:
    """Build the write of a pointer that is new, or that still points to the task `failed`."""
    put = rows.put_new(item)
    if failed is not None:
        put["Put"]["ConditionExpression"] += " OR task_id = :failed"
        put["Put"]["ExpressionAttributeValues"] = {":failed": value(failed)}
    return put


def _before(table: TaskTable, pointers: list[tuple[str, str]], body_hash: str) -> tuple[Task | None, dict[str, str]]:
    """Return earlier uses: the task of the same request, or the failed tasks whose pointers may be reused (by pk).

    Raises KlingError if a pointer belongs to another request for good.
    """
    failed: dict[str, str] = {}
    for name, pk in pointers:
        pointer = table.rows.get(pk)
        if pointer is None:
            continue
        recorded = table.get(plain(pointer["task_id"]))
        if plain(pointer["body_hash"]) == body_hash:
            if recorded is None:
                raise KlingError(1201, f"{name}: must be unique (got a value used by a removed task)")
            return recorded, failed
        if recorded is None or not recorded.cost_nothing:
            raise KlingError(1201, f"{name}: must be unique (got a value used with another request body)")
        failed[pk] = recorded.id
    return None, failed
