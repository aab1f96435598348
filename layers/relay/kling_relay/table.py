"""Every DynamoDB write of the relay, all of them conditional.

One table, one key `pk`: `task#{id}`, `external#{tenant}#{external_task_id}` and `idempotency#{tenant}#{key}` (both
point to a task), `upstream#{provider}#{upstream_id}` (owned by one task), `gate#{provider}`, `key#{key_id}`. The
sparse index `by_due` holds the open tasks: `queue` "open" sorted by `due_at`, `queue` "waiting" (for room upstream)
by age.
"""

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from botocore.exceptions import ClientError

from kling_relay.errors import KlingError
from kling_relay.task import CLOSED, ENDED, MOVES, Phase, Task

_JSON_FIELDS = {"request", "outputs", "videos"}
_TASK_FIELDS = [field.name for field in fields(Task)]
_DAY_SECONDS = 86_400


class LostRace(Exception):
    """Somebody else moved the row first. Normal: read it again and decide anew."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether the provider takes new tasks: not before `not_before` (ms). `failures` in a row make the pause longer."""

    not_before: int = 0
    failures: int = 0
    reason: str = ""


class TaskTable:
    """The table `name` through a low-level DynamoDB `client`; `retention_days` is how long a row outlives its task."""

    def __init__(self, client: Any, name: str, retention_days: int = 400) -> None:
        self._client = client
        self._name = name
        self._retention_days = retention_days

    # -- tasks

    def get(self, task_id: str) -> Task | None:
        """The task as it is now (a strongly consistent read: it must be readable the moment its id is out)."""
        item = self._get(f"task#{task_id}")
        return None if item is None else _task(item)

    def find(self, tenant: str, reference: str) -> Task | None:
        """The tenant's task by our id or by its own external id. A foreign task is not found, like a missing one."""
        task = self.get(reference)
        if task is None:
            pointer = self._get(f"external#{tenant}#{reference}")
            task = None if pointer is None else self.get(_plain(pointer["task_id"]))
        return task if task is not None and task.tenant == tenant else None

    def record(self, task: Task, *, body_hash: str, idempotency_key: str | None = None) -> Task:
        """Write a new task together with what makes it unique: the client's external id and Idempotency-Key.

        Returns the task, or the one that the same request made before; raises KlingError where the same external id or
        key came with another body. One transaction: there is never a pointer without a task.
        """
        pointers = []
        if task.external_task_id is not None:
            pointers.append(("external_task_id", f"external#{task.tenant}#{task.external_task_id}"))
        if idempotency_key is not None:
            pointers.append(("Idempotency-Key", f"idempotency#{task.tenant}#{idempotency_key}"))
        pointer_item = {"task_id": {"S": task.id}, "body_hash": {"S": body_hash}}
        puts = [self._put_new({"pk": {"S": pk}, **pointer_item}) for _, pk in pointers]
        try:
            self._client.transact_write_items(
                TransactItems=[self._put_new(_item(task)), *puts], ClientRequestToken=task.id
            )
        except ClientError as exc:
            if not _condition_failed(exc):
                raise
            return self._earlier(exc, pointers, body_hash, task)
        return task

    def _earlier(self, exc: ClientError, pointers: list[tuple[str, str]], body_hash: str, task: Task) -> Task:
        """The task behind the pointer that was already there: the client is repeating itself, or it made a mistake."""
        for name, pk in pointers:
            pointer = self._get(pk)
            if pointer is None:
                continue
            if _plain(pointer["body_hash"]) != body_hash:
                raise KlingError(
                    1201, f"{name}: must be unique, and this value came before with another request body"
                ) from exc
            earlier = self.get(_plain(pointer["task_id"]))
            if earlier is not None:
                return earlier
        ours = self.get(task.id)  # nobody else can have drawn the same 128 bits: the answer to our own write was lost
        if ours is None:
            raise exc
        return ours

    def move(self, task: Task, to: Phase | None, **changes: Any) -> Task:
        """Move `task` to phase `to`, or keep its phase (None), and set `changes`. Returns the row after the write.

        Conditions, both needed: the phase is one that `to` may follow (nobody moved it elsewhere meanwhile), and
        `attempt` is the one that we read (a claimer whose lease ran out cannot write over its successor). Raises
        LostRace.
        """
        return _task(self._update(**self._moving(task, to, changes)))

    def adopt(self, task: Task, to: Phase | None, provider: str, upstream_id: str, **changes: Any) -> Task:
        """As `move`, together with the ownership of the provider's `upstream_id`, which no other task may have."""
        write = uuid.uuid4().hex
        update = self._moving(task, to, {"upstream_id": upstream_id, **changes}, write)
        update.pop("ReturnValues")
        owner = {"pk": {"S": f"upstream#{provider}#{upstream_id}"}, "task_id": {"S": task.id}}
        put = self._put_new(owner)
        # Ours already: the answer to an earlier write of ours was lost on its way back.
        put["Put"]["ConditionExpression"] += " OR task_id = :task"
        put["Put"]["ExpressionAttributeValues"] = {":task": {"S": task.id}}
        try:
            self._client.transact_write_items(TransactItems=[{"Update": update}, put], ClientRequestToken=write)
        except ClientError as exc:
            if not _condition_failed(exc):
                raise
            current = self.get(task.id)
            if current is None or current.upstream_id != upstream_id:
                raise LostRace from exc
        adopted = self.get(task.id)
        if adopted is None:
            raise LostRace
        return adopted

    def owner(self, provider: str, upstream_id: str) -> str | None:
        """The id of the task that owns the provider's `upstream_id`."""
        item = self._get(f"upstream#{provider}#{upstream_id}")
        return None if item is None else str(_plain(item["task_id"]))

    def pass_callback(self, task: Task, now: int, gap_ms: int) -> bool:
        """Whether a callback may ask the provider now: once per `gap_ms`, whoever knows the URL. Otherwise `due_at` is
        brought forward, so that what the callback told is looked at, only later."""
        update = {
            "Key": {"pk": {"S": f"task#{task.id}"}},
            "UpdateExpression": "SET #asked_at = :now",
            "ConditionExpression": "attribute_not_exists(#asked_at) OR #asked_at <= :before",
            "ExpressionAttributeNames": {"#asked_at": "asked_at"},
            "ExpressionAttributeValues": {":now": _value(now), ":before": _value(now - gap_ms)},
        }
        try:
            self._client.update_item(TableName=self._name, **update)
        except ClientError as exc:
            if not _condition_failed(exc):
                raise
            self._bring_forward(task, now + gap_ms)
            return False
        return True

    def _bring_forward(self, task: Task, due_at: int) -> None:
        try:
            self._client.update_item(
                TableName=self._name,
                Key={"pk": {"S": f"task#{task.id}"}},
                UpdateExpression="SET #due_at = :due",
                ConditionExpression="#due_at > :due",  # only an open row has due_at, and only ever forward
                ExpressionAttributeNames={"#due_at": "due_at"},
                ExpressionAttributeValues={":due": _value(due_at)},
            )
        except ClientError as exc:
            if not _condition_failed(exc):
                raise

    # -- the sweeper's side

    def due(self, now: int, limit: int) -> list[str]:
        """Ids of open tasks whose `due_at` has passed, most overdue first. From the index: a moment old, never wrong
        for long, because whoever acts on an id reads the row again."""
        return [task_id for task_id, _ in self._queue("open", now, limit)]

    def waiting(self, limit: int) -> list[tuple[str, str]]:
        """(id, tenant) of the tasks that wait for room upstream, oldest first."""
        return self._queue("waiting", None, limit)

    def waiting_since(self, until: int, limit: int) -> list[str]:
        """Ids of the tasks that have waited since before `until` (ms)."""
        return [task_id for task_id, _ in self._queue("waiting", until, limit)]

    def _queue(self, queue: str, until: int | None, limit: int) -> list[tuple[str, str]]:
        condition, values = "#queue = :queue", {":queue": {"S": queue}}
        names = {"#queue": "queue"}
        if until is not None:
            condition += " AND #due_at <= :until"
            names["#due_at"] = "due_at"
            values[":until"] = _value(until)
        found = self._client.query(
            TableName=self._name,
            IndexName="by_due",
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            Limit=limit,
        )
        return [(_plain(item["pk"]).partition("#")[2], _plain(item["tenant"])) for item in found["Items"]]

    def take_over(self, task: Task, execution: str, due_at: int) -> Task:
        """Give `task` to a new execution; the one before it finds that out and stops. Raises LostRace."""
        key, names, values = {"pk": {"S": f"task#{task.id}"}}, {}, {}
        names.update({"#execution": "execution", "#due_at": "due_at", "#queue": "queue"})
        values.update({":new": _value(execution), ":old": _value(task.execution), ":due": _value(due_at)})
        return _task(
            self._update(
                Key=key,
                UpdateExpression="SET #execution = :new, #due_at = :due, #queue = :open",
                # still open (only open rows have due_at), and not taken over by another sweep
                ConditionExpression="attribute_exists(#due_at) AND #execution = :old",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues={**values, ":open": _value("open")},
                ReturnValues="ALL_NEW",
            )
        )

    # -- the provider's gate

    def gate(self, provider: str) -> Gate:
        item = self._get(f"gate#{provider}")
        return Gate() if item is None else Gate(**{k: _plain(v) for k, v in item.items() if k in Gate.__slots__})

    def close_gate(self, provider: str, seen: Gate, *, not_before: int, reason: str) -> None:
        """Send nothing new to `provider` before `not_before` (ms). Loses silently to a longer pause."""
        names = {"#not_before": "not_before", "#failures": "failures", "#reason": "reason"}
        values = {":until": _value(not_before), ":failures": _value(seen.failures + 1), ":reason": _value(reason[:300])}
        self._set_gate(
            provider,
            "SET #not_before = :until, #failures = :failures, #reason = :reason",
            "attribute_not_exists(pk) OR #not_before < :until",
            names,
            values,
        )

    def open_gate(self, provider: str, seen: Gate) -> None:
        """The provider has room again; not if the gate has been closed anew since `seen` was read."""
        self._set_gate(
            provider,
            "SET #not_before = :zero, #failures = :zero",
            "#not_before = :seen",
            {"#not_before": "not_before", "#failures": "failures"},
            {":zero": _value(0), ":seen": _value(seen.not_before)},
        )

    def _set_gate(
        self, provider: str, update: str, condition: str, names: dict[str, str], values: dict[str, Any]
    ) -> None:
        try:
            self._client.update_item(
                TableName=self._name,
                Key={"pk": {"S": f"gate#{provider}"}},
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
            )
        except ClientError as exc:
            if not _condition_failed(exc):
                raise

    # -- API keys

    def put_key(self, key_id: str, row: dict[str, str]) -> None:
        """Store a new key's row (tenant, keyed hash, versions); an id is never used twice."""
        item = {"pk": {"S": f"key#{key_id}"}, **{name: {"S": text} for name, text in row.items()}}
        self._client.put_item(TableName=self._name, Item=item, ConditionExpression="attribute_not_exists(pk)")

    def get_key(self, key_id: str) -> dict[str, str] | None:
        item = self._get(f"key#{key_id}")
        return None if item is None else {name: _plain(value) for name, value in item.items()}

    def revoke_key(self, key_id: str) -> bool:
        """Make a key useless; False where there is none of that id. Revoking twice is no error."""
        try:
            self._client.update_item(
                TableName=self._name,
                Key={"pk": {"S": f"key#{key_id}"}},
                UpdateExpression="SET #state = :revoked",
                ConditionExpression="attribute_exists(pk)",
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues={":revoked": {"S": "revoked"}},
            )
        except ClientError as exc:
            if not _condition_failed(exc):
                raise
            return False
        return True

    # -- shared

    def _get(self, pk: str) -> dict[str, Any] | None:
        item: dict[str, Any] | None = self._client.get_item(
            TableName=self._name, Key={"pk": {"S": pk}}, ConsistentRead=True
        ).get("Item")
        return item

    def _put_new(self, item: dict[str, Any]) -> dict[str, Any]:
        return {"Put": {"TableName": self._name, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}}

    def _moving(self, task: Task, to: Phase | None, changes: dict[str, Any], write: str = "") -> dict[str, Any]:
        """The conditional update behind `move` and `adopt`."""
        if to is not None:
            changes = {"phase": to, **_of_phase(to, task, self._retention_days, changes), **changes}
        froms = sorted(MOVES[to]) if to is not None else [task.phase]
        changes["write"] = write or uuid.uuid4().hex
        sets = {name: value for name, value in changes.items() if value is not None}
        update = "SET " + ", ".join(f"#{name} = :{name}" for name in sets)
        removes = [f"#{name}" for name, value in changes.items() if value is None]
        if removes:
            update += " REMOVE " + ", ".join(removes)
        names = {f"#{name}": name for name in (*changes, "phase", "attempt")}
        values = {f":{name}": _value(value) for name, value in sets.items()}
        values |= {f":from{i}": _value(phase) for i, phase in enumerate(froms)} | {":seen": _value(task.attempt)}
        any_of = ", ".join(f":from{i}" for i in range(len(froms)))
        return {
            "TableName": self._name,
            "Key": {"pk": {"S": f"task#{task.id}"}},
            "UpdateExpression": update,
            "ConditionExpression": f"#phase IN ({any_of}) AND #attempt = :seen",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
            "ReturnValues": "ALL_NEW",
        }

    def _update(self, **update: Any) -> dict[str, Any]:
        """One conditional update; the row after it. A failed condition whose old row carries our own write token is our
        own write, repeated by the SDK because the first answer was lost: success."""
        update["TableName"] = self._name
        try:
            answer = self._client.update_item(**update, ReturnValuesOnConditionCheckFailure="ALL_OLD")
        except ClientError as exc:
            if not _condition_failed(exc):
                raise
            old: dict[str, Any] = exc.response.get("Item", {})
            ours = update["ExpressionAttributeValues"].get(":write")
            if ours is None or old.get("write") != ours:
                raise LostRace from exc
            return old
        item: dict[str, Any] = answer["Attributes"]
        return item


def _of_phase(to: Phase, task: Task, retention_days: int, changes: dict[str, Any]) -> dict[str, Any]:
    """What always goes with a phase: open rows stay in the index, ended rows leave it, sleepers are told."""
    now: int = changes["updated_at"]
    extra: dict[str, Any] = {}
    if to is Phase.RENDERED or to in CLOSED:
        extra["wake_seq"] = task.wake_seq + 1
    if to in ENDED:
        extra |= {"due_at": None, "queue": None, "lease_until": None, "waits_for": None}
        extra["expires_at"] = now // 1000 + retention_days * _DAY_SECONDS
    return extra


def _item(task: Task) -> dict[str, Any]:
    row = {name: getattr(task, name) for name in _TASK_FIELDS if name != "id"}
    item = {name: _value(v) for name, v in row.items() if v is not None}
    return {"pk": {"S": f"task#{task.id}"}, "queue": {"S": "open"}, **item}


def _task(item: dict[str, Any]) -> Task:
    row = {name: _plain(value) for name, value in item.items() if name in _TASK_FIELDS}
    row |= {name: json.loads(row[name]) for name in _JSON_FIELDS & row.keys()}
    task = Task(id=_plain(item["pk"]).partition("#")[2], **row)
    return replace(task, phase=Phase(task.phase))


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, (list, dict)):
        return {"S": json.dumps(value)}
    return {"N": str(value)} if isinstance(value, int) else {"S": str(value)}


def _plain(value: dict[str, Any]) -> Any:
    return int(value["N"]) if "N" in value else value["S"]


def _condition_failed(exc: ClientError) -> bool:
    """Whether a condition of ours, and nothing else, refused the write."""
    error = exc.response.get("Error", {}).get("Code")
    if error == "ConditionalCheckFailedException":
        return True
    reasons: Iterable[dict[str, Any]] = exc.response.get("CancellationReasons", [])
    codes = {reason.get("Code") for reason in reasons} - {None, "None"}
    return error == "TransactionCanceledException" and codes == {"ConditionalCheckFailed"}
