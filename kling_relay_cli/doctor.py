"""What can be wrong with a deployed stack, one check each, and what to do about it."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import requests
from botocore.exceptions import BotoCoreError, ClientError

from kling_relay_cli import delivery_key, provider_secret
from kling_relay_cli.stack import DeployedStack, OperatorError, explained

_TIMEOUT = 15
_BODY = b"{}"
NOBODY = {"code": 1202, "message": "method or path not found", "request_id": ""}
"""The callback function's answer to whoever has no token, always the same. The gateway's own has a request id."""


class Problem(Exception):
    """A check that did not pass: `what` is wrong, and the `remedy`."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


class Hint(Problem):
    """Nothing is wrong, and there is something better."""


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    problem: str = ""
    remedy: str = ""
    note: str = ""
    hint: str = ""


def examine(stack: DeployedStack) -> list[Finding]:
    """Every check, in order; without a complete stack there is nothing to ask the others."""
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
    except OperatorError as exc:
        return Finding(name, str(exc), exc.remedy)
    except (ClientError, BotoCoreError) as exc:
        trouble = explained(exc, stack)
        return Finding(name, str(trouble), trouble.remedy)


def _complete(stack: DeployedStack) -> None:
    status = stack.described["StackStatus"]
    if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"):
        remedy = "wait until it is done" if status.endswith("IN_PROGRESS") else f"read its events, then {stack.deploy}"
        raise Problem(f"the stack is {status}", remedy)


def _provider_key(stack: DeployedStack) -> None:
    if not stack.has_provider_key():
        raise Problem("no provider key is stored", f"make provider-key STAGE={stack.stage}")


def _accounts(stack: DeployedStack) -> str:
    """What is open at each account; one that has open tasks needs its key until they have ended."""
    answer = stack.operate("accounts")
    shown = [
        f"{one['account']}{' (new tasks)' if one['current'] else ''}: {one['open']} open, {one['in_doubt']} in doubt, "
        f"{one['parked']} parked"
        for one in answer["accounts"]
    ]
    if without := [one["account"] for one in answer["accounts"] if one["open"] and not one["has_key"]]:
        remedy = (
            f"deploy with the account's Provider and ProviderAccount once, then make provider-key STAGE={stack.stage}"
        )
        raise Problem(f"tasks are open at {', '.join(without)}, and its key is not stored", remedy)
    return "; ".join(shown) + ("" if answer["whole"] else "; the oldest tasks only")


def _delivery_key(stack: DeployedStack) -> None:
    if not stack.delivery_url:
        remedy = f"make delivery-key STAGE={stack.stage}"
        raise Hint(
            "no delivery key: video URLs expire after 12 hours at most, and refuse an Authorization header", remedy
        )
    delivery_key.check(stack)


def _base_url(stack: DeployedStack) -> None:
    """Callbacks go where this parameter points to."""
    if stack.base_url != stack.api_address:
        remedy = f"aws ssm put-parameter --overwrite --name /{stack.name}/base-url --value {stack.api_address}"
        raise Problem(f"the parameter is {stack.base_url}, the API is at {stack.api_address}", remedy)


def _post(url: str, **headers: str) -> requests.Response:
    headers = {"Content-Type": "application/json", **headers}
    try:
        return requests.post(url, data=_BODY, headers=headers, timeout=_TIMEOUT, allow_redirects=False)
    except requests.RequestException as exc:
        remedy = "check the domain's DNS record and certificate, and the network connection"
        raise Problem(f"{url} cannot be reached ({type(exc).__name__})", remedy) from None


def _json(response: requests.Response) -> object:
    try:
        return response.json()
    except requests.JSONDecodeError:
        return None


def _api_answers(stack: DeployedStack) -> None:
    response = _post(f"{stack.base_url}/kling/v1/videos/image2video")
    answer = _json(response)
    if response.status_code != 401 or not isinstance(answer, dict) or answer.get("code") != 1001:
        remedy = "read the newest errors in the log of TaskApiFunction"
        raise Problem(f"HTTP {response.status_code} instead of 401 with code 1001: {response.text[:200]}", remedy)


def _callback_address(stack: DeployedStack) -> None:
    response = _post(f"{stack.base_url}/hooks/kling/x/k1.x")
    if response.status_code != 404 or _json(response) != NOBODY:
        remedy = "read the log of KlingCallbackFunction; until then polling delivers videos, later"
        raise Problem(f"HTTP {response.status_code}, {response.text[:200]}", remedy)


def _callbacks_arrive(stack: DeployedStack) -> str:
    """As the provider's own would: with a token, and a signature where there is a secret. Returns the address."""
    secrets = provider_secret.webhook_secrets(stack.provider_secret(), stack.account)
    given = {p["ParameterKey"]: p.get("ParameterValue", "") for p in stack.described.get("Parameters", [])}
    if given.get("RequireWebhookSignature") == "on" and not secrets:
        remedy = f"make webhook-secret STAGE={stack.stage}, or deploy with RequireWebhookSignature=off"
        raise Problem("signatures are required, and no webhook secret is stored, so all callbacks are refused", remedy)
    now = int(time.time())
    headers = provider_secret.signed(secrets[0], f"doctor-{now}", now, _BODY) if secrets else {}
    address = f"{stack.base_url}{stack.operate('probe_path')['path']}"
    response = _post(address, **headers)
    if response.status_code != 200:
        remedy = "read the log of KlingCallbackFunction; until then polling delivers videos, later"
        raise Problem(f"HTTP {response.status_code}, {response.text[:200]}", remedy)
    return f"for the test callback in Kling's console: {address}"


_TOPICS = {"OperatorTopic": "pages", "TicketTopic": "tickets"}


def _subscription(stack: DeployedStack) -> None:
    """Both topics have somebody who has confirmed."""
    found = {told: _subscribed(stack, topic) for topic, told in _TOPICS.items() if topic in stack.outputs}
    if none := [told for told, arns in found.items() if not arns]:
        remedy = f"deploy with your address: {stack.deploy} PARAMETERS=OperatorEmail=you@example.com"
        raise Problem(f"no subscription for {' or '.join(none)}", remedy)
    if pending := [told for told, arns in found.items() if not any(arn.startswith("arn:") for arn in arns)]:
        remedy = "click on the link in each mail from AWS Notifications"
        raise Problem(f"the subscription to {' and '.join(pending)} is not confirmed", remedy)


def _subscribed(stack: DeployedStack, topic: str) -> list[str]:
    """The subscriptions' ARNs; one that is not confirmed has a word in its place."""
    pages = stack.client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=stack.outputs[topic])
    return [subscription["SubscriptionArn"] for page in pages for subscription in page["Subscriptions"]]


def _state_machine(stack: DeployedStack) -> None:
    machine = stack.client("stepfunctions").describe_state_machine(stateMachineArn=stack.outputs["StateMachineArn"])
    if machine["status"] != "ACTIVE":
        raise Problem(f"it is {machine['status']}", stack.deploy)
    if "AwaitCallback" not in json.loads(machine["definition"])["States"]:
        raise Problem("its definition is not the one of template.yaml", stack.deploy)


def _sweeper(stack: DeployedStack) -> None:
    rule = stack.client("events").describe_rule(Name=stack.resource("SweepTasksFunctionEveryMinute"))
    if rule["State"] != "ENABLED":
        remedy = f"aws events enable-rule --name {rule['Name']} (without it, overdue tasks are not restarted)"
        raise Problem(f"the rule is {rule['State']}", remedy)


def _sending(stack: DeployedStack) -> None:
    held = stack.operate("status")
    if held["paused"]:
        because = f": {held['reason']}" if held["reason"] else ""
        raise Problem(f"sending is paused, so new tasks wait{because}", f"make resume STAGE={stack.stage}")


_CHECKS: dict[str, Callable[[DeployedStack], str | None]] = {
    "the provider's key is stored": _provider_key,
    "open tasks have their account's key": _accounts,
    "a delivery key signs video URLs": _delivery_key,
    "the base URL is the API's address": _base_url,
    "the API answers in Kling's envelope": _api_answers,
    "the callback address answers": _callback_address,
    "a callback arrives": _callbacks_arrive,
    "alarm subscriptions are confirmed": _subscription,
    "the state machine is active": _state_machine,
    "the sweeper runs every minute": _sweeper,
    "sending is not paused": _sending,
}
