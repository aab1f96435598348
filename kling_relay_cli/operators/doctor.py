"""The checks of a deployed stack, each with the remedy of its problem."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import requests
from botocore.exceptions import BotoCoreError, ClientError

from kling_relay_cli.errors import CommandError
from kling_relay_cli.operators import delivery_key, provider_secret
from kling_relay_cli.operators.stack import DeployedStack, explained

_TIMEOUT = 15
_BODY = b"{}"
NOT_FOUND = {"code": 1202, "message": "method or path not found", "request_id": ""}
"""The callback function's response to any request without a valid token. The gateway's own 404 has a request id."""


class Problem(Exception):
    """A failed check: `what` is wrong, and the `remedy`."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


class Hint(Problem):
    """A passed check with a recommendation."""


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    problem: str = ""
    remedy: str = ""
    note: str = ""
    hint: str = ""


def examine(stack: DeployedStack) -> list[Finding]:
    """Run every check in order; only the first one if the stack is not complete."""
    findings = [_finding(stack, "the stack is deployed", _complete)]
    if not findings[0].problem:
        findings += [_finding(stack, name, check) for name, check in _CHECKS.items()]
    return findings


def _finding(stack: DeployedStack, name: str, check: Callable[[DeployedStack], str | None]) -> Finding:
    try:
        return Finding(name, note=check(stack) or "")
    except Hint as exc:
        return Finding(name, hint=exc.what, remedy=exc.remedy)
    except Problem as exc:
        return Finding(name, exc.what, exc.remedy)
    except CommandError as exc:
        return Finding(name, str(exc), exc.remedy)
    except (ClientError, BotoCoreError) as exc:
        error = explained(exc, stack)
        return Finding(name, str(error), error.remedy)


def _complete(stack: DeployedStack) -> None:
    status = stack.described["StackStatus"]
    if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"):
        remedy = "wait for its end" if status.endswith("IN_PROGRESS") else f"read its events, then {stack.deploy}"
        raise Problem(f"stack {stack.name}: not complete (status {status})", remedy)


def _provider_key(stack: DeployedStack) -> None:
    if not stack.has_provider_key():
        raise Problem("provider key: not stored", stack.command("provider-key"))


def _accounts(stack: DeployedStack) -> str:
    """Return the open tasks of each account. An account needs its key until its last task ends."""
    answer = stack.operate("accounts")
    shown = [
        f"{one['account']}{' (new tasks)' if one['current'] else ''}: {one['open']} open, {one['in_doubt']} in doubt, "
        f"{one['parked']} parked"
        for one in answer["accounts"]
    ]
    if without := [one["account"] for one in answer["accounts"] if one["open"] and not one["has_key"]]:
        remedy = f"deploy once with its Provider and ProviderAccount, then {stack.command('provider-key')}"
        raise Problem(f"provider key of {', '.join(without)}: not stored, although tasks are open", remedy)
    return "; ".join(shown) + ("" if answer["whole"] else "; only the oldest tasks were counted")


def _delivery_key(stack: DeployedStack) -> None:
    if not stack.delivery_url:
        rule = "URLs are valid for 12 hours at most, and reject requests with an Authorization header"
        raise Hint(f"delivery key: not stored; {rule}", stack.command("delivery-key"))
    delivery_key.check(stack)


def _base_url(stack: DeployedStack) -> None:
    """Compare the parameter with the API's URL: the provider sends callbacks to the parameter's value."""
    if stack.base_url != stack.api_address:
        remedy = f"aws ssm put-parameter --overwrite --name /{stack.name}/base-url --value {stack.api_address}"
        raise Problem(f"base URL: must be {stack.api_address} (got {stack.base_url})", remedy)


def _post(url: str, **headers: str) -> requests.Response:
    headers = {"Content-Type": "application/json", **headers}
    try:
        return requests.post(url, data=_BODY, headers=headers, timeout=_TIMEOUT, allow_redirects=False)
    except requests.RequestException as exc:
        remedy = "check the domain's DNS record and certificate, and this machine's network"
        raise Problem(f"{url}: no connection ({type(exc).__name__})", remedy) from None


def _json(response: requests.Response) -> object:
    try:
        return response.json()
    except requests.JSONDecodeError:
        return None


_CALLBACKS_LOST = "read the log of KlingCallbackFunction; without callbacks, polling finds finished videos later"


def _api_responds(stack: DeployedStack) -> None:
    response = _post(f"{stack.base_url}/kling/v1/videos/image2video")
    body = _json(response)
    if response.status_code != 401 or not isinstance(body, dict) or body.get("code") != 1001:
        rule = "a request without a key must get HTTP 401 with code 1001"
        got = f"HTTP {response.status_code}: {response.text[:200]}"
        raise Problem(f"API: {rule} (got {got})", "read the newest errors in the log of TaskApiFunction")


def _callback_url(stack: DeployedStack) -> None:
    response = _post(f"{stack.base_url}/hooks/kling/x/k1.x")
    if response.status_code != 404 or _json(response) != NOT_FOUND:
        got = f"HTTP {response.status_code}: {response.text[:200]}"
        raise Problem(f"callback URL: a wrong token must get KlingCallbackFunction's 404 (got {got})", _CALLBACKS_LOST)


def _callbacks_arrive(stack: DeployedStack) -> str:
    """Send a callback as the provider does: with a token, and a signature if a secret is stored. Returns the URL."""
    secrets = provider_secret.webhook_secrets(stack.provider_secret(), stack.account)
    given = {p["ParameterKey"]: p.get("ParameterValue", "") for p in stack.described.get("Parameters", [])}
    if given.get("RequireWebhookSignature") == "on" and not secrets:
        remedy = f"{stack.command('webhook-secret')}, or deploy with RequireWebhookSignature=off"
        raise Problem("webhook secret: not stored; signatures are required, so all callbacks are rejected", remedy)
    now = int(time.time())
    headers = provider_secret.signed(secrets[0], f"doctor-{now}", now, _BODY) if secrets else {}
    url = f"{stack.base_url}{stack.operate('probe_path')['path']}"
    response = _post(url, **headers)
    if response.status_code != 200:
        raise Problem(f"callback: rejected (got HTTP {response.status_code}: {response.text[:200]})", _CALLBACKS_LOST)
    return f"URL for the test callback in Kling's console: {url}"


_TOPICS = {"OperatorTopic": "pages", "TicketTopic": "tickets"}


def _subscription(stack: DeployedStack) -> None:
    """Both topics need a confirmed subscription."""
    found = {kind: _subscribed(stack, topic) for topic, kind in _TOPICS.items() if topic in stack.outputs}
    if missing := [kind for kind, arns in found.items() if not arns]:
        remedy = f"deploy with your address: {stack.deploy} PARAMETERS=OperatorEmail=you@example.com"
        raise Problem(f"alarms: no subscription to {' and '.join(missing)}", remedy)
    if pending := [kind for kind, arns in found.items() if not any(arn.startswith("arn:") for arn in arns)]:
        remedy = "click the link in each mail from AWS Notifications"
        raise Problem(f"alarms: the subscription to {' and '.join(pending)} is not confirmed", remedy)


def _subscribed(stack: DeployedStack, topic: str) -> list[str]:
    """Return the subscriptions' ARNs. An unconfirmed one has the text PendingConfirmation instead."""
    pages = stack.client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=stack.outputs[topic])
    return [subscription["SubscriptionArn"] for page in pages for subscription in page["Subscriptions"]]


def _state_machine(stack: DeployedStack) -> None:
    machine = stack.client("stepfunctions").describe_state_machine(stateMachineArn=stack.outputs["StateMachineArn"])
    if machine["status"] != "ACTIVE":
        raise Problem(f"state machine: must be ACTIVE (got {machine['status']})", stack.deploy)
    if "AwaitCallback" not in json.loads(machine["definition"])["States"]:
        raise Problem("state machine: its definition is not from this project", stack.deploy)


def _sweeper(stack: DeployedStack) -> None:
    rule = stack.client("events").describe_rule(Name=stack.resource("SweepTasksFunctionEveryMinute"))
    if rule["State"] != "ENABLED":
        remedy = f"aws events enable-rule --name {rule['Name']}; without the rule, no overdue task is restarted"
        raise Problem(f"sweeper rule: must be ENABLED (got {rule['State']})", remedy)


def _submissions(stack: DeployedStack) -> None:
    state = stack.operate("status")
    if state["paused"]:
        reason = f" ({state['reason']})" if state["reason"] else ""
        raise Problem(f"submissions: paused by an operator{reason}; new tasks wait", stack.command("resume"))


_CHECKS: dict[str, Callable[[DeployedStack], str | None]] = {
    "the provider's key is stored": _provider_key,
    "open tasks have their account's key": _accounts,
    "video URLs are signed by a delivery key": _delivery_key,
    "the base URL parameter is the API's URL": _base_url,
    "the API responds in Kling's envelope": _api_responds,
    "the callback URL responds": _callback_url,
    "a test callback arrives": _callbacks_arrive,
    "alarms have confirmed subscriptions": _subscription,
    "the state machine is active": _state_machine,
    "the sweeper runs every minute": _sweeper,
    "submissions are not paused": _submissions,
}
