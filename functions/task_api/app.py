"""The API that clients call: authenticate, do what the route says, answer in Kling's envelope."""

import json
from typing import Any
from urllib.parse import unquote  # API Gateway hands paths on as they were sent

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay import client_view
from kling_relay.api import creation, json_body, request, uploads
from kling_relay.api import delete as removal
from kling_relay.api import query as listing
from kling_relay.errors import KlingError, envelope
from kling_relay.observability import Metric, logger
from kling_relay.security import auth
from kling_relay.services import Relay, current
from kling_relay.tasks import metrics
from kling_relay.tasks.task import Task

app = APIGatewayRestResolver(strip_prefixes=["/kling"])  # relays have every path below it, Kling has none
_NOWHERE: dict[str, Any] = {"httpMethod": "", "path": ""}  # what the resolver cannot do without


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    answer = app.resolve({**_NOWHERE, **event}, context)
    answer["multiValueHeaders"]["Access-Control-Allow-Origin"] = [current().settings.allowed_origins]
    answer["multiValueHeaders"]["Access-Control-Expose-Headers"] = ["Retry-After"]  # others a page cannot read
    return answer


@app.post("/v1/videos/<kind>")
def create(kind: str) -> Response:
    relay, tenant = _caller()
    asked = request.parse(kind, _body())
    key = request.idempotency_key(app.current_event.headers.get("idempotency-key"))
    task = creation.create(relay, tenant, asked, key, app.lambda_context.get_remaining_time_in_millis())
    return _answer(client_view.task_object(relay, task))


@app.get("/v1/videos/<kind>")
def tasks(kind: str) -> Response:
    relay, tenant = _caller()
    asked = app.current_event.query_string_parameters or {}
    if asked.get("external_task_id"):
        task = listing.find(relay, tenant, kind, asked["external_task_id"])
        return _answer(client_view.task_object(relay, task))
    page = listing.page(relay, tenant, kind, asked)
    return _answer([client_view.task_object(relay, task) for task in page])


@app.get("/v1/videos/<kind>/<reference>")
def query(kind: str, reference: str) -> Response:
    relay, tenant = _caller()
    task = _find(relay, tenant, kind, reference)
    return _answer(client_view.task_object(relay, task))


@app.delete("/v1/videos/<kind>/<reference>")
def delete(kind: str, reference: str) -> Response:
    relay, tenant = _caller()
    task = removal.remove(relay, _find(relay, tenant, kind, reference))
    return _answer(client_view.task_object(relay, task))


@app.post("/v1/uploads")
def upload() -> Response:
    relay, tenant = _caller()
    return _answer(uploads.offer(relay, tenant, _body()))


@app.get("/account/costs")
@app.get("/v1/account/costs")
def costs() -> Response:
    _caller()
    return _answer(listing.COSTS)


def _caller() -> tuple[Relay, str]:
    """The relay, and whose tasks this is about, if the caller's key may do what the method does."""
    relay, event = current(), app.current_event
    header = event.headers.get("authorization") or event.headers.get("x-api-key")
    caller = auth.authenticate(header, relay.keys, relay.keyring, relay.clock.now_ms())
    caller.need("read" if event.http_method == "GET" else "submit")
    return relay, caller.tenant


def _find(relay: Relay, tenant: str, kind: str, reference: str) -> Task:
    task = listing.find(relay, tenant, kind, unquote(reference))
    logger.append_keys(task_id=task.id)
    return task


def _body() -> bytes:
    event = app.current_event
    return json_body.http_body(event.body, bool(event.is_base64_encoded), event.headers, request.MAX_BODY_BYTES)


def _request_id() -> str:
    return str((app.current_event.raw_event.get("requestContext") or {}).get("requestId") or "")


@app.exception_handler(KlingError)
def _refuse(error: KlingError) -> Response:
    logger.info("refused", extra={"code": error.code, "http": error.http})
    if (reason := metrics.rejection(app.current_event.http_method, app.current_event.path, error)) is not None:
        current().count(Metric.REJECTED, reason)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    body = envelope(_request_id(), code=error.code, message=error.message)
    return Response(error.http, "application/json", json.dumps(body), headers)


@app.not_found
def _no_such_path(_: Exception) -> Response:
    return _refuse(KlingError(1202))


@app.exception_handler(Exception)
def _trouble(error: Exception) -> Response:
    logger.exception("trouble", extra={"error": type(error).__name__})
    return _refuse(KlingError(5001, "the service cannot be reached for the moment: try again", retry_after=5))


def _answer(data: Any) -> Response:
    return Response(200, "application/json", json.dumps(envelope(_request_id(), data=data)))
