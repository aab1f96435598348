"""Set up every test: no real AWS account is reachable, and AWS's service descriptions are read once per process."""

from functools import cache

import pytest
from botocore.loaders import JSONFileLoader
from hypothesis import HealthCheck, settings

from tests.reliability.campaign import pytest_terminal_summary  # noqa: F401  (the table after a run)
from tests.support.run_order import pytest_collection_modifyitems, pytest_xdist_make_scheduler  # noqa: F401  (the longest first)
from tests.support.secret_canaries import pytest_configure, pytest_runtest_makereport  # noqa: F401  (no secret in any log)

# No test depends on the machine's load: hypothesis would allow 200 ms an example, and a second for ten draws.
settings.register_profile("any load", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any load")

_read = cache(JSONFileLoader().load_file)
JSONFileLoader.load_file = lambda _, path: _read(path)  # each session has a loader, and megabytes of JSON to parse


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")  # what the local stack takes
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
