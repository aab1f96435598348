"""Watches the logs of the whole suite for secrets: every log record, and everything that a test prints.

A secret is known by its form (an API key has a prefix and a checksum, a signed URL its parameter), by the word that the
tests' own secrets are made of, or because it was issued in this process. A test during which one is seen fails, and
the failure names the kind and the line, with the secret itself cut out. Imported by tests/conftest.py.
"""

import logging
import re
import zlib
from collections.abc import Callable, Generator
from typing import Any

import pytest
from kling_relay.security import auth
from kling_relay.security.keyring import base62

_BASE64_PICTURE = r"(?:iVBORw0KGgo|/9j/(?:4AAQ|2wBD|4Q))[A-Za-z0-9+/]{16}"
FORMS: dict[str, str] = {
    "API key": r"\bkr_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}\b",
    "signed token": r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}",
    "bearer": r"(?i:bearer)\s+[\w.~+/-]{16,}",
    "callback token": r"\bk\d+\.[A-Za-z0-9_-]{32}(?![A-Za-z0-9_-])",
    "webhook secret": r"\bwhsec_[A-Za-z0-9+/=]{16,}",
    "presigned URL": r"(?i:X-Amz-(?:Signature|Security-Token|Credential))=",
    "result URL": r"[?&](?:Signature|Key-Pair-Id|ksSecret|ksTime|cacheKey)=",
    "image": _BASE64_PICTURE,
    "canary": r"canary[-_][\w-]+",  # what world.py's prompts, secrets, provider's words and URLs are made of
    "issued": r"\b[0-9A-Za-z]{43}\b",  # has the length of a secret key: counts only if it is one
    "provider's key": r"\bkling-simulator-(?:key|secret)[\w-]*|\bsk-[A-Za-z0-9]{20,}",
}
_FORMS = re.compile("|".join(f"(?P<k{number}>{form})" for number, form in enumerate(FORMS.values())))
_KINDS = list(FORMS)
# What has none of these has no secret of any form: the campaigns write so much that looking for all forms at once, at
# every character, was a quarter of their time.
_SIGNS = (
    *("kr_", "eyj", "bearer", "whsec_", "x-amz-", "ivborw0kggo", "/9j/", "canary", "kling-simulator-", "sk-"),
    *("signature=", "key-pair-id=", "kssecret=", "kstime=", "cachekey="),
)
_RUNS = (re.compile(r"\.[A-Za-z0-9_-]{32}"), re.compile(r"[0-9A-Za-z]{43}"))
_HOLDS: dict[str, Callable[[str], bool]] = {}
_issued: set[str] = set()


def may_hold(text: str) -> bool:
    """Whether a secret in `text` is possible at all."""
    small = text.lower()
    return any(sign in small for sign in _SIGNS) or any(run.search(text) for run in _RUNS)


def found(text: str) -> list[tuple[str, str]]:
    """Every secret in `text`: its kind, and the line around it without it."""
    if not may_hold(text):
        return []
    hits = []
    for match in _FORMS.finditer(text):
        kind = _KINDS[int((match.lastgroup or "k0")[1:])]
        check = _HOLDS.get(kind)
        if check is None or check(match[0]):
            start = text.rfind("\n", 0, match.start()) + 1
            before, after = text[start : match.start()], text[match.end() :].partition("\n")[0]
            hits.append((kind, f"{before[-200:]}<{kind}>{after[:80]}"))
    return hits


def _has_its_checksum(key: str) -> bool:
    body, _, check = key.rpartition("_")
    return base62(zlib.crc32(body.encode()).to_bytes(4, "big"), 6) == check


_HOLDS |= {"API key": _has_its_checksum, "issued": _issued.__contains__}


class Watch(logging.Handler):
    """What was seen since the last look, of all loggers."""

    def __init__(self) -> None:
        super().__init__()
        self.hits: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = {name: value for name, value in vars(record).items() if name not in ("args", "msg", "exc_info")}
        said = [record.getMessage(), repr(fields)]
        if record.exc_info:
            said.append(logging.Formatter().formatException(record.exc_info))
        self.hits += [(kind, f"{record.name}: {line}") for kind, line in found("\n".join(said))]

    def taken(self) -> list[tuple[str, str]]:
        hits, self.hits = self.hits, []
        return hits


_watch = Watch()


def _learning(issue: Callable[..., auth.IssuedKey]) -> Callable[..., auth.IssuedKey]:
    def learn(*args: Any, **more: Any) -> auth.IssuedKey:
        key = issue(*args, **more)
        _issued.add(key.secret_key)
        _issued.add(key.api_key.split("_")[2])
        return key

    return learn


def pytest_configure(config: pytest.Config) -> None:
    """All loggers, also those that do not propagate; and every key that is issued from now on."""
    real, issue = logging.Logger.callHandlers, auth.issue

    def watched(logger: logging.Logger, record: logging.LogRecord) -> None:
        _watch.emit(record)
        real(logger, record)

    logging.Logger.callHandlers = watched  # type: ignore[method-assign, assignment]
    auth.issue = _learning(issue)

    def restore() -> None:
        logging.Logger.callHandlers = real  # type: ignore[method-assign]
        auth.issue = issue

    config.add_cleanup(restore)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Each phase of a test fails with what it said itself."""
    report = yield
    printed = [text for name, text in report.sections if name.startswith("Captured std") and name.endswith(call.when)]
    hits = _watch.taken() + found("\n".join(printed))
    if hits:
        told = "\n".join(f"  {kind}: {line}" for kind, line in dict.fromkeys(hits))
        report.outcome, report.longrepr = "failed", f"secrets in the log of {item.nodeid} ({call.when}):\n{told}"
    return report
