"""Provide the template as AWS sees it, and finders that name violations, for the rules of this folder."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from kling_relay.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
_PACKAGE = REPOSITORY / "layers/relay/kling_relay"

Template = dict[str, Any]


def of_type(template: Template, kind: str) -> dict[str, dict[str, Any]]:
    """Logical id -> resource, for the resources of one type."""
    return {name: resource for name, resource in template["Resources"].items() if resource["Type"] == kind}


def walk(node: Any) -> Iterator[tuple[str, Any]]:
    """Every (key, value) below `node`; items of lists have the key ""."""
    if isinstance(node, dict):
        pairs = list(node.items())
    else:
        pairs = [("", item) for item in node] if isinstance(node, list) else []
    for key, value in pairs:
        yield str(key), value
        yield from walk(value)


def references(node: Any) -> set[str]:
    """What `node` refers to by Ref, Fn::GetAtt and Fn::Sub: logical ids, parameters, pseudo parameters."""
    found: set[str] = set()
    for key, value in walk(node):
        if key == "Ref":
            found.add(value)
        elif key == "Fn::GetAtt":
            found.add((value if isinstance(value, str) else value[0]).partition(".")[0])
        elif key == "Fn::Sub":
            text, own = (value, {}) if isinstance(value, str) else (value[0], value[1])
            names = {name.partition(".")[0] for name in re.findall(r"\$\{([^!}]+)\}", text)}
            found |= names - set(own)
    return found


def edges(template: Template) -> dict[str, set[str]]:
    """Logical id -> the resources that have to exist before it."""
    resources = template["Resources"]
    depends = {}
    for name, resource in resources.items():
        said = resource.get("DependsOn", [])
        depends[name] = (references(resource) | set([said] if isinstance(said, str) else said)) & set(resources)
    return depends


def cycle(depends: dict[str, set[str]]) -> list[str]:
    """One cycle of a dependency graph, as a path that ends where it begins; empty without one."""
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for needed in sorted(depends.get(name, ())):
            if found := search(needed, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(depends) if (found := search(name, []))), [])


def statements(template: Template) -> Iterator[tuple[str, list[str], list[Any]]]:
    """(role, actions, resources) of every statement in the roles' own policies."""
    for role, resource in of_type(template, "AWS::IAM::Role").items():
        for policy in resource["Properties"].get("Policies", []):
            for written in _listed(policy["PolicyDocument"]["Statement"]):
                statement = written["Fn::If"][1] if "Fn::If" in written else written  # as it is where it holds
                yield role, _listed(statement["Action"]), _listed(statement["Resource"])


def stars(template: Template) -> tuple[set[str], set[tuple[str, str]]]:
    """Roles that may do `*` or `service:*`, and (role, action) pairs that may do it to every resource."""
    free_actions, free_resources = set(), set()
    for role, actions, resources in statements(template):
        free_actions |= {role for action in actions if "*" in action}
        if any(resource == "*" for resource in resources):
            free_resources |= {(role, action) for action in actions}
    return free_actions, free_resources


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def targets(state: dict[str, Any]) -> set[str]:
    """The states that may follow `state`."""
    follows = {state[key] for key in ("Next", "Default") if key in state}
    follows |= {choice["Next"] for choice in state.get("Choices", [])}
    return follows | {catcher["Next"] for catcher in state.get("Catch", [])}


def route_problems(machine: dict[str, Any]) -> list[str]:
    """States that do not exist, are never reached, or lead nowhere."""
    states = machine["States"]
    problems = [
        f"{name} goes to {to}, which does not exist" for name in states for to in targets(states[name]) - {*states}
    ]
    reached, open_ends = set(), [machine["StartAt"]]
    while open_ends:
        name = open_ends.pop()
        if name in states and name not in reached:
            reached.add(name)
            open_ends += targets(states[name])
    problems += [f"{name} is never reached" for name in states if name not in reached]
    ends = {"Succeed", "Fail"}
    leads = {name: bool({"Next", "Choices"} & set(state)) or state.get("End") is True for name, state in states.items()}
    return problems + [
        f"{name} leads nowhere" for name in states if not leads[name] and states[name]["Type"] not in ends
    ]


def settings_read(folder: Path) -> tuple[set[str], set[str]]:
    """Settings that the function in `folder` may read, and those that it cannot do without (`need`).

    Follows the code from the handler: names that a module defines or imports, `module.name`, `self.name`, and what
    hangs on a Relay. It does not know which branch is taken, so it may find too many.
    """
    modules = _package()
    reads, needs = set(), set()
    handler = _Module(folder / "app.py")
    open_nodes: list[tuple[_Module, ast.AST]] = [(handler, handler.tree)]
    seen: set[tuple[str, str]] = set()
    while open_nodes:
        module, tree = open_nodes.pop()
        for node in ast.walk(tree):
            owners = ("self",) if module.name == "settings" else ("settings", "_settings")
            if isinstance(node, ast.Attribute) and _name(node.value) in owners:
                reads.add(node.attr)
            if isinstance(node, ast.Call) and _name(node.func) == "getattr" and _name(node.args[0]) == "settings":
                beginning = node.args[1].values[0].value  # an f-string
                reads |= {field.name for field in fields(Settings) if field.name.startswith(beginning)}
            if isinstance(node, ast.Call) and _name(node.func) in _NEEDING and isinstance(node.args[0], ast.Constant):
                needs.add(str(node.args[0].value))
            place = module.place(node)
            if place is not None and place not in seen and place[0] in modules:
                seen.add(place)
                open_nodes += [(modules[place[0]], found) for found in modules[place[0]].definitions.get(place[1], [])]
    return (reads | needs) & {field.name for field in fields(Settings)}, needs


_NEEDING = ("need", "_required")
_ON_A_RELAY = {"services": "services", "table": "tasks.table", "provider": "provider.client", "settings": "settings"}
_ON_A_RELAY["secrets"] = "security.stored_secrets"
_MODULES = {".".join(path.relative_to(_PACKAGE).with_suffix("").parts): path for path in _PACKAGE.rglob("*.py")}


class _Module:
    def __init__(self, path: Path, name: str = "app") -> None:
        self.name = name
        self.tree = ast.parse(path.read_text())
        self.definitions: dict[str, list[ast.AST]] = {}
        self.imported: dict[str, tuple[str, str]] = {}  # name here -> module, name there ("" for the module itself)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef):
                self.definitions.setdefault(node.name, []).append(node)
            elif isinstance(node, ast.ClassDef):  # who names a class may make one, no more
                self.definitions[node.name] = [made for made in node.body if _name_of(made) == "__init__"]
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                aim = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if isinstance(aim, ast.Name) and node.value is not None:
                    self.definitions.setdefault(aim.id, []).append(node.value)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kling_relay"):
                source = (node.module or "").partition(".")[2]
                for alias in node.names:
                    whole = f"{source}.{alias.name}".removeprefix(".")
                    aim = (whole, "") if whole in _MODULES else (source, alias.name)
                    self.imported[alias.asname or alias.name] = aim

    def place(self, node: ast.AST) -> tuple[str, str] | None:
        """(module, name) of the definition that `node` leads to."""
        if isinstance(node, ast.Name):
            return self.imported.get(node.id, (self.name, node.id))
        if not isinstance(node, ast.Attribute):
            return None
        owner = _name(node.value)
        if owner == "self":
            return self.name, node.attr
        if owner in self.imported and self.imported[owner][1] == "":
            return self.imported[owner][0], node.attr
        for value in self.definitions.get(owner, []):  # a method of an object that this module makes
            if isinstance(value, ast.Call) and _name(value.func) in self.imported:
                return self.imported[_name(value.func)][0], node.attr
        return (_ON_A_RELAY[owner], node.attr) if owner in _ON_A_RELAY else None


@cache
def _package() -> dict[str, _Module]:
    return {name: _Module(path, name) for name, path in _MODULES.items()}


def _name_of(node: ast.AST) -> str:
    return node.name if isinstance(node, ast.FunctionDef) else ""


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
