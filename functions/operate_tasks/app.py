"""What an operator can do. Called through IAM only; no address on the internet leads here.

{"action": "create_key", "tenant": "acme"} answers the new key, once. More, all optional: "label", "scopes" (list of
"submit", "read"), and "expires_in_days" or "expires_at" (ISO date or time; UTC where it names no zone).
{"action": "list_keys", "tenant": "acme"} answers what is known of a tenant's keys, never a key.
{"action": "revoke_key", "key_id": "..."} ends one, at once.
{"action": "set_cap", "tenant": "acme", "units": 500} caps what a tenant may commit in a month; 0: no cap, null: the
stack's own. {"action": "spend", "tenant": "acme"} answers the cap and this month's figure.
{"action": "pause", "reason": "..."} stops new paid POSTs, {"action": "resume"} lets them go on, {"action": "status"}
says which of both holds.
{"action": "signing_secret", "tenant": "acme"} answers what webhooks to a tenant are signed with; "change": true changes
it. {"action": "replay_notice", "task_id": "..."} sends a task's webhooks once more, or only that of "sequence".
{"action": "retry_archive", "task_id": "..."} has a copy that failed begin again now.
{"action": "redrive", "queue": "IntakeDeadLetters"} sends what lies in a dead-letter queue back to where it came from.
{"action": "export", "since": "2026-11-01", "until": "...", "tenant": "..."} answers the tasks recorded then as CSV.
{"action": "probe_path"} answers where, below the API's address, a test callback may be sent to.
{"action": "accounts"} lists the provider accounts: which have a key, and what is open at each.
{"action": "reconcile"} compares our rows with what the provider knows of the last 30 days, or of "days"; it only reads.
"""

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.observability import logger
from kling_relay.operations import accounts, actions, csv_export, dead_letter_queue, reconcile
from kling_relay.services import Services, get_services

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


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    action = ACTIONS.get(str(event.get("action")))
    if action is None:
        raise ValueError(f"action: must be one of {', '.join(ACTIONS)} (got {event.get('action')!r})")
    logger.append_keys(task_id=event.get("task_id"))
    logger.info("operator_action_invoked", extra={"action": event["action"]})
    return action(get_services(), event)
