"""Compile DynamoDB's expressions to functions: the subset that the relay uses, and an error for all else."""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any

Item = dict[str, Any]
Operand = Callable[[Item, dict[str, str], dict[str, Any]], Any]  # (item, names, values) -> typed value, or None
Condition = Callable[[Item, dict[str, str], dict[str, Any]], bool]

_WORDS = re.compile(r"\s*([#:]?\w+|<>|<=|>=|[=<>(),+-])")
_SECTIONS = {"SET", "REMOVE", "ADD"}


class Reader:
    """Parse one expression by recursive descent. `used`: its #names and :values."""

    def __init__(self, text: str) -> None:
        self.words = _WORDS.findall(text)
        assert "".join(self.words) == re.sub(r"\s", "", text), f"cannot be read: {text}"
        self.used = {word for word in self.words if word[0] in "#:"}

    def peek(self) -> str:
        return self.words[0] if self.words else ""

    def take(self, *wanted: str) -> str:
        word: str = self.words.pop(0)
        assert not wanted or word in wanted, f"{word!r} where {wanted} was expected"
        return word

    def any_of(self) -> Condition:
        parts = [self.all_of()]
        while self.peek() == "OR":
            self.take()
            parts.append(self.all_of())
        return parts[0] if len(parts) == 1 else lambda *given: any(part(*given) for part in parts)

    def all_of(self) -> Condition:
        parts = [self.one()]
        while self.peek() == "AND":
            self.take()
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else lambda *given: all(part(*given) for part in parts)

    def one(self) -> Condition:
        if self.peek() == "NOT":
            self.take()
            inner = self.one()
            return lambda *given: not inner(*given)
        if self.peek() == "(":
            self.take()
            inner = self.any_of()
            self.take(")")
            return inner
        if self.peek() in ("attribute_exists", "attribute_not_exists"):
            wanted = self.take() == "attribute_exists"
            self.take("(")
            path = self.operand()
            self.take(")")
            return lambda *given: (path(*given) is not None) == wanted
        return self.comparison()

    def comparison(self) -> Condition:
        left, sign = self.operand(), self.take("=", "<>", "<", "<=", ">", ">=", "IN", "BETWEEN")
        if sign == "BETWEEN":
            low, _, high = self.operand(), self.take("AND"), self.operand()
            return lambda *given: (
                _compare(left(*given), ">=", low(*given)) and _compare(left(*given), "<=", high(*given))
            )
        if sign == "IN":
            self.take("(")
            among = [self.operand()]
            while self.take(",", ")") == ",":
                among.append(self.operand())
            return lambda *given: any(_compare(left(*given), "=", one(*given)) for one in among)
        right = self.operand()
        return lambda *given: _compare(left(*given), sign, right(*given))

    def operand(self) -> Operand:
        word = self.take()
        if word[0] == ":":
            return lambda item, names, values: values[word]
        if word == "if_not_exists":
            self.take("(")
            path, _, other = self.operand(), self.take(","), self.operand()
            self.take(")")
            return lambda *given: other(*given) if path(*given) is None else path(*given)
        if word == "list_append":
            self.take("(")
            first, _, second = self.operand(), self.take(","), self.operand()
            self.take(")")
            return lambda *given: {"L": [*first(*given)["L"], *second(*given)["L"]]}
        if word == "size":
            self.take("(")
            path = self.operand()
            self.take(")")
            return lambda *given: None if path(*given) is None else {"N": str(len(next(iter(path(*given).values()))))}
        if word[0] == "#":
            return lambda item, names, values: item.get(names[word])
        assert self.peek() != "(", f"{word}() is not known here"
        return lambda item, names, values: item.get(word)

    def sum(self) -> Operand:
        left = self.operand()
        if self.peek() not in ("+", "-"):
            return left
        sign, right = self.take(), self.operand()
        return lambda *given: _add(left(*given), right(*given), 1 if sign == "+" else -1)


def _compare(left: Any, sign: str, right: Any) -> bool:
    if left is None or right is None or left.keys() != right.keys():
        return sign == "<>"
    ((kind, a),), ((_, b),) = left.items(), right.items()
    if kind == "N":
        a, b = Decimal(a), Decimal(b)
    return bool({"=": a == b, "<>": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[sign])


def _add(left: Any, right: Any, sign: int) -> Any:
    for kind in {"SS", "NS"} & right.keys():
        return {kind: [*(left or right)[kind], *(one for one in right[kind] if left and one not in left[kind])]}
    return {"N": str(Decimal(left["N"] if left else 0) + sign * Decimal(right["N"]))}


@cache
def condition(text: str) -> tuple[Condition, set[str]]:
    """Return the condition, and its #names and :values."""
    reader = Reader(text)
    found = reader.any_of()
    assert not reader.words, f"cannot be read to its end: {text}"
    return found, reader.used


@cache
def update(text: str) -> tuple[Callable[[Item, dict[str, str], dict[str, Any]], Item], set[str]]:
    """Return the update, from the old item to the new one, and its #names and :values."""
    reader = Reader(text)
    steps: list[tuple[str, str, Operand | None]] = []
    while reader.words:
        section = reader.take(*_SECTIONS)
        while True:
            path = reader.take()
            if section == "SET":
                reader.take("=")
            steps.append((section, path, None if section == "REMOVE" else reader.sum()))
            if reader.peek() != ",":
                break
            reader.take()

    def apply(item: Item, names: dict[str, str], values: dict[str, Any]) -> Item:
        after = dict(item)
        for section, path, given in steps:
            name = names.get(path, path)
            if given is None:
                after.pop(name, None)
            elif section == "SET":
                after[name] = given(item, names, values)
                assert after[name] is not None, f"{path}: an operand that is missing"
            else:
                after[name] = _add(item.get(name), given(item, names, values), 1)
        return after

    paths = [path for _, path, _ in steps]
    assert len(paths) == len(set(paths)), f"a path twice: {text}"
    return apply, reader.used
