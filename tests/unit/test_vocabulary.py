"""Hold the plain English of documents, texts of the program, log lines and the template against a list of words.

Programs return, write and read. People have names: owner, client, operator. Each word of the list has a plainer one.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.stack.deploy_template import load_template
from tests.support.doc_blocks import PAGES, ROOT, name_of
from tests.template.drawing import logged, widgets

TABLE_IN_MEMORY = True
WORDS = {
    "whoever": "the caller, the owner, a client",
    "nobody": "no client, no operator",
    "somebody": "a client, an operator",
    "anybody": "any client",
    "says": "states, contains, returns",
    "said": "stated, returned",
    "tells": "shows, reports",
    "told": "notified, reported",
    "stands": "is",
    "lies": "is",
    "knows": "has, stores, supports",
    "hears": "receives",
    "speaks": "uses",
    "anew": "again",
    "in vain": "without effect",
    "of ours": "our",
    "of its own": "its",
    "of their own": "their",
    "by lot": "at random",
    "is well": "passed",
    "are well": "passed",
    "where it does not": "if it does not",
    "as if nothing": "unchanged",
    "has not got": "does not have",
    "for want of": "without",
    "put right": "fixed",
    "for the moment": "temporarily",
    "just now": "being, at this time",
    "looked after": "processed, open",
    "fits into no": "is not allowed in",
    "comes to rest": "ends",
    "dearer": "above the estimate",
    "wherever": "if, in each",
    "whichever": "any, the first",
}
PATTERN = re.compile(rf"\b({'|'.join(map(re.escape, WORDS))})\b", re.IGNORECASE)
PACKAGES = ("layers/relay/kling_relay", "functions", "kling_relay_cli")


def found_in(text: str) -> list[str]:
    return [f"{word[1]!r}, better: {WORDS[word[1].lower()]}" for word in PATTERN.finditer(" ".join(text.split()))]


def docstrings(tree: ast.AST) -> set[int]:
    """The ids of the nodes that are docstrings, or texts that stand alone."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each string in the code that has several words: errors, hints, labels, notes."""
    tree = ast.parse(path.read_text())
    apart = docstrings(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in apart:
            continue
        if isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value


def modules() -> list[Path]:
    return sorted(path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py"))


def described(node: Any) -> Iterator[str]:
    """The descriptions of a template, for people: of parameters, resources, alarms and outputs."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name in ("Description", "AlarmDescription", "ConstraintDescription", "message") and isinstance(
                value, str
            ):
                yield value
            else:
                yield from described(value)
    if isinstance(node, list):
        for value in node:
            yield from described(value)


def titles() -> Iterator[str]:
    for widget in widgets(load_template()):
        yield widget["properties"].get("title") or widget["properties"]["markdown"]


def test_the_list_has_a_better_word_for_each() -> None:
    assert len(WORDS) >= 30 and all(WORDS.values())
    assert [word for word in WORDS if found_in(f"It {word}, then.") == []] == []
    assert found_in("whoever\n  knows") == [
        "'whoever', better: " + WORDS["whoever"],
        "'knows', better: " + WORDS["knows"],
    ]
    assert [word for better in WORDS.values() for word in found_in(better)] == []


@pytest.mark.parametrize("path", [*PAGES, ROOT / "docs/openapi.yaml"], ids=name_of)
def test_documents_are_plain(path: Path) -> None:
    assert found_in(path.read_text()) == []


def test_texts_of_the_code_are_plain() -> None:
    texts = [(path, line, text) for path in modules() for line, text in texts_of(path)]
    errors = json.loads((ROOT / "layers/relay/kling_relay/errors.json").read_text())
    assert len(texts) > 500 and any("must be" in text for _, _, text in texts)
    assert [f"{name_of(path)}:{line}: {one}" for path, line, text in texts for one in found_in(text)] == []
    assert [one for row in errors.values() for one in found_in(row["message"])] == []


def test_log_events_and_keys_are_plain() -> None:
    messages, keys = logged()
    assert len(messages) > 40 and len(keys) > 40
    assert [one for name in messages | keys for one in found_in(name.replace("_", " "))] == []


def test_the_template_is_plain() -> None:
    texts = [*described(load_template()), *titles()]
    assert len(texts) > 100
    assert [f"{text[:60]}: {one}" for text in texts for one in found_in(text)] == []
