"""A Kling-compatible video API in your own AWS account: everything that the functions share."""

import gc

__version__ = "0.1.0"
"""The version in pyproject.toml, which the layer does not contain. tests/unit/test_version.py holds both equal."""

USER_AGENT = f"kling-relay/{__version__}"
"""The User-Agent of every request to providers, to hosts of images and videos, and to receivers of webhooks."""

# Nearly all that a start makes stays for good: looking through it for garbage takes a tenth of a cold start.
gc.set_threshold(100_000)
