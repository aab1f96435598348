"""Correct IAM: services use their roles and policies, and each authorization of a role is recorded."""

import json
import os
import threading
from pathlib import Path
from typing import Any

from ministack.core import iam_actions, iam_evaluator
from ministack.core.iam_evaluator import EvalContext, PrincipalInfo
from ministack.core.responses import get_account_id, get_region
from ministack.services import eventbridge, lambda_svc, secretsmanager, sqs
from ministack.services import stepfunctions as sfn
from ministack.services.cloudformation import provisioners

from local.emulator.patches.patching import correction, swap, wrap
from local.emulator.patches.task_tokens import machine_of

_POLLING = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")
"""The permissions that Lambda needs from a function's role to read its queue."""

_writing = threading.Lock()


def _note(role: str, action: str, resource: str, allowed: bool) -> None:
    """Append one line to CALLS_FILE: the authorization of a role for an action on a resource."""
    if path := os.environ.get("CALLS_FILE"):
        line = json.dumps({"role": role, "action": action, "resource": resource, "allowed": allowed})
        with _writing, Path(path).open("a") as calls:
            calls.write(line + "\n")


@correction
def calls_of_roles_are_written_down() -> None:
    """MiniStack (AUTH=true) checks calls and keeps no record. AWS: CloudTrail."""

    @wrap(iam_evaluator, "enforce", "cf64b1ee5b09")
    def enforce(stock: Any, access_key: str, action: str, service: str, region: str, *args: Any, **kwargs: Any) -> Any:
        refusal = stock(access_key, action, service, region, *args, **kwargs)
        caller = iam_evaluator.resolve_principal(access_key, get_account_id())
        if isinstance(caller, PrincipalInfo) and caller.type == "AssumedRole":
            role = iam_evaluator._role_name_from_assumed_arn(caller.arn)
            _note(role, action, kwargs.get("resource_arn", "*"), refusal is None)
        return refusal


@correction
def every_connection_counts_as_tls() -> None:
    """MiniStack uses plain HTTP here, which our buckets' policies deny. AWS: clients use TLS."""
    swap(
        iam_evaluator.pin_request_origin,
        ("_request_origin.set((source_ip, secure_transport))", "_request_origin.set((source_ip, True))"),
    )


def _role_allows(role_arn: str, action: str, resource: str) -> bool:
    """Return whether a role assumed by a service allows the action; True if the role does not exist."""
    role = role_arn.rpartition("/")[2]
    policies = iam_evaluator._gather_role_policies(role, get_account_id())
    if not policies:
        return True
    principal = f"arn:aws:sts::{get_account_id()}:assumed-role/{role}/service"
    context = EvalContext(principal, "AssumedRole", get_account_id(), action, resource, get_region())
    allowed: bool = iam_evaluator.evaluate(context, policies).decision == "Allow"
    _note(role, action, resource, allowed)
    return allowed


def _check_task(resource: str, parameters: Any, execution: dict[str, Any]) -> None:
    """Raise the error of a task that its state machine's role does not allow. Supports the integrations that we use."""
    machine = sfn._state_machines.get(execution.get("stateMachineArn"), {})
    if resource.startswith("arn:aws:states:::lambda:invoke"):
        action, target, error = "lambda:InvokeFunction", parameters["FunctionName"], "Lambda.AWSLambdaException"
    elif resource.startswith("arn:aws:states:::aws-sdk:dynamodb:"):
        name = resource.removeprefix("arn:aws:states:::aws-sdk:dynamodb:").partition(".")[0]
        action, error = f"dynamodb:{name[0].upper()}{name[1:]}", "DynamoDb.DynamoDbException"
        target = f"arn:aws:dynamodb:{get_region()}:{get_account_id()}:table/{parameters['TableName']}"
    else:
        return
    if not _role_allows(machine.get("roleArn", ""), action, target):
        raise sfn._ExecutionError(error, f"the state machine's role may not {action} {target}")


@correction
def batches_are_checked_as_single_messages() -> None:
    """MiniStack checks sqs:SendMessageBatch. IAM has no such action; AWS checks sqs:SendMessage."""

    @wrap(iam_actions, "extract_iam_action", "ec476b92d969")
    def extract(stock: Any, *args: Any) -> Any:
        action = stock(*args)
        return action.removesuffix("Batch") if (action or "").startswith("sqs:") else action


@correction
def versions_are_deleted_by_an_action_of_their_own() -> None:
    """MiniStack checks s3:DeleteObject for the first version of a DeleteObjects. AWS: s3:DeleteObjectVersion as
    well."""

    @wrap(iam_actions, "s3_additional_checks", "26e5e5602d74")
    def checks(stock: Any, method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:
        first = []
        if method == "POST" and "delete" in query:
            first = iam_actions._s3_batch_delete_targets(path.strip("/"), body)[:1]
        versions = [("s3:DeleteObjectVersion", resource) for resource, version in first if version]
        return versions + stock(method, path, headers, body, query)


@correction
def task_tokens_belong_to_their_state_machine() -> None:
    """MiniStack checks SendTask... without a resource. AWS: against the state machine of the token."""

    @wrap(iam_actions, "extract_resource_arn", "82f51700695c")
    def extract(stock: Any, service: str, method: str, path: str, headers: Any, body: bytes, *args: Any) -> Any:
        if service == "states" and b'"taskToken"' in body:
            return machine_of(json.loads(body)["taskToken"]) or "*"
        return stock(service, method, path, headers, body, *args)


@correction
def state_machines_act_under_their_role() -> None:
    """MiniStack runs every task. AWS: a task fails if the state machine's role does not allow its call."""
    swap(
        sfn._execute_task,
        (
            "            if _mock_throw is not None:\n",
            "            _check_task(resource, effective, execution)\n            if _mock_throw is not None:\n",
        ),
        _check_task=_check_task,
    )


@correction
def queues_are_polled_under_the_functions_role() -> None:
    """MiniStack reads any queue for any function. AWS: the function's role must allow it."""

    @wrap(lambda_svc, "_run_sqs_batch", "f9bf630aabf3")
    def run(stock: Any, mapping: dict[str, Any], function: dict[str, Any], *args: Any) -> None:
        role = function["config"]["Role"]
        if all([_role_allows(role, action, mapping["EventSourceArn"]) for action in _POLLING]):
            stock(mapping, function, *args)


@correction
def rules_deliver_where_the_queue_lets_them() -> None:
    """MiniStack puts a rule's events into any queue. AWS: the queue's policy must admit the rule."""
    swap(
        eventbridge._invoke_target,
        (
            "            _dispatch_to_sqs(",
            "            if not _queue_admits(arn, rule):\n"
            "                raise PermissionError(f\"{arn} does not admit {rule.get('Arn')}\")\n"
            "            _dispatch_to_sqs(",
        ),
        _queue_admits=lambda queue, rule: sqs.queue_policy_allows(
            queue, "events.amazonaws.com", rule["Arn"], get_account_id()
        ),
    )


@correction
def references_to_secrets_are_their_arns() -> None:
    """MiniStack's `Ref` of a secret is its name. AWS: its ARN, which policies contain."""
    handlers = provisioners._RESOURCE_HANDLERS["AWS::SecretsManager::Secret"]
    create, update, delete = (handlers[verb] for verb in ("create", "update", "delete"))

    def name(physical_id: str) -> str:
        found, _ = secretsmanager._resolve(physical_id)
        return str(found or physical_id)

    def created(*args: Any, **kwargs: Any) -> Any:
        _, attributes = create(*args, **kwargs)
        return attributes["Arn"], attributes

    def updated(physical_id: str, *args: Any, **kwargs: Any) -> Any:
        _, attributes = update(name(physical_id), *args, **kwargs)
        return attributes["Arn"], attributes

    def deleted(physical_id: str, *args: Any) -> None:
        delete(name(physical_id), *args)

    handlers.update(create=created, update=updated, delete=deleted)
