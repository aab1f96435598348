"""Convert a task to its DynamoDB row, and back. Pure."""

import json
from dataclasses import fields, replace
from typing import Any

from kling_relay.dynamodb import plain, value
from kling_relay.tasks import fair_queue, notification, outbox
from kling_relay.tasks.task import Failure, Phase, Task

_JSON_FIELDS = {"request", "outputs", "videos", "source"}
_ENUM_FIELDS = {"phase": Phase, "failure": Failure}

_TASK_FIELDS = [field.name for field in fields(Task) if field.name != "notices"]  # each notice has an attribute

_DAY_SECONDS = 86_400


def upstream_pk(space: str, upstream_id: str) -> str:
    """Return the key of the row that names the task which owns the provider's `upstream_id`."""
    return f"upstream#{space}#{upstream_id}"


def owner_key(tenant: str, kind: str) -> str:
    """Return the key of a tenant and kind in the index `by_owner`."""
    return f"{tenant}#{kind}"


def new_item(task: Task) -> dict[str, Any]:
    """Build the row of a new task."""
    row = {name: getattr(task, name) for name in _TASK_FIELDS if name != "id"}
    item = {name: value(stored(field)) for name, field in row.items() if field is not None}
    # `birth` is a text: rows of other kinds hold a `created_at` of another type, which an index over it would reject.
    birth = f"{task.created_at:013}#{task.id}"
    listed = {"owner": value(owner_key(task.tenant, task.kind)), "birth": value(birth)}
    listed["turn"] = value(fair_queue.turn(task.tenant, birth))
    open_ = {"queue": value("open"), "standing": value("open")}
    for notice in task.notices:
        item |= {name: value(field) for name, field in outbox.appended(notice).items()}
    return {"pk": value(f"task#{task.id}"), **open_, **listed, **item}


def task_of(item: dict[str, Any]) -> Task:
    """Convert a row to its task."""
    every = {name: plain(stored) for name, stored in item.items()}
    row = {name: field for name, field in every.items() if name in _TASK_FIELDS}
    row |= {name: json.loads(row[name]) for name in _JSON_FIELDS & row.keys()}
    row |= {name: known(row[name]) for name, known in _ENUM_FIELDS.items() if name in row}
    return Task(id=every["pk"].partition("#")[2], notices=notification.read(every), **row)


def changed(task: Task, to: Phase | None, changes: dict[str, Any]) -> Task:
    """Return the task after a move.

    It is not the row that is read afterwards: another writer may have moved that already.
    """
    fields_changed = {name: field for name, field in changes.items() if name in _TASK_FIELDS}
    return replace(task, phase=to or task.phase, **fields_changed)


def stored(given: Any) -> Any:
    """Return a field in its stored form: lists and objects as JSON."""
    return json.dumps(given) if isinstance(given, (list, dict)) else given
