"""Build the provider's request from a recorded one: in its dialect, with the URLs or bytes of its images."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from kling_relay.kinds.image_places import image_places
from kling_relay.provider.profiles import in_dialect
from kling_relay.services import Services
from kling_relay.tasks.task import Task

_URL_SECONDS = 6 * 3600  # of an image: the provider fetches it when it begins to render


def upstream_body(services: Services, task: Task, at_hand: Mapping[str, bytes], account: str) -> dict[str, Any]:
    """Build the request body for the provider of `account`: in its dialect, always with `model_name`.

    Images in our bucket become bare base64 or presigned URLs. `at_hand`: bytes of inline images by name, which saves
    reading them from the bucket.
    """
    profile = services.provider_at(account).profile
    body: dict[str, Any] = json.loads(json.dumps(task.request))
    for name, holder, key in image_places(body):
        if isinstance(holder[key], dict):
            stored = holder[key]["s3"]
            if profile.image_form == "url":
                holder[key] = _url(services, stored)
            else:
                holder[key] = base64.b64encode(at_hand.get(name) or _load(services, stored)).decode()
    return in_dialect(profile, task.kind, {**body, "model_name": model_name(services, task)})


def model_name(services: Services, task: Task) -> str:
    return resolve_model(services, task.kind, task.request)


def resolve_model(services: Services, kind: str, body: Mapping[str, Any]) -> str:
    """Return the client's model, the stack's default for the kind, or the provider's.

    Kling's own default is retired.
    """
    default = getattr(services.settings, f"default_model_{kind.replace('-', '_')}", "")
    named: str = body.get("model_name") or default or services.provider.profile.default_model[kind]
    return named


def _load(services: Services, key: str) -> bytes:
    data: bytes = services.s3.get_object(Bucket=services.settings.need("input_bucket"), Key=key)["Body"].read()
    return data


def _url(services: Services, key: str) -> str:
    where = {"Bucket": services.settings.need("input_bucket"), "Key": key}
    url: str = services.s3.generate_presigned_url("get_object", Params=where, ExpiresIn=_URL_SECONDS)
    return url
