"""Serve the public API documentation: its page, the viewer's files and the OpenAPI description, without any secret."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.errors import KlingError, envelope
from kling_relay.observability import logger
from kling_relay.services import get_services

_FOLDER = Path(__file__).parent
_PLACEHOLDER = "https://your-api.example"  # stands for the API's address in the description
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".json": "application/json"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    name = (event.get("pathParameters") or {}).get("file", "")
    if not name:
        page = _files()["index.html"].replace("{version}", _version())
        return _response(200, ".html", page.replace("{here}", "" if event["path"].endswith("/") else "docs/"))
    if name not in _files():
        request_id = str(event["requestContext"].get("requestId", ""))
        error = KlingError(1202)
        return _response(error.http, ".json", json.dumps(envelope(request_id, code=error.code, message=error.message)))
    if name == "openapi.json":
        services = get_services()
        return _response(200, ".json", _files()[name].replace(_PLACEHOLDER, services.base_url))
    requested_version = (event.get("queryStringParameters") or {}).get("v")
    return _response(200, Path(name).suffix, _files()[name], immutable=requested_version == _version())


@cache
def _files() -> dict[str, str]:
    """Return every file that may be served, by name. Any other name gets a 404."""
    paths = [_FOLDER / "openapi.json", *(_FOLDER / "page").iterdir(), *(_FOLDER / "viewer").iterdir()]
    return {path.name: path.read_text("utf-8") for path in paths}


@cache
def _version() -> str:
    return hashlib.sha256("".join(text for _, text in sorted(_files().items())).encode()).hexdigest()[:12]


def _response(status: int, suffix: str, body: str, *, immutable: bool = False) -> dict[str, Any]:
    kind = _TYPES.get(suffix, "text/plain")
    cached = "public, max-age=31536000, immutable" if immutable else "no-cache"
    headers = {**_HEADERS, "Content-Type": f"{kind}; charset=utf-8", "Cache-Control": cached}
    return {"statusCode": status, "headers": headers, "body": body}
