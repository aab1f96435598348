"""Create a task from a checked request: store its inline images, record it in one transaction, submit it."""

import hashlib
import json
from typing import Any

from kling_relay.api import preflight, uploads
from kling_relay.api.request import Request
from kling_relay.errors import bad_parameter
from kling_relay.kinds.image_places import image_places
from kling_relay.lifecycle import step_functions
from kling_relay.lifecycle.advance import advance
from kling_relay.lifecycle.polling import GRACE_SECONDS
from kling_relay.lifecycle.provider_request import resolve_model
from kling_relay.lifecycle.step import AdvanceInput
from kling_relay.media import images
from kling_relay.observability import logger
from kling_relay.provider import models
from kling_relay.services import Services
from kling_relay.tasks import idempotency, notification
from kling_relay.tasks.s3_source import Source
from kling_relay.tasks.task import Phase, Task, new_task_id
from kling_relay.transfer import ssrf_rules
from kling_relay.transfer.ssrf_rules import AddressError


def record(
    services: Services, tenant: str, request: Request, idempotency_key: str | None = None, source: Source | None = None
) -> Task:
    """Record a task, or return the one that the same request, or the same `source`, created before. It pays nothing.

    Raises KlingError if the model does not support it, if the tenant's cap leaves no room, if an image is visibly
    invalid, and if the same external id or Idempotency-Key was used with another body.
    """
    body_hash = _hash(request)
    earlier = idempotency.earlier(services.table, tenant, request.external_task_id, idempotency_key, body_hash)
    if earlier is not None:  # regardless of later changes: an upload that is gone, a host that is down, the models
        return earlier
    _check_callback(services, request.callback_url)
    _check_addresses(services, request.body)
    model = resolve_model(services, request.kind, request.body)
    profile = services.provider.profile
    if profile.refuses_retired and model not in profile.models:  # a mapped model is sent under another name
        models.check_retired(services.catalogue, model, request.kind, named="model_name" in request.body)
    dropped, notes = models.check(services.catalogue, model, request.kind, request.body)
    request.notes += notes
    for name in dropped:
        del request.body[name]
    # The model of the check and the estimate is the model that is sent, even if defaults change.
    request.body["model_name"] = model
    estimate = models.estimate(services.catalogue, model, request.kind, request.body)
    budget = services.spending.budget(tenant, services.clock.now_ms())
    if budget is not None:  # before anything is fetched or stored; the transaction below decides
        budget.check(estimate)
    uploaded = _uploaded(services, tenant, request)
    preflight.check(request, {name: upload.header for name, upload in uploaded.items()})
    now = services.clock.now_ms()
    task_id = new_task_id() if source is None else source.task_id(services.keyring)
    for name, holder, key in image_places(request.body):
        prefix = f"inputs/{tenant}/{task_id}/{name}"
        if name in uploaded:
            holder[key] = uploads.keep(services, name, uploaded[name], prefix)
        elif isinstance(holder[key], dict):
            holder[key] = {"s3": _store(services, prefix, request.images[name])}
    new = Task(
        id=task_id,
        tenant=tenant,
        kind=request.kind,
        phase=Phase.ACCEPTED,
        request=request.body,
        created_at=now,
        updated_at=now,
        due_at=now + int(GRACE_SECONDS * 1000),
        external_task_id=request.external_task_id,
        callback_url=request.callback_url,
        execution=task_id,
        notices=(notification.new((), "submitted", now, webhook=request.callback_url is not None),),
        source=None if source is None else source.as_dict(),
        estimate=estimate,
        reserved=None if budget is None else estimate,
        spend_month=None if budget is None else budget.month,
    )
    return idempotency.record(
        services.table, new, body_hash=body_hash, idempotency_key=idempotency_key, budget=budget, clock=services.clock
    )


def _check_callback(services: Services, url: str | None) -> None:
    """Refuse a URL that no webhook can reach, while the client is still connected."""
    if url is None:
        return
    try:
        parsed = ssrf_rules.parse(url)
        if not (services.settings.allow_local_webhooks == "1" and ssrf_rules.origin(parsed)[1] in ssrf_rules.LOOPBACK):
            ssrf_rules.check_form(parsed)
            ssrf_rules.check_reachable(url)
    except AddressError:
        rule = "must be an https:// URL with a public host and port 443"
        raise bad_parameter("callback_url", rule, f"a URL of {len(url)} characters") from None


def _check_addresses(services: Services, body: dict[str, Any]) -> None:
    """Raise KlingError for an image or a video on a host that the provider cannot reach: it would be paid for nothing.

    A provider on this very network (the simulator on a laptop) can reach such hosts.
    """
    if ssrf_rules.is_internal(ssrf_rules.parse(services.provider.profile.base_url).host or ""):
        return
    locations = [(name, holder[key]) for name, holder, key in image_places(body)]
    videos = enumerate(body.get("video_list", []))
    locations += [(f"video_list[{index}].video_url", video["video_url"]) for index, video in videos]
    for name, url in locations:
        if isinstance(url, str):
            try:
                ssrf_rules.check_reachable(url)
            except AddressError:
                rule = "must have a public host, since the provider cannot reach a private one"
                raise bad_parameter(name, rule, f"a URL of {len(url)} characters") from None


def _uploaded(services: Services, tenant: str, request: Request) -> dict[str, uploads.Upload]:
    """Return the uploads that the request names. All of them are checked before anything is stored."""
    locations = [(name, holder[key]) for name, holder, key in image_places(request.body)]
    references = {name: image for name, image in locations if isinstance(image, dict) and "ref" in image}
    return {name: uploads.check(services, tenant, name, image) for name, image in references.items()}


def _store(services: Services, prefix: str, data: bytes) -> str:
    header = images.read_header(data)
    key = f"{prefix}.{header.extension}"
    services.s3.put_object(
        Bucket=services.settings.need("input_bucket"), Key=key, Body=data, ContentType=f"image/{header.format}"
    )
    return key


def _hash(request: Request) -> str:
    """Hash the identity of a request: every field and every image byte."""
    picture = {name: hashlib.sha256(data).hexdigest() for name, data in request.images.items()}
    content = [request.kind, request.body, request.callback_url, request.external_task_id, picture]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def create(
    services: Services,
    tenant: str,
    asked: Request,
    idempotency_key: str | None,
    left_ms: int,
    source: Source | None = None,
) -> Task:
    """Record a task and submit it. Returns the task even if the submission fails for now.

    `left_ms`: remaining time of the Lambda call. Raises KlingError if the request or the task is refused.
    """
    must_end_by = services.clock.now_ms() + left_ms
    task = record(services, tenant, asked, idempotency_key, source)
    logger.append_keys(task_id=task.id)
    if asked.notes:
        logger.warning("request_annotated", extra={"notes": asked.notes})
    if task.phase is Phase.ACCEPTED and task.attempt == 0 and not task.waits_for:  # no step was made yet
        task = _submit(services, task, AdvanceInput("client", must_end_by=must_end_by, images=asked.images))
    if task.refusal is not None:  # now, or at an earlier identical request
        raise task.refusal
    return task


def _submit(services: Services, task: Task, inputs: AdvanceInput) -> Task:
    """Submit a recorded task. An error here is logged, and the sweeper retries.

    So the client gets the task's id, and never an error that makes it pay twice.
    """
    try:
        step = advance(services, task.id, inputs, known=task)
        if step.next != "done":
            step_functions.start(services, step)
    except Exception as exc:
        logger.exception("submit_failed_will_retry", extra={"error": type(exc).__name__})
        return task
    return step.task
