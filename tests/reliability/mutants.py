"""List the possible mutants of a module: each place of its syntax tree, and its replacement. Pure.

Wording is not behaviour: docstrings, log fields and the texts of errors are not mutated, nor are annotations.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_SWAPS: dict[type[Any], type[Any]] = {
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult},
    **{ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.Mod: ast.Mult},
}
_WORDS = {"bad_parameter", "KlingError", "FetchError", "RuntimeError", "ValueError", "append_keys"}  # raised or logged


def changes(node: ast.AST) -> Iterator[ast.AST | None]:
    """What may stand in a node's place; None where a statement is left out."""
    if isinstance(node, ast.Constant):
        yield from _other(node.value)
    elif isinstance(node, ast.Compare):
        yield from (
            _with(node, ops=[*node.ops[:at], _SWAPS[type(op)](), *node.ops[at + 1 :]]) for at, op in enumerate(node.ops)
        )
    elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in _SWAPS:
        yield _with(node, op=_SWAPS[type(node.op)]())
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.Call):
        named = [at for at, keyword in enumerate(node.keywords) if keyword.arg is not None]
        yield from (_with(node, keywords=node.keywords[:at] + node.keywords[at + 1 :]) for at in named)
    elif isinstance(node, ast.stmt):
        yield from _other_statement(node)


def _other_statement(node: ast.stmt) -> Iterator[ast.AST | None]:
    if isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Break | ast.Continue):
        yield ast.Continue() if isinstance(node, ast.Break) else ast.Break()
    elif isinstance(node, ast.Expr | ast.Raise | ast.Delete | ast.AugAssign):
        yield None


def _other(value: Any) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield ast.Constant(value + 1)
    elif isinstance(value, str):
        yield ast.Constant("" if value else "X")
    elif isinstance(value, bytes):
        yield ast.Constant(b"" if value else b"X")


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, int]]:
    """(parent, field, place in a list, number of the change) of every mutant, in source order."""
    for field, value in ast.iter_fields(tree):
        for place, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or _untouched(tree, field, node):
                continue
            yield from ((tree, field, place, number) for number, _ in enumerate(changes(node)))
            yield from places(node)


def _untouched(parent: ast.AST, field: str, node: ast.AST) -> bool:
    if field in ("annotation", "returns", "decorator_list", "bases", "slice") and not isinstance(parent, ast.Subscript):
        return True
    if isinstance(parent, ast.Subscript) and field == "slice" and isinstance(parent.value, ast.Name):
        return parent.value.id in ("list", "dict", "set", "tuple", "frozenset", "Literal", "Callable", "Mapping")
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or _is_wording(node.value)
    if isinstance(node, (ast.JoinedStr, ast.Constant)) and field == "args" and _is_wording(parent):
        return not (isinstance(node, ast.Constant) and isinstance(node.value, int))
    return isinstance(parent, ast.JoinedStr) and isinstance(node, ast.Constant) and node.value.strip(" '\"") == ""


def _is_wording(call: ast.AST) -> bool:
    if not isinstance(call, ast.Call):
        return False
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    logs = isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "logger"
    return name in _WORDS or logs


@dataclass(frozen=True)
class Mutant:
    module: ast.Module
    function: str  # the innermost one, or "" for what runs at import
    line: int  # of the innermost statement
    change: str  # in words


def described(source: str) -> list[tuple[str, str]]:
    """(function, change in words) of every mutant."""
    tree = ast.parse(source)
    functions = dict(_functions(tree, ""))
    return [_words(functions, *place) for place in places(tree)]


def mutant(source: str, number: int) -> Mutant:
    tree = ast.parse(source)
    parent, field, place, which = list(places(tree))[number]
    function, words = _words(dict(_functions(tree, "")), parent, field, place, which)
    values = getattr(parent, field)
    old = values if place is None else values[place]
    new: Any = list(changes(old))[which] or ast.Pass()
    ast.copy_location(new, old)
    line = _statement(tree, old).lineno
    if place is None:
        setattr(parent, field, new)
    else:
        values[place] = new
    return Mutant(ast.fix_missing_locations(tree), function, line, words)


def _statement(tree: ast.AST, node: ast.AST) -> ast.stmt:
    """The innermost statement around `node`."""
    around = [
        one for one in ast.walk(tree) if isinstance(one, ast.stmt) and any(node is part for part in ast.walk(one))
    ]
    return around[-1]  # a walk meets the outer ones first


def _words(
    functions: dict[ast.AST, str], parent: ast.AST, field: str, place: int | None, which: int
) -> tuple[str, str]:
    old = getattr(parent, field) if place is None else getattr(parent, field)[place]
    new = list(changes(old))[which]
    return functions[old], f"{ast.unparse(old)}  ->  {'(left out)' if new is None else ast.unparse(new)}"


def _functions(node: ast.AST, name: str) -> Iterator[tuple[ast.AST, str]]:
    """The innermost function whose body holds each node; defaults and decorators run at import."""
    for field, value in ast.iter_fields(node):
        inner = node.name if isinstance(node, ast.FunctionDef) and field == "body" else name
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child, inner
                yield from _functions(child, inner)
