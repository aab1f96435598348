"""Define Kling's error codes: one error, one HTTP answer.

`errors.json` maps each code to its HTTP status and default text. Its source is the official error table of Kling's
legacy API.
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

    `code`: Kling's error code. `http`: HTTP status, from the table unless an HTTP rule requires another (413, 405).
    `retry_after`: seconds after which the same call may succeed, if known.
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
    """The provider's error about a task that is recorded."""


def bad_parameter(field: str, rule: str, got: object = None) -> KlingError:
    """Return error 1201 `field: rule (got value)`. `got` describes the value, without a prompt, an image or a URL."""
    return KlingError(1201, f"{field}: {rule}" if got is None else f"{field}: {rule} (got {got})")


def envelope(request_id: str, *, code: int = 0, message: str = "SUCCEED", data: Any = None) -> dict[str, Any]:
    """Build Kling's envelope: `code` is an int, `message` and `request_id` are always strings.

    `data` is omitted if None.
    """
    body: dict[str, Any] = {"code": code, "message": message, "request_id": request_id}
    if data is not None:
        body["data"] = data
    return body
