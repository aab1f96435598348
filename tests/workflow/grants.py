"""List the permissions of the deployed roles, and those that were used on this stack."""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from local.stack.deploy_template import STACK_NAME
from tests.workflow.driver import Driver


class Grant(NamedTuple):
    """One action on one resource; a managed policy is the action, without a resource. `role`: its logical id."""

    role: str
    action: str
    resource: str

    def covers(self, call: "Call") -> bool:
        """As IAM compares: actions whatever their case, resources exactly."""
        return (
            self.role == call.role
            and _like(self.action.lower(), call.action.lower())
            and _like(self.resource, call.resource)
        )


class Call(NamedTuple):
    """What a role asked for, and whether it was allowed to: a line of the emulator's record."""

    role: str
    action: str
    resource: str
    allowed: bool


def granted(driver: Driver) -> list[Grant]:
    """Every grant of every role of the stack, with the names of what was deployed."""
    iam = driver.emulator.client("iam")
    found = []
    for name, role in _roles(driver).items():
        for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            found.append(Grant(role, policy["PolicyArn"], ""))
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
            found += [Grant(role, *pair) for statement in document["Statement"] for pair in _pairs(statement)]
    return found


def calls(driver: Driver) -> set[Call]:
    """Everything that roles of the stack have asked for since it was started."""
    roles = _roles(driver)
    lines = map(json.loads, driver.emulator.calls_path.read_text().splitlines())
    return {Call(**{**line, "role": roles[line["role"]]}) for line in lines}


def unused(grants: Collection[Grant], made: Collection[Call]) -> set[Grant]:
    """The grants that no call needed."""
    return {grant for grant in grants if not any(grant.covers(call) for call in made)}


def _roles(driver: Driver) -> dict[str, str]:
    """Name of each role -> its logical id."""
    resources = driver.emulator.client("cloudformation").describe_stack_resources(StackName=STACK_NAME)
    return {
        one["PhysicalResourceId"]: one["LogicalResourceId"]
        for one in resources["StackResources"]
        if one["ResourceType"] == "AWS::IAM::Role"
    }


def _pairs(statement: dict[str, Any]) -> Iterator[tuple[str, str]]:
    assert statement["Effect"] == "Allow"
    for action in _listed(statement["Action"]):
        for resource in _listed(statement["Resource"]):
            yield action, resource


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _like(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text) is not None
