"""Route the requests of clients to their use cases, and answer in Kling's envelope.

The paths are below /v1, with or without a /kling prefix: relays use it for every path, Kling for none.
"""

import json
from typing import Any
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from kling_relay import client_view
from kling_relay.api import create, delete, json_body, query, request, uploads
from kling_relay.errors import KlingError, envelope
from kling_relay.observability import Metric, logger
from kling_relay.security import auth
from kling_relay.services import Services
from kling_relay.tasks import metrics
from kling_relay.tasks.task import Task

_NOWHERE: dict[str, Any] = {"httpMethod": "", "path": ""}  # required by the resolver


class ClientApi:
    """The resolver of one Lambda environment, which answers one request at a time."""

    def __init__(self) -> None:
        app = self._app = APIGatewayRestResolver(strip_prefixes=["/kling"])
        app.post("/v1/videos/<kind>")(self._create)
        app.get("/v1/videos/<kind>")(self._list)
        app.get("/v1/videos/<kind>/<reference>")(self._get)
        app.delete("/v1/videos/<kind>/<reference>")(self._delete)
        app.post("/v1/uploads")(self._upload)
        app.get("/account/costs")(self._costs)
        app.get("/v1/account/costs")(self._costs)
        app.not_found(self._no_such_path)
        app.exception_handler(KlingError)(self._refuse)
        app.exception_handler(Exception)(self._trouble)

    def answer(self, services: Services, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        """Return API Gateway's response to the request in `event`. Never raises: an error becomes an envelope."""
        self._services = services
        answer = self._app.resolve({**_NOWHERE, **event}, context)
        answer["multiValueHeaders"]["Access-Control-Allow-Origin"] = [services.settings.allowed_origins]
        # a web page cannot read other headers
        answer["multiValueHeaders"]["Access-Control-Expose-Headers"] = ["Retry-After"]
        return answer

    def _create(self, kind: str) -> Response[Any]:
        tenant = self._caller()
        checked = request.parse(kind, self._body())
        key = request.idempotency_key(self._app.current_event.headers.get("idempotency-key"))
        left_ms = self._app.lambda_context.get_remaining_time_in_millis()
        return self._task(create.create(self._services, tenant, checked, key, left_ms))

    def _list(self, kind: str) -> Response[Any]:
        tenant = self._caller()
        parameters = self._app.current_event.query_string_parameters or {}
        if parameters.get("external_task_id"):
            return self._task(query.find(self._services, tenant, kind, parameters["external_task_id"]))
        page = query.page(self._services, tenant, kind, parameters)
        return self._success([client_view.task_object(self._services, task) for task in page])

    def _get(self, kind: str, reference: str) -> Response[Any]:
        return self._task(self._find(kind, reference))

    def _delete(self, kind: str, reference: str) -> Response[Any]:
        return self._task(delete.remove(self._services, self._find(kind, reference)))

    def _upload(self) -> Response[Any]:
        return self._success(uploads.offer(self._services, self._caller(), self._body()))

    def _costs(self) -> Response[Any]:
        self._caller()
        return self._success(query.COSTS)

    def _caller(self) -> str:
        """Return the caller's tenant. Raises KlingError if the caller's key lacks the scope of the method."""
        services, event = self._services, self._app.current_event
        header = event.headers.get("authorization") or event.headers.get("x-api-key")
        caller = auth.authenticate(header, services.keys, services.keyring, services.clock.now_ms())
        caller.need("read" if event.http_method == "GET" else "submit")
        return caller.tenant

    def _find(self, kind: str, reference: str) -> Task:
        """Return the task of a path. API Gateway does not decode paths, so `reference` is still encoded."""
        task = query.find(self._services, self._caller(), kind, unquote(reference))
        logger.append_keys(task_id=task.id)
        return task

    def _body(self) -> bytes:
        event = self._app.current_event
        return json_body.http_body(event.body, bool(event.is_base64_encoded), event.headers, request.MAX_BODY_BYTES)

    def _request_id(self) -> str:
        return str((self._app.current_event.raw_event.get("requestContext") or {}).get("requestId") or "")

    def _task(self, task: Task) -> Response[Any]:
        return self._success(client_view.task_object(self._services, task))

    def _success(self, data: Any) -> Response[Any]:
        return Response(200, "application/json", json.dumps(envelope(self._request_id(), data=data)))

    def _refuse(self, error: KlingError) -> Response[Any]:
        logger.info("request_refused", extra={"code": error.code, "http": error.http})
        event = self._app.current_event
        if (reason := metrics.rejection(event.http_method, event.path, error)) is not None:
            self._services.count(Metric.REJECTED, reason)
        headers: dict[str, Any] = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        body = envelope(self._request_id(), code=error.code, message=error.message)
        return Response(error.http, "application/json", json.dumps(body), headers)

    def _no_such_path(self, _: Exception) -> Response[Any]:
        return self._refuse(KlingError(1202))

    def _trouble(self, error: Exception) -> Response[Any]:
        logger.exception("unhandled_error", extra={"error": type(error).__name__})
        return self._refuse(KlingError(5001, "temporarily unavailable; retry", retry_after=5))
