"""Test the search of the suite's logs: it detects every kind of secret, in every log path, in every worker."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kling_relay.security import auth
from kling_relay.security.api_keys import Keys

from tests.support import secret_canaries
from tests.support.stack_in_memory import ROOT, World

SECRETS = {
    "signed token": "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJrcmFrMTIzIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ",
    "bearer": "Authorization: Bearer abcdefghijklmnop",
    "callback token": "/hooks/kling/0123/k1.ABCDEFGHIJKLMNOPQRSTUVWXYZabcd-_",
    "webhook secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "presigned URL": "https://b.s3.amazonaws.com/k?X-Amz-Signature=00ff",
    "result URL": "https://v16-kling-fdl.klingai.com/x.mp4?a=1&ksSecret=00ff",
    "image": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB",
    "canary": "canary-prompt",
    "provider's key": "kling-simulator-key",
}
WAYS = {
    "log": "logging.getLogger('any').warning('said: %s', SECRET)",
    "extra": "logging.getLogger('any').warning('said', extra={'reason': {'deep': [SECRET]}})",
    "handler": "logger.info('said', extra={'reason': SECRET})",
    "key": "logger.append_keys(reason=SECRET); logger.info('said'); logger.remove_keys(['reason'])",
    "silent": "quiet = logging.getLogger('quiet'); quiet.propagate = False; quiet.error(SECRET)",
    "print": "print(SECRET)",
    "stderr": "print(SECRET, file=sys.stderr)",
    "exception": "\n    try:\n        raise OSError(SECRET)\n    except OSError:\n        logger.exception('failed')",
}
HEAD = "import logging, sys\nfrom kling_relay.observability import logger\n"


def suite(folder: Path, *options: str) -> str:
    """What pytest says of the tests in `folder`, with the watch."""
    (folder / "conftest.py").write_text(
        "from tests.support.secret_canaries import pytest_configure, pytest_runtest_makereport\n"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "layers" / "relay")])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rA",
        "--tb=long",
        "-p",
        "no:cacheprovider",
        *options,
        str(folder),
    ]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        command, cwd=folder, env={**own, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    ).stdout


def test_every_secret_is_seen_by_every_way(tmp_path: Path) -> None:
    written = {"innocent": "def test_innocent():\n    logger.info('said', extra={'task_id': '0' * 32})\n"}
    names = list(SECRETS)
    for number, (way, line) in enumerate(WAYS.items()):
        secret = SECRETS[names[number]]
        written[f"by_{way}"] = f"def test_by_{way}():\n    SECRET = {secret!r}\n    {line}\n"
    for kind, secret in SECRETS.items():
        name = re.sub(r"\W", "_", kind)
        written[f"kind_{name}"] = f"def test_kind_{name}():\n    print('the line:', {secret!r})\n"
    (tmp_path / "test_leaks.py").write_text(HEAD + "\n\n".join(written.values()))
    said = suite(tmp_path, "-n", "2")
    failed = set(re.findall(r"^FAILED \S+::test_(\w+)", said, re.MULTILINE))
    assert failed == set(written) - {"innocent"}, said[-3000:]
    for kind in SECRETS:
        assert f"{kind}: the line: " in said


@pytest.mark.parametrize("kind", secret_canaries.FORMS)
def test_no_form_is_passed_over(kind: str) -> None:
    @given(st.from_regex(secret_canaries.FORMS[kind]))
    def look(text: str) -> None:
        assert secret_canaries.may_contain_secret(text)

    look()


def test_keys_are_known_by_their_checksum_and_by_being_issued(world: World) -> None:
    key = auth.issue(Keys(world.table.rows), world.services.keyring, "acme", world.clock.now)
    wrong = key.api_key[:-1] + ("A" if key.api_key[-1] != "A" else "B")
    assert [kind for kind, _ in secret_canaries.find_secrets(f"x {key.api_key} y")] == ["API key"]
    assert [kind for kind, _ in secret_canaries.find_secrets(f"sk={key.secret_key}")] == ["issued"]
    assert secret_canaries.find_secrets(wrong) == [] == secret_canaries.find_secrets("sk=" + "a" * 43)
    ((_, line),) = secret_canaries.find_secrets(f"first\nbefore {key.api_key} after\nlast")
    assert line == "before <API key> after"
