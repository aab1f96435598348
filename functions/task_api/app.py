"""POST and GET of Kling's video tasks: authenticate, check, record, submit, answer in Kling's envelope."""

import base64
import json
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay import auth, delivery, intake, request, workflow
from kling_relay.advance import advance
from kling_relay.errors import KlingError, bad_parameter, envelope
from kling_relay.facts import Facts
from kling_relay.observability import logger
from kling_relay.relay import Relay, current
from kling_relay.task import Phase, Task, client_view

app = APIGatewayRestResolver()


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return app.resolve(event, context)


@app.post("/kling/v1/videos/<kind>")
@app.post("/v1/videos/<kind>")
def create(kind: str) -> Response:
    relay, tenant = current(), _tenant()
    asked = request.parse(kind, _body())
    task = intake.record(relay, tenant, asked, _idempotency_key())
    logger.append_keys(task_id=task.id)
    if asked.notes:
        logger.warning("request_noted", extra={"notes": asked.notes})
    if task.phase is Phase.ACCEPTED and task.attempt == 0 and not task.waits_for:  # nothing has happened to it yet
        task = _submit(relay, task, asked)
    if task.refusal is not None:  # now, or when the same request came before
        raise task.refusal
    return _answer(200, envelope(_request_id(), data=client_view(task, delivery.video_urls(relay, task))))


@app.get("/kling/v1/videos/<kind>/<reference>")
@app.get("/v1/videos/<kind>/<reference>")
def query(kind: str, reference: str) -> Response:
    relay, tenant = current(), _tenant()
    task = relay.table.find(tenant, reference) if kind in request.KINDS else None
    if kind not in request.KINDS:
        raise KlingError(1202, f"no such kind of task: {kind[:64]!r}")
    if task is None:
        raise KlingError(1203, "task not found")
    return _answer(200, envelope(_request_id(), data=client_view(task, delivery.video_urls(relay, task))))


def _submit(relay: Relay, task: Task, asked: request.Request) -> Task:
    """The first step, while the client waits. From here on the task is on record: whatever goes wrong now, the sweeper
    carries on with it, so the client gets its id and never an error that makes it pay twice."""
    left_ms = app.lambda_context.get_remaining_time_in_millis()
    facts = Facts(must_end_by=relay.clock.now_ms() + left_ms, images=asked.images)
    try:
        step = advance(relay, task.id, facts)
        if step.next != "done":
            workflow.start(relay, step)
    except Exception as exc:
        logger.exception("left_to_the_sweeper", extra={"error": type(exc).__name__})
        return task
    return step.task


def _tenant() -> str:
    """Whose tasks this is about, if the caller's key may do what the method does."""
    relay, event = current(), app.current_event
    caller = auth.authenticate(event.headers.get("authorization"), relay.keys, relay.keyring, relay.clock.now_ms())
    caller.need("read" if event.http_method == "GET" else "submit")
    return caller.tenant


def _body() -> bytes:
    body = app.current_event.body or ""
    return base64.b64decode(body) if app.current_event.is_base64_encoded else body.encode("utf-8", "replace")


def _idempotency_key() -> str | None:
    key: str | None = app.current_event.headers.get("idempotency-key")
    if key is not None and len(key) > 255:
        raise bad_parameter("Idempotency-Key", f"at most 255 characters are allowed; sent: {len(key)}")
    return key or None


def _request_id() -> str:
    return str(app.current_event.request_context.request_id or "")


@app.exception_handler(KlingError)
def _refuse(error: KlingError) -> Response:
    logger.info("refused", extra={"code": error.code, "http": error.http})
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return _answer(error.http, envelope(_request_id(), code=error.code, message=error.message), headers)


@app.not_found
def _no_such_path(_: Exception) -> Response:
    return _refuse(KlingError(1202))


@app.exception_handler(Exception)
def _trouble(error: Exception) -> Response:
    logger.exception("trouble", extra={"error": type(error).__name__})
    return _refuse(KlingError(5001, "the service cannot be reached for the moment: try again", retry_after=5))


def _answer(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(status, "application/json", json.dumps(body), headers or {})
