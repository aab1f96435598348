"""Play API Gateway around the functions of one world, as a WSGI application: its routes and its own answers.

Paths reach the function as sent, still percent-encoded. AWS does the same, as recordings of it in LocalStack's tests
show.
"""

import itertools
import json
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from local.stack.api_gateway import MAX_BODY_BYTES, gateway_answer
from local.stack.deploy_template import load_template
from tests.support.stack_in_memory import World

FUNCTIONS = {"TaskApiFunction": "task_api", "KlingCallbackFunction": "kling_callback"}
Answer = tuple[int, dict[str, str], bytes]


def _routes(resources: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(method, path, function) of every route of the functions that are here."""
    return [
        (event["Properties"]["Method"], event["Properties"]["Path"], function)
        for name, function in FUNCTIONS.items()
        for event in resources[name]["Properties"]["Events"].values()
        if event["Type"] == "Api"
    ]


class Gateway:
    """`event`: what a function was asked last, or None where the gateway answered by itself."""

    def __init__(self, world: World) -> None:
        resources = load_template()["Resources"]
        self.world = world
        self.event: dict[str, Any] | None = None
        self.routes = _routes(resources)
        self.responses: dict[str, Any] = resources["Api"]["Properties"]["GatewayResponses"]
        self._numbers = itertools.count(1)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path, _, query = environ["RAW_URI"].partition("?")
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").title(): value
            for name, value in environ.items()
            if name.startswith("HTTP_") or name == "CONTENT_TYPE"
        }
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, answered, content = self.answer(environ["REQUEST_METHOD"], path, query, headers, body)
        start_response(f"{status} {HTTPStatus(status).phrase}", list(answered.items()))
        return [content]

    def answer(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> Answer:
        self.event = None
        if len(body) > MAX_BODY_BYTES:
            return gateway_answer(self.responses, "REQUEST_TOO_LARGE", 413)
        found = self._route(method, path)
        if found is None:
            return gateway_answer(self.responses, "MISSING_AUTHENTICATION_TOKEN", 403)
        route, function, parameters = found
        self.event = {
            "resource": route,
            "path": path,
            "pathParameters": parameters or None,
            "httpMethod": method,
            "headers": headers,
            "queryStringParameters": dict(parse_qsl(query, keep_blank_values=True)) or None,
            "body": body.decode("utf-8", "replace") or None,
            "isBase64Encoded": False,
            "requestContext": {"requestId": f"gateway-{next(self._numbers)}"},
        }
        answer = self.world.call(function, json.loads(json.dumps(self.event)))
        return answer["statusCode"], _first(answer), answer["body"].encode()

    def _route(self, method: str, path: str) -> tuple[str, str, dict[str, str]] | None:
        for verb, route, function in self.routes:
            pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", route)
            if verb == method and (match := re.fullmatch(pattern, path.rstrip("/"))):
                return route, function, match.groupdict()
        return None


def _first(answer: dict[str, Any]) -> dict[str, str]:
    """An answer's headers, in whichever of the two forms a function gives them."""
    several = {name: values[0] for name, values in answer.get("multiValueHeaders", {}).items()}
    return {**several, **answer.get("headers", {})}
