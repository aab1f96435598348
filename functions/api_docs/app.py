"""Serve the public API documentation: its page, the viewer's files and the OpenAPI description, without any secret."""

import json
from pathlib import Path
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.api.static_site import StaticSite
from kling_relay.errors import KlingError, envelope
from kling_relay.observability import logger
from kling_relay.services import get_services

_PLACEHOLDER = "https://your-api.example"  # stands for the API's address in the description
site = StaticSite(Path(__file__).parent, "page", "viewer")


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    name = (event.get("pathParameters") or {}).get("file", "")
    if not name:
        page = site.files["index.html"].replace("{version}", site.version)
        return site.response(200, ".html", page.replace("{here}", "" if event["path"].endswith("/") else "docs/"))
    if name not in site.files:
        error = KlingError(1202)
        body = envelope(str(event["requestContext"].get("requestId", "")), code=error.code, message=error.message)
        return site.response(error.http, ".json", json.dumps(body))
    if name == "openapi.json":
        services = get_services()
        return site.response(200, ".json", site.files[name].replace(_PLACEHOLDER, services.base_url))
    asked_for = (event.get("queryStringParameters") or {}).get("v")
    return site.response(200, Path(name).suffix, site.files[name], for_ever=asked_for == site.version)
