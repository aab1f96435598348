"""Provide a Kling-compatible video API in your own AWS account: the code that the functions share."""

import gc

__version__ = "0.1.0"
"""The same version as in pyproject.toml, which the layer does not contain. tests/unit/test_version.py compares both."""

USER_AGENT = f"kling-relay/{__version__}"
"""The User-Agent of every request to providers, to hosts of images and videos, and to receivers of webhooks."""

# Objects created at start-up live forever. Garbage collection scans cost a tenth of a cold start.
gc.set_threshold(100_000)
