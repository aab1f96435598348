"""Correct API Gateway's REST APIs: the import of the OpenAPI body, the event, and the gateway's own errors."""

from typing import Any

from ministack import app
from ministack.services import apigateway_v1 as gateway

from local.emulator.patches.patching import correction, swap, wrap

MAX_BODY = 10 * 1024 * 1024
"""The largest request in bytes that API Gateway accepts."""

PROXY_REPLY = {"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"}


@correction
def any_methods_are_imported() -> None:
    """MiniStack drops `x-amazon-apigateway-any-method` (SAM: `Method: any`). AWS routes every verb to it."""
    gateway._OPENAPI_HTTP_METHODS.add("any")

    @wrap(gateway, "_import_path_item", "563432744443")
    def import_path(stock: Any, api_id: str, path: str, item: dict[str, Any], *args: Any) -> None:
        stock(api_id, path, {m.replace("x-amazon-apigateway-any-method", "any"): o for m, o in item.items()}, *args)


@correction
def gateway_responses_are_imported() -> None:
    """MiniStack drops `x-amazon-apigateway-gateway-responses` (SAM: GatewayResponses) of the body."""

    @wrap(gateway, "_import_rest_api", "ef72f9312702")
    def import_api(stock: Any, spec: dict[str, Any], *args: Any) -> str:
        api_id: str = stock(spec, *args)
        for kind, response in (spec.get("x-amazon-apigateway-gateway-responses") or {}).items():
            status, _, body = gateway._put_gateway_response(api_id, kind, response)
            if status >= 400:
                raise ValueError(f"gateway response {kind}: {body!r}")
        return api_id


@correction
def events_name_the_domain() -> None:
    """MiniStack's request context lacks domainName and domainPrefix. AWS: the host of the request, without port."""

    @wrap(gateway, "_build_lambda_event_v1", "c7ac97b91f6e")
    def build(stock: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        event: dict[str, Any] = stock(*args, **kwargs)
        domain = next((v for k, v in event["headers"].items() if k.lower() == "host"), "").partition(":")[0]
        event["requestContext"].update(domainName=domain, domainPrefix=domain.partition(".")[0])
        return event


@correction
def paths_stay_as_they_were_sent() -> None:
    """MiniStack decodes a REST API's path. AWS: `path` and `pathParameters` stay percent-encoded."""
    swap(
        app._handle_execute_api_request,
        (
            "            return await apigw_v1.handle_execute(api_id, stage, method, execute_path,",
            "            stage_path = path.removesuffix(execute_path)\n"
            "            if raw_path is not None and raw_path.startswith(stage_path):\n"
            "                execute_path = raw_path.removeprefix(stage_path) or '/'\n"
            "            return await apigw_v1.handle_execute(api_id, stage, method, execute_path,",
        ),
    )


@correction
def large_requests_are_refused() -> None:
    """MiniStack takes any size. AWS: above 10 MB the gateway response REQUEST_TOO_LARGE, 413."""
    swap(
        gateway._execute_in_scope,
        (
            '    request["stage"] = stage\n',
            '    request["stage"] = stage\n'
            "    if len(body or b'') > _MAX_BODY:\n"
            '        return _gw_error("REQUEST_TOO_LARGE", "Request Too Long")\n',
        ),
        _MAX_BODY=MAX_BODY,
    )


def _proxy_reply(result: dict[str, Any]) -> dict[str, Any] | None:
    """Return the reply of a Lambda behind a proxy integration, or None if API Gateway cannot use it."""
    reply = result.get("body")
    if result.get("error") or not isinstance(reply, dict) or not reply.keys() <= PROXY_REPLY:
        return None
    body, status = reply.get("body"), str(reply.get("statusCode"))
    well_formed = (
        status.isdecimal()
        and 100 <= int(status) <= 599
        and isinstance(body, str | None)
        and all(isinstance(reply.get(name), dict | None) for name in ("headers", "multiValueHeaders"))
    )
    return {**reply, "statusCode": int(status), "body": body or ""} if well_formed else None


def _unusable_reply(result: dict[str, Any]) -> Any:
    failure = ("INTEGRATION_FAILURE", "Internal server error", "InternalServerErrorException")
    error = gateway._GatewayError(*failure)
    error.status = 500 if result.get("throttle") else 502
    return error


@correction
def failing_functions_give_502_through_the_gateway_response() -> None:
    """MiniStack returns the function's error and stack trace, or passes on a malformed reply with 200.

    AWS: INTEGRATION_FAILURE with 502 `Internal server error`, or with 500 if the function was throttled. Its API
    documents 504 as the default, which AWS does not use.

    Sources. Both statuses: the AWS Lambda developer guide, "Handling Lambda errors with an API Gateway API". The type
    for a throttled function: re:Post question QUL-z6rJbmR4meafB7MzYXxw. The type for an exception: an access log in
    DataBiosphere/azul pull request 6624. The default: LocalStack pull request 11183. That a malformed reply has the
    same type is a guess.
    """
    swap(
        gateway._invoke_lambda_proxy_v1,
        (
            "    lambda_response, err = _lambda_proxy_response(result)\n"
            "    if err:\n"
            '        return 502, {"Content-Type": "application/json"}, json.dumps({"message": err}).encode()\n',
            "    lambda_response = _proxy_reply(result)\n"
            "    if lambda_response is None:\n"
            "        return _unusable_reply(result)\n",
        ),
        _proxy_reply=_proxy_reply,
        _unusable_reply=_unusable_reply,
    )
    swap(
        gateway._gateway_error_response,
        (
            'status = response.get("statusCode") or (403',
            'own = getattr(error, "status", None) if response.get("defaultResponse") else None\n'
            '    status = own or response.get("statusCode") or (403',
        ),
    )
