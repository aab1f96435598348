"""Find, move and take over the row of a task, with a condition on every write. idempotency.py inserts it.

The rows are `task#{id}`, and `upstream#{space}#{upstream_id}`, which one task owns. docs/reference/data-model.md has
all kinds of rows, their columns and the indexes of the one table.
"""

from collections.abc import Callable, Collection
from typing import Any

from botocore.exceptions import ClientError

from kling_relay.dynamodb import ConflictError, Rows, condition_failed, new_token, plain, value
from kling_relay.tasks import outbox, queries, spend_cap
from kling_relay.tasks.task import CLOSED, ENDED, MOVES, TASK_STATUS, Phase, Task, notice_of
from kling_relay.tasks.task_queue import TaskQueue
from kling_relay.tasks.task_row import _DAY_SECONDS, changed, owner_key, stored, task_of, upstream_pk

_LONGEST_LIFE_DAYS = 31  # from the record of a task to the end of its watch: its pointers live longer
_MAX_HINTS = 4  # of one task: a forger with a stolen URL fills no row
_LONGEST_REFERENCE = 256  # characters, the limit in the request's schema


class TaskTable:
    """The table `name` through a low-level DynamoDB `client`; rows are kept `retention_days` after their task's end.
    `on_move` is called for every successful move, with the task as it was read (None: a new one), and as the write left
    it."""

    def __init__(
        self,
        client: Any,
        name: str,
        retention_days: int = 400,
        on_move: Callable[[Task | None, Task], None] = lambda before, after: None,
    ) -> None:
        self.rows = Rows(client, name)
        self.queue = TaskQueue(self.rows)
        self._retention_days = retention_days
        self.on_move = on_move

    # -- tasks

    def get(self, task_id: str) -> Task | None:
        """Return the current task: it must be readable as soon as its id is returned."""
        item = self.rows.get(f"task#{task_id}")
        return None if item is None else task_of(item)

    def find(self, tenant: str, reference: str) -> Task | None:
        """Return the tenant's task by our id or by its external id. Another tenant's task counts as missing."""
        if len(reference) > _LONGEST_REFERENCE:
            return None
        task = self.get(reference)
        if task is None or task.tenant != tenant:
            pointer = self.rows.get(f"external#{tenant}#{reference}")
            task = None if pointer is None else self.get(plain(pointer["task_id"]))
        return task if task is not None and task.tenant == tenant else None

    def page(self, tenant: str, kind: str, skip: int, size: int) -> list[Task]:
        """Return `size` tasks of a tenant and kind, newest first, after the first `skip`. Reads only the page's
        rows."""
        walk: dict[str, Any] = {
            "TableName": self.rows.name,
            "IndexName": "by_owner",
            "KeyConditionExpression": "#owner = :owner",
            "ExpressionAttributeNames": {"#owner": "owner"},
            "ExpressionAttributeValues": {":owner": value(owner_key(tenant, kind))},
            "ScanIndexForward": False,
        }
        pks: list[str] = []
        while skip or len(pks) < size:
            part = {"Select": "COUNT", "Limit": skip} if skip else {"Limit": size - len(pks)}  # counted, not sent
            found = self.rows.client.query(**walk, **part)
            skip = max(0, skip - found["Count"])
            pks += [plain(item["pk"]) for item in found.get("Items", [])]
            if "LastEvaluatedKey" not in found:
                break
            walk["ExclusiveStartKey"] = found["LastEvaluatedKey"]
        return self._read(pks)

    def read(self, task_ids: list[str]) -> list[Task]:
        """Return the tasks of `task_ids`, in their order, without those that do not exist."""
        return self._read([f"task#{task_id}" for task_id in task_ids])

    def _read(self, pks: list[str]) -> list[Task]:
        rows = self.rows.get_all(pks)
        return [task_of(rows[pk]) for pk in pks if pk in rows]

    def move(self, task: Task, to: Phase | None, *, also: Collection[Phase] = (), **changes: Any) -> Task:
        """Move `task` to phase `to`, or keep its phase (None), and set `changes`. Returns the row after the write. Both
        conditions must hold: the phase is the one that was read, on which the decision was made, or one of `also`; and
        `attempt` is the one that was read (a claimer whose lease has expired cannot overwrite its successor). Raises
        ConflictError; ValueError for a move that no task may make. If the move states the cost of a task under a cap,
        the tenant's month is corrected in the same transaction."""
        settled = spend_cap.settlement(task, to, changes)
        update = self._moving(task, to, also, changes if settled is None else {**changes, "settled": settled})
        if settled is None or settled == task.committed:
            moved = task_of(self.rows.update(update))
        else:
            moved = self._together(update, spend_cap.corrected(self.rows, task, settled))
        self.on_move(task, changed(task, to, changes))
        return moved

    def claim(self, task: Task, **changes: Any) -> Task:
        """Move `task` to SUBMITTING: the caller that gets the row back may send it, once. Raises ConflictError. Only
        claims write the token `claim`. So a claimer recognises its own claim, even if the SDK repeats it late and other
        writes were made in between. A claim whose lease has expired meanwhile is not valid any more."""
        update = self._moving(task, Phase.SUBMITTING, (), {"claim": new_token(), **changes})
        claimed = task_of(self.rows.update(update, mark="claim"))
        if claimed.phase is not Phase.SUBMITTING:
            raise ConflictError
        self.on_move(task, changed(task, Phase.SUBMITTING, changes))
        return claimed

    def adopt(
        self,
        task: Task,
        to: Phase | None,
        space: str,
        upstream_id: str,
        *,
        also: Collection[Phase] = (),
        **changes: Any,
    ) -> Task:
        """Move as `move`, and take ownership of the provider's `upstream_id`, which no other task may have."""
        update = self._moving(task, to, also, {"upstream_id": upstream_id, **changes})
        owner = {"pk": value(upstream_pk(space, upstream_id)), "task_id": value(task.id)}
        put = self.rows.put_new({**owner, **self.ttl_after(task.created_at)})
        # Ours already: the answer to an earlier write was lost.
        put["Put"]["ConditionExpression"] += " OR task_id = :task"
        put["Put"]["ExpressionAttributeValues"] = {":task": value(task.id)}
        moved = self._together(update, put)
        self.on_move(task, changed(task, to, {"upstream_id": upstream_id, **changes}))
        return moved

    def _together(self, update: dict[str, Any], part: dict[str, Any]) -> Task:
        """Make the `update` of a task and `part`, both or none. Return the row after it. A failed condition with our
        own token in the row is our own write, repeated. Raises ConflictError."""
        token, lost = update["ExpressionAttributeValues"][":write"], None
        try:
            self.rows.transact([{"Update": update}, part], token=plain(token))
        except ClientError as exc:
            if not condition_failed(exc):
                raise
            lost = exc
        item = self.rows.get(plain(update["Key"]["pk"]))
        if item is None or (lost is not None and item.get("write") != token):
            raise ConflictError from lost
        return task_of(item)

    def owner(self, space: str, upstream_id: str) -> str | None:
        """Return the id of the task that owns the provider's `upstream_id` in `space` (Account.space)."""
        item = self.rows.get(upstream_pk(space, upstream_id))
        return None if item is None else str(plain(item["task_id"]))

    def claim_callback_slot(self, task: Task, now: int, gap_ms: int, *, urgent: bool = True) -> bool:
        """Return whether a callback may query the provider now: once per `gap_ms`, for any sender that has the URL.
        Otherwise, if it is `urgent`, `due_at` is brought forward, and a workflow that is about to wait reads the row
        again: no news is lost."""
        pk = f"task#{task.id}"
        condition = "attribute_exists(#pk) AND (attribute_not_exists(#asked_at) OR #asked_at <= :before)"
        just_asked = task.asked_at is not None and task.asked_at > now - gap_ms  # a write that would fail is not made
        if not just_asked and self.rows.update_if(pk, "SET #asked_at = :now", condition, now=now, before=now - gap_ms):
            return True
        if urgent:  # only an open row has due_at, and it is only ever brought forward
            self.rows.update_if(pk, "SET #due_at = :due ADD #wake_seq :one", "#due_at > :due", due=now + gap_ms, one=1)
        return False

    def keep_hint(self, task: Task, upstream_id: str) -> None:
        """Store an id from a callback while the row has none, for the next look-up. A concurrent one may win."""
        hints = task.hints.split()
        if task.upstream_id is not None or upstream_id in hints or upstream_id.split() != [upstream_id]:
            return
        kept = " ".join([*hints, upstream_id][-_MAX_HINTS:])
        condition = "attribute_exists(#due_at) AND attribute_not_exists(#upstream_id) AND "
        condition += "(attribute_not_exists(#hints) OR #hints = :seen)"
        self.rows.update_if(f"task#{task.id}", "SET #hints = :hints", condition, hints=kept, seen=task.hints)

    def mark_deleted(self, task: Task, now: int, due_at: int | None = None) -> Task:
        """End a closed task for good: an expired one is not watched any more. `due_at` (ms): when the sweeper processes
        it once more; None means never. Raises ConflictError."""
        later = {} if due_at is None else {"due": due_at, "open": "open"}
        update = self.rows.expression(
            f"task#{task.id}",
            "SET #phase = :end, #deleted_at = :now, #expires_at = if_not_exists(#expires_at, :expires), "
            "#write = :write" + (", #due_at = :due, #queue = :open" if later else " REMOVE #due_at, #queue"),
            "#phase = :was AND #attempt = :seen",
            end=Phase.FAILED if task.phase is Phase.EXPIRED else task.phase,
            was=task.phase,
            seen=task.attempt,
            now=now,
            expires=now // 1000 + self._retention_days * _DAY_SECONDS,
            write=new_token(),
            **later,
        )
        return task_of(self.rows.update(update))

    def scrub(self, task: Task) -> Task:
        """Remove a deleted task's client content from its row. What remains: tenant, ids, times and its end."""
        scrubbed = self.rows.expression(
            f"task#{task.id}",
            "SET #request = :nothing, #write = :write REMOVE #outputs, #videos, #callback_url, #task_token, #waits_for",
            "attribute_exists(#deleted_at)",
            nothing="{}",
            write=new_token(),
        )
        return task_of(self.rows.update(scrubbed))

    # -- the sweeper's side

    def retry_copy_now(self, task: Task) -> Task:
        """Allow a rendered task's next copy at once, and make a workflow that is about to wait read the row again.
        Raises ConflictError."""
        update = self.rows.expression(
            f"task#{task.id}",
            "SET #write = :write REMOVE #retry_at ADD #wake_seq :one",
            "#phase = :rendered",
            rendered=Phase.RENDERED,
            write=new_token(),
            one=1,
        )
        return task_of(self.rows.update(update))

    def take_over(self, task: Task, execution: str, due_at: int) -> Task:
        """Move `task` to a new execution; the previous one notices that and stops. Raises ConflictError."""
        update = self.rows.expression(
            f"task#{task.id}",
            "SET #execution = :new, #due_at = :due, #queue = :open, #write = :write",
            # still open (only open rows have due_at), and not taken over by another sweep
            "attribute_exists(#due_at) AND #execution = :old",
            **{"new": execution, "old": task.execution, "due": due_at, "open": "open", "write": new_token()},
        )
        return task_of(self.rows.update(update))

    # -- shared

    def ttl_after(self, created_at: int) -> dict[str, Any]:
        """Return the removal time of a row that points to a task: not before the task itself may be removed."""
        days = self._retention_days + _LONGEST_LIFE_DAYS
        return {"expires_at": value(created_at // 1000 + days * _DAY_SECONDS)}

    def _lifetime(self, to: Phase | None, changes: dict[str, Any]) -> dict[str, Any]:
        """Return the attributes of a row that becomes final, or is open."""
        if to in ENDED or changes.get("due_at", 0) is None:  # final: the sweeper's index does not list it
            expires_at = changes["updated_at"] // 1000 + self._retention_days * _DAY_SECONDS
            return {"due_at": None, "queue": None, "lease_until": None, "waits_for": None, "expires_at": expires_at}
        # A write that arrives late may open a final row again.
        return {"expires_at": None} if "due_at" in changes else {}

    def _moving(self, task: Task, to: Phase | None, also: Collection[Phase], changes: dict[str, Any]) -> dict[str, Any]:
        """Build the conditional update of `move`, `claim` and `adopt`. `None` removes an attribute."""
        phases = {task.phase, *also}
        if to is not None and not phases <= MOVES[to]:
            raise ValueError(f"{to} may not follow {', '.join(sorted(phases - MOVES[to]))}")
        if to is not None:
            changes = {"phase": to, **changes}
        changes |= self._lifetime(to, changes)
        if to in CLOSED:
            changes |= {"standing": None, **queries.noted(task.id, TASK_STATUS[to], changes["updated_at"])}
        elif to is Phase.RENDERED:  # perhaps late: its earlier end is reverted
            changes |= queries.NOT_YET
        elif to in (Phase.ACCEPTED, Phase.SUBMITTED):
            changes |= {"standing": "open", "parked_at": None}
        elif changes.get("parked_at") is not None:
            changes["standing"] = "parked"
        notice = None if to is None else notice_of(task, to, changes["updated_at"])
        changes |= {"write": new_token()} | ({} if notice is None else outbox.appended(notice))
        sets = {name: stored(given) for name, given in changes.items() if given is not None}
        removes = [f"#{name}" for name, given in changes.items() if given is None]
        update = "SET " + ", ".join(f"#{name} = :{name}" for name in sets)
        update += " REMOVE " + ", ".join(removes) if removes else ""
        counted = ["#notice_seq :one"] if notice is not None else []
        # a waiting workflow must not miss it
        counted += ["#wake_seq :one"] if to is Phase.RENDERED or to in CLOSED else []
        if counted:
            update += " ADD " + ", ".join(counted)
            sets["one"] = 1
        froms = {f"from{i}": phase for i, phase in enumerate(sorted(phases))}
        any_of = ", ".join(f":{name}" for name in froms)
        condition = f"#phase IN ({any_of}) AND #attempt = :seen"
        if notice is not None:  # no concurrent writer has added this notice
            condition += f" AND attribute_not_exists(#{notice.attribute})"
        once, known = spend_cap.once(task, changes)
        values = {"seen": task.attempt, **froms, **sets, **known}
        return self.rows.expression(f"task#{task.id}", update, condition + once, **values)
