"""Name the actions of functions/operate_tasks, and the events that call them.

{"action": "create_key", "tenant": "acme"} returns a new API key, once. Optional: "label", "scopes" (list of "submit",
"read"), and "expires_in_days" or "expires_at" (ISO date or time; UTC if it names no zone).
{"action": "list_keys", "tenant": "acme"} returns the stored data of a tenant's keys, never a key.
{"action": "revoke_key", "key_id": "..."} revokes a key at once.
{"action": "set_cap", "tenant": "acme", "units": 500} caps the units that a tenant may commit in a month. 0: no cap;
null: the stack's default. {"action": "spend", "tenant": "acme"} returns the cap and this month's figure.
{"action": "pause", "reason": "..."} stops new paid POSTs, {"action": "resume"} allows them again, {"action": "status"}
returns the current state.
{"action": "signing_secret", "tenant": "acme"} returns the secrets that sign the tenant's webhooks; "change": true
rotates them. {"action": "replay_notice", "task_id": "..."} sends a task's webhooks again, or only that of "sequence".
{"action": "retry_archive", "task_id": "..."} retries a failed copy now.
{"action": "redrive", "queue": "IntakeDeadLetters"} moves the messages of a dead-letter queue back to their source.
{"action": "export", "since": "2026-11-01", "until": "...", "tenant": "..."} returns that period's tasks as CSV.
{"action": "probe_path"} returns the path, below the API's address, that accepts a test callback.
{"action": "accounts"} lists the provider accounts: which have a key, and how many tasks are open at each.
{"action": "reconcile"} compares our rows with the provider's tasks of the last 30 days, or of "days". It is read-only.
"""

from collections.abc import Callable
from typing import Any

from kling_relay.operations import accounts, actions, csv_export, dead_letter_queue, reconcile
from kling_relay.services import Services

ACTIONS: dict[str, Callable[[Services, dict[str, Any]], dict[str, Any]]] = {
    "create_key": actions.create_key,
    "list_keys": actions.list_keys,
    "revoke_key": actions.revoke_key,
    "set_cap": actions.set_cap,
    "spend": actions.spend,
    "pause": actions.pause,
    "resume": actions.resume,
    "status": actions.status,
    "probe_path": actions.probe_path,
    "accounts": accounts.accounts,
    "signing_secret": actions.signing_secret,
    "replay_notice": actions.replay_notice,
    "retry_archive": actions.retry_archive,
    "redrive": dead_letter_queue.redrive,
    "export": csv_export.export,
    "reconcile": reconcile.action,
}
