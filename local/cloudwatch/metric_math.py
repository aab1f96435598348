"""Evaluate CloudWatch's metric math, as far as template.yaml uses it.

A result of two series has no point if one of them lacks it, nor after a division by zero. Comparisons, AND and OR
return 1 and 0. SUM, AVG, MIN and MAX of several series work point by point on the existing points. For one series, they
return a number. FILL gives every period of the range a point. Rules:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from local.cloudwatch.series import Read, Series

Query = Mapping[str, Any]
"""`Id` with `MetricStat` or `Expression`, as in templates, alarms and GetMetricData."""

Value = float | Series | list[Series]

_OPERATORS: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.And: lambda left, right: bool(left) and bool(right),
    ast.Or: lambda left, right: bool(left) or bool(right),
}
_AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "SUM": sum,
    "AVG": lambda values: sum(values) / len(values),
    "MIN": min,
    "MAX": max,
}
_WORDS = {"AND": " and ", "&&": " and ", "OR": " or ", "||": " or "}


class ExpressionError(ValueError):
    """An expression that CloudWatch would refuse, or that this module does not support; the text contains it."""


def evaluate(queries: Sequence[Query], read: Read, start_ms: int, end_ms: int) -> dict[str, Series]:
    """Return the series of every query by its Id, over the periods from `start_ms` to `end_ms`.

    Raise ExpressionError.
    """
    sheet = _Sheet(queries, read, start_ms, end_ms)
    return {query["Id"]: sheet.series(query["Id"]) for query in queries}


class _Sheet:
    """Hold the queries, and the values of those evaluated so far."""

    def __init__(self, queries: Sequence[Query], read: Read, start_ms: int, end_ms: int) -> None:
        self._queries = {query["Id"]: query for query in queries}
        self._read, self._start_ms, self._end_ms = read, start_ms, end_ms
        self._values: dict[str, Value] = {}
        self._open: set[str] = set()

    def series(self, name: str) -> Series:
        value = self._value(name)
        if not isinstance(value, dict):
            raise ExpressionError(f"{self._queries[name]['Expression']}: must return a time series (got a number)")
        return value

    def _value(self, name: str) -> Value:
        if name not in self._queries or name in self._open:
            raise ExpressionError(f"{name}: " + ("refers to itself" if name in self._open else "unknown Id"))
        if name not in self._values:
            self._open.add(name)
            query = self._queries[name]
            self._values[name] = self._computed(query) if "Expression" in query else self._metric(query["MetricStat"])
            self._open.remove(name)
        return self._values[name]

    def _metric(self, stat: Mapping[str, Any]) -> Series:
        metric = stat["Metric"]
        dimensions = {one["Name"]: one["Value"] for one in metric.get("Dimensions", [])}
        where = metric["Namespace"], metric["MetricName"], dimensions
        return self._read(*where, stat["Stat"], int(stat["Period"]), self._start_ms, self._end_ms)

    def _computed(self, query: Query) -> Value:
        text = query["Expression"]
        try:
            return self._node(ast.parse(re.sub(r"\b(?:AND|OR)\b|&&|\|\|", _word, text).strip(), mode="eval").body)
        except SyntaxError as exc:
            raise ExpressionError(f"{text}: {exc.msg}") from exc

    def _node(self, node: ast.AST) -> Value:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Name(id=name):
                return self._value(name)
            case ast.List(elts=elements):
                return [one for element in elements for one in _members(self._node(element))]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return _pointwise(operator.sub, 0.0, self._node(operand))
            case ast.BinOp(left=left, op=kind, right=right) | ast.Compare(left=left, ops=[kind], comparators=[right]):
                return _pointwise(_operator(kind), self._node(left), self._node(right))
            case ast.BoolOp(op=kind, values=[first, *others]):
                value = self._node(first)
                for other in others:
                    value = _pointwise(_operator(kind), value, self._node(other))
                return value
            case ast.Call(func=ast.Name(id=function), args=arguments):
                return self._call(function, arguments)
        raise ExpressionError(f"{ast.unparse(node)}: unknown")

    def _call(self, function: str, arguments: list[ast.expr]) -> Value:
        if function == "METRICS" and not arguments:
            return [self._metric(query["MetricStat"]) for query in self._queries.values() if "MetricStat" in query]
        values = [self._node(argument) for argument in arguments]
        match function, values:
            case "IF", [condition, chosen]:
                return _choose(condition, chosen, {})
            case "IF", [condition, chosen, other]:
                return _choose(condition, chosen, other)
            case "FILL", [filled, float() as number]:
                return self._filled(filled, number)
            case (("SUM" | "AVG" | "MIN" | "MAX"), [value]):
                return _aggregate(_AGGREGATES[function], value)
        raise ExpressionError(f"{function} with {len(values)} arguments: unknown")

    def _filled(self, value: Value, number: float) -> Value:
        if isinstance(value, list):
            return [{**self._everywhere(number), **one} for one in value]
        return {**self._everywhere(number), **_one_series(value)}

    def _everywhere(self, number: float) -> Series:
        (period_s,) = {int(one["MetricStat"]["Period"]) for one in self._queries.values() if "MetricStat" in one}
        return dict.fromkeys(range(self._start_ms, self._end_ms, period_s * 1000), number)


def _word(found: re.Match[str]) -> str:
    return _WORDS[found.group()]


def _operator(kind: ast.AST) -> Callable[[float, float], float]:
    if type(kind) not in _OPERATORS:
        raise ExpressionError(f"{type(kind).__name__}: unknown")
    return _OPERATORS[type(kind)]


def _members(value: Value) -> list[Series]:
    return value if isinstance(value, list) else [_one_series(value)]


def _one_series(value: Value) -> Series:
    if not isinstance(value, dict):
        raise ExpressionError("must be a time series (got a number)")
    return value


def _pointwise(operation: Callable[[float, float], float], left: Value, right: Value) -> Value:
    if isinstance(left, list):
        return [_one_series(_pointwise(operation, one, right)) for one in left]
    if isinstance(right, list):
        return [_one_series(_pointwise(operation, left, one)) for one in right]
    if not isinstance(left, dict) and not isinstance(right, dict):
        try:
            return float(operation(left, right))
        except ZeroDivisionError as exc:
            raise ExpressionError("division of a number by zero") from exc
    series = [one for one in (left, right) if isinstance(one, dict)]
    result = {}
    for at in sorted(set(series[0]).intersection(*series[1:])):
        try:
            result[at] = float(operation(_at(left, at), _at(right, at)))
        except ZeroDivisionError:
            continue
    return result


def _at(value: float | Series, at: int) -> float:
    return value[at] if isinstance(value, dict) else value


def _choose(condition: Value, chosen: Value, other: Value) -> Value:
    if isinstance(condition, list) or isinstance(chosen, list) or isinstance(other, list):
        raise ExpressionError("IF takes no arrays")
    if not isinstance(condition, dict):
        return chosen if condition else other
    branches = {at: chosen if holds else other for at, holds in condition.items()}
    return {at: _at(branch, at) for at, branch in branches.items() if not isinstance(branch, dict) or at in branch}


def _aggregate(aggregate: Callable[[Sequence[float]], float], value: Value) -> Value:
    if not isinstance(value, list):
        return float(aggregate(list(_one_series(value).values()))) if value else {}
    moments = sorted({at for one in value for at in one})
    return {at: float(aggregate([one[at] for one in value if at in one])) for at in moments}
