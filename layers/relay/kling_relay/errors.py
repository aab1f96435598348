"""Kling's error codes: one error, one HTTP answer.

The table (code -> HTTP status, default text) is `errors.json`, after the official error table of Kling's legacy API.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _table() -> dict[int, dict[str, Any]]:
    rows = json.loads((Path(__file__).parent / "errors.json").read_text())
    return {int(code): row for code, row in rows.items()}


class KlingError(Exception):
    """A call that ends in an error envelope.

    `code`: Kling's error code. `http`: HTTP status, from the table unless a rule of HTTP's own asks for another (413,
    405). `retry_after`: seconds after which the same call may succeed, where that is known.
    """

    def __init__(
        self, code: int, message: str = "", *, http: int | None = None, retry_after: int | None = None
    ) -> None:
        row = _table().get(code, {"http": 500, "message": "internal error"})
        self.code = code
        self.http: int = http or row["http"]
        self.message: str = message or row["message"]
        self.retry_after = retry_after
        super().__init__(f"{self.code} {self.message}")


class ProviderRejectedError(KlingError):
    """The provider's, of a task that is on record."""


def bad_parameter(field: str, rule: str, got: object = None) -> KlingError:
    """Return error 1201 `field: rule (got value)`. `got` describes the value, without a prompt, an image or a URL."""
    return KlingError(1201, f"{field}: {rule}" if got is None else f"{field}: {rule} (got {got})")


def envelope(request_id: str, *, code: int = 0, message: str = "SUCCEED", data: Any = None) -> dict[str, Any]:
    """Kling's envelope: `code` int, `message` and `request_id` always strings, `data` only where there is some."""
    body: dict[str, Any] = {"code": code, "message": message, "request_id": request_id}
    if data is not None:
        body["data"] = data
    return body
