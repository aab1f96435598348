"""Change MiniStack's code: by fragment, or by a wrapper around a function with a known source."""

import hashlib
import inspect
import textwrap
from collections.abc import Callable
from importlib.metadata import version
from types import FunctionType, ModuleType
from typing import Any

MINISTACK_VERSION = "1.5.33"
"""The release that the corrections were written for."""

Correction = Callable[[], None]
_corrections: list[Correction] = []
_sources: dict[FunctionType, str] = {}  # current sources of changed functions: inspect returns the original ones


class UnexpectedMiniStackError(Exception):
    """The installed MiniStack differs from the code that a correction was written for."""


def correction(function: Correction) -> Correction:
    """Mark a function that applies one correction; `apply_all` calls it."""
    _corrections.append(function)
    return function


def apply_all() -> None:
    """Apply every correction of the modules imported so far. Call once, before the server starts."""
    installed = version("ministack")
    if installed != MINISTACK_VERSION:
        raise UnexpectedMiniStackError(f"written for ministack {MINISTACK_VERSION}, found {installed}")
    for apply in _corrections:
        apply()


def replace_once(text: str, old: str, new: str, where: str) -> str:
    """Return `text` with its single occurrence of `old` replaced."""
    if (found := text.count(old)) != 1:
        raise UnexpectedMiniStackError(f"{where}: expected this fragment once, found it {found} times:\n{old}")
    return text.replace(old, new)


def swap(function: FunctionType, *fragments: tuple[str, str], **names: Any) -> None:
    """Replace fragments of a function's source, in place, so every reference to the function sees the change.

    `names` are visible to the new code: they become globals of the function's module.
    """
    source = _sources.get(function) or textwrap.dedent(inspect.getsource(function))
    for old, new in fragments:
        source = replace_once(source, old, new, function.__qualname__)
    module = function.__globals__
    if taken := names.keys() & module.keys():
        raise UnexpectedMiniStackError(f"{function.__module__} already has {', '.join(taken)}")
    module.update(names)
    compiled: dict[str, FunctionType] = {}
    exec(compile(source, f"<corrected {function.__qualname__}>", "exec"), module, compiled)  # nosec B102 # noqa: S102  (our own text)
    function.__code__ = compiled[function.__name__].__code__
    _sources[function] = source


def wrap(module: ModuleType, name: str, digest: str) -> Callable[[Callable[..., Any]], None]:
    """Decorate a function `f(stock, *args, **kwargs)` that replaces `module.name` and may call `stock`.

    `digest` is the start of the SHA-256 of the stock function's source. It proves that the wrapped code is the expected
    code. Only for functions that MiniStack calls through their module, never `from`-imported or kept in a table.
    """
    stock = getattr(module, name)
    found = hashlib.sha256(inspect.getsource(stock).encode()).hexdigest()[: len(digest)]
    if found != digest:
        raise UnexpectedMiniStackError(f"{module.__name__}.{name} has changed: digest {found}, expected {digest}")

    def decorate(corrected: Callable[..., Any]) -> None:
        setattr(module, name, lambda *args, **kwargs: corrected(stock, *args, **kwargs))

    return decorate
