"""Search the logs of the whole suite for secrets: every log record, and all output of the tests.

A secret has a known form (an API key has a prefix and a checksum, a signed URL its parameter), contains the word
"canary" of the tests' own secrets, or was issued in this process. A test that logs one fails. The failure names the
kind and the line, without the secret. Imported by tests/conftest.py.
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
    "canary": r"canary[-_][\w-]+",  # the prompts, secrets, provider's texts and URLs of stack_in_memory.py
    "issued": r"\b[0-9A-Za-z]{43}\b",  # has the length of a secret key: counts only if it was issued
    "provider's key": r"\bkling-simulator-(?:key|secret)[\w-]*|\bsk-[A-Za-z0-9]{20,}",
}
_FORMS = re.compile("|".join(f"(?P<k{number}>{form})" for number, form in enumerate(FORMS.values())))
_KINDS = list(FORMS)
# A text without any of these contains no secret of any form. The campaigns log so much that a search for all forms at
# every character took a quarter of their time.
_SIGNS = (
    *("kr_", "eyj", "bearer", "whsec_", "x-amz-", "ivborw0kggo", "/9j/", "canary", "kling-simulator-", "sk-"),
    *("signature=", "key-pair-id=", "kssecret=", "kstime=", "cachekey="),
)
_RUNS = (re.compile(r"\.[A-Za-z0-9_-]{32}"), re.compile(r"[0-9A-Za-z]{43}"))
_HOLDS: dict[str, Callable[[str], bool]] = {}
_issued: set[str] = set()


def may_contain_secret(text: str) -> bool:
    """Return whether `text` may contain a secret."""
    small = text.lower()
    return any(sign in small for sign in _SIGNS) or any(run.search(text) for run in _RUNS)


def find_secrets(text: str) -> list[tuple[str, str]]:
    """Return every secret in `text`: its kind, and its line without the secret."""
    if not may_contain_secret(text):
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
    """Collect the secrets in the records of all loggers since the last check."""

    def __init__(self) -> None:
        super().__init__()
        self.hits: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = {name: value for name, value in vars(record).items() if name not in ("args", "msg", "exc_info")}
        said = [record.getMessage(), repr(fields)]
        if record.exc_info:
            said.append(logging.Formatter().formatException(record.exc_info))
        self.hits += [(kind, f"{record.name}: {line}") for kind, line in find_secrets("\n".join(said))]

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
    """Watch all loggers, including those that do not propagate, and every key that is issued from now on."""
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
    """Fail each phase of a test that has logged a secret."""
    report = yield
    printed = [text for name, text in report.sections if name.startswith("Captured std") and name.endswith(call.when)]
    hits = _watch.taken() + find_secrets("\n".join(printed))
    if hits:
        told = "\n".join(f"  {kind}: {line}" for kind, line in dict.fromkeys(hits))
        report.outcome, report.longrepr = "failed", f"secrets in the log of {item.nodeid} ({call.when}):\n{told}"
    return report
