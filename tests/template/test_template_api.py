"""Test the REST API: the gateway's own answers, its log, its stage."""

import json
import re
from typing import Any

import pytest
from kling_relay.errors import KlingError

from tests.template.rules import of_type, references, walk

Template = dict[str, Any]

PATH_OR_QUERY = re.compile(
    r"\$context\.(path|requestOverride|customDomain|responseOverride|authorizer)|\$input|\$stageVariables"
)

# Response type -> (HTTP status, Kling's code).
ANSWERS = {
    "MISSING_AUTHENTICATION_TOKEN": (404, 1202),  # what the gateway calls a path or method that it has not got
    "RESOURCE_NOT_FOUND": (404, 1202),
    "INVALID_SIGNATURE": (404, 1202),
    "DEFAULT_4XX": (404, 1202),
    "BAD_REQUEST_BODY": (400, 1200),
    "BAD_REQUEST_PARAMETERS": (400, 1200),
    "UNSUPPORTED_MEDIA_TYPE": (400, 1200),
    "REQUEST_TOO_LARGE": (413, 1201),
    "THROTTLED": (429, 1302),
    "QUOTA_EXCEEDED": (429, 1302),
    "INTEGRATION_FAILURE": (503, 5001),
    "API_CONFIGURATION_ERROR": (503, 5001),
    "INTEGRATION_TIMEOUT": (504, 5002),
    "DEFAULT_5XX": (500, 5000),
}


def body(template: Template) -> dict[str, Any]:
    (api,) = of_type(template, "AWS::ApiGateway::RestApi").values()
    found: dict[str, Any] = api["Properties"]["Body"]
    return found


def answers(template: Template) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = body(template)["x-amazon-apigateway-gateway-responses"]
    return found


def test_the_gateways_own_answers_are_these(template: Template) -> None:
    given = {kind: (int(answer["statusCode"]), envelope(answer)["code"]) for kind, answer in answers(template).items()}
    assert given == ANSWERS


def envelope(answer: dict[str, Any]) -> dict[str, Any]:
    """The body that a client gets. Only `$context` may be filled in, and only where JSON stays JSON."""
    (text,) = answer["responseTemplates"].values()
    assert list(answer["responseTemplates"]) == ["application/json"]
    assert set(re.findall(r"\$[\w.]+", text)) == {"$context.requestId"}
    assert not re.search(r"#(set|if|foreach|parse)", text)
    filled: dict[str, Any] = json.loads(text.replace("$context.requestId", "c0ffee00-aaaa-bbbb-cccc-000000000000"))
    return filled


def test_they_come_in_klings_envelope(template: Template) -> None:
    for kind, answer in answers(template).items():
        filled = envelope(answer)
        assert list(filled) == ["code", "message", "request_id"], kind
        assert type(filled["code"]) is int, kind
        assert isinstance(filled["message"], str) and filled["message"], kind
        assert isinstance(filled["request_id"], str), kind
        assert "resource pack" not in filled["message"]  # some clients read that as out of credit


def test_a_wrong_path_is_told_the_usual_mistakes(template: Template) -> None:
    """Reports: /v1/v1 and kling//v1, made of a base URL and a path that both have the version."""
    for kind, answer in answers(template).items():
        if ANSWERS[kind] == (404, 1202):
            assert all(word in envelope(answer)["message"] for word in ("base URL", "/kling/v1", "once", "/docs")), kind


@pytest.mark.parametrize(
    "text",
    [
        '{"code":1,"message":$context.error.messageString,"request_id":"$context.requestId"}',
        '{"code":1,"message":"$input.path","request_id":"$context.requestId"}',
        '#set($x = 1){"code":1,"request_id":"$context.requestId"}',
    ],
)
def test_an_answer_that_repeats_the_request_is_found(text: str) -> None:
    with pytest.raises(AssertionError):
        envelope({"responseTemplates": {"application/json": text}})


def test_codes_have_the_status_that_kling_gives_them(template: Template) -> None:
    for kind, answer in answers(template).items():
        code, status = envelope(answer)["code"], int(answer["statusCode"])
        assert KlingError(code).http == status or (kind, status) == ("REQUEST_TOO_LARGE", 413), kind


def test_who_may_come_back_learns_when(template: Template) -> None:
    """A timeout and an internal error may hide a paid request, so they name no time to repeat it."""
    for kind, answer in answers(template).items():
        headers, passing = answer["responseParameters"], ANSWERS[kind][0] in (429, 503)
        assert headers.get("gatewayresponse.header.Retry-After") == ("'2'" if passing else None), kind


ORIGIN = {"Fn::Sub": "'${AllowedOrigins}'"}


def test_a_page_can_read_the_gateways_own_answers(template: Template) -> None:
    """Without the header a browser hides status and body, and the program sees a network error (Fetch standard)."""
    for kind, answer in answers(template).items():
        headers = answer["responseParameters"]
        assert headers["gatewayresponse.header.Access-Control-Allow-Origin"] == ORIGIN, kind
        assert headers["gatewayresponse.header.Access-Control-Expose-Headers"] == "'Retry-After'", kind


def test_every_path_answers_a_preflight(template: Template) -> None:
    """ "*" does not stand for Authorization (Fetch standard, CORS protocol), so headers are listed."""
    for path, methods in body(template)["paths"].items():
        integration = methods["options"]["x-amazon-apigateway-integration"]
        assert integration["type"] == "mock", path  # free, and no key is asked for
        (response,) = integration["responses"].values()
        prefix = "method.response.header.Access-Control-"
        headers = {name.removeprefix(prefix): value for name, value in response["responseParameters"].items()}
        assert (response["statusCode"], headers["Allow-Origin"]) == ("200", ORIGIN)
        allowed = set(headers["Allow-Headers"].strip("'").split(","))
        assert allowed == {"Authorization", "Content-Type", "Idempotency-Key", "X-API-KEY"}
        assert {method.upper() for method in methods} <= set(headers["Allow-Methods"].strip("'").split(","))
        assert "Allow-Credentials" not in headers


def test_one_origin_or_all_may_call(template: Template) -> None:
    parameter = template["Parameters"]["AllowedOrigins"]
    assert parameter["Default"] == "*"
    for good in ("*", "https://app.example.com", "http://localhost:5173", "http://[::1]:80"):
        assert re.fullmatch(parameter["AllowedPattern"], good)
    for bad in ("", "https://a.example/", "https://a.example,https://b.example", "app.example.com", "https://*'"):
        assert not re.fullmatch(parameter["AllowedPattern"], bad)


@pytest.mark.parametrize("kind", ["INTEGRATION_FAILURE", "API_CONFIGURATION_ERROR"])
def test_a_function_that_does_not_answer_promises_nothing_about_a_post(template: Template, kind: str) -> None:
    """A throttled function and one that dies have the same response type (see local/emulator/patches/gateway.py)."""
    message = envelope(answers(template)[kind])["message"]
    assert "same Idempotency-Key" in message and "not charged" not in message


def test_it_is_regional_and_takes_bodies_as_they_are(template: Template) -> None:
    (api,) = of_type(template, "AWS::ApiGateway::RestApi").values()
    assert api["Properties"]["EndpointConfiguration"] == {"Types": ["REGIONAL"]}
    assert "BinaryMediaTypes" not in api["Properties"]
    assert "x-amazon-apigateway-binary-media-types" not in body(template)


def test_its_routes_are_these(template: Template) -> None:
    routes = {(method.upper(), path) for path, methods in body(template)["paths"].items() for method in methods}
    routes = {(method, path) for method, path in routes if method != "OPTIONS"}
    both = {
        *(
            ("POST", "/v1/videos/{kind}"),
            ("GET", "/v1/videos/{kind}"),
            ("POST", "/v1/uploads"),
            ("GET", "/account/costs"),
            ("GET", "/v1/account/costs"),  # many clients put one prefix before every path
        ),
        *(("GET", "/v1/videos/{kind}/{reference}"), ("DELETE", "/v1/videos/{kind}/{reference}")),
    }
    docs = {("GET", "/docs"), ("GET", "/docs/{file}")}
    ours = {(method, f"{prefix}{path}") for prefix in ("", "/kling") for method, path in both}
    assert routes == ours | docs | {("POST", "/hooks/kling/{task_id}/{token}")}


def test_every_route_is_a_proxy_to_a_function(template: Template) -> None:
    for path, methods in body(template)["paths"].items():
        for method, operation in methods.items():
            if method == "options":
                continue
            assert operation["x-amazon-apigateway-integration"]["type"] == "aws_proxy", (method, path)


def test_the_stage_records_no_tokens(template: Template) -> None:
    """Paths hold callback tokens: neither traces nor execution logs, and an access log that knows routes only."""
    (stage,) = of_type(template, "AWS::ApiGateway::Stage").values()
    properties = stage["Properties"]
    assert properties["TracingEnabled"] is False
    assert "MethodSettings" not in properties
    condition, setting, otherwise = properties["AccessLogSetting"]["Fn::If"]
    assert (condition, otherwise) == ("HasAccessLogs", {"Ref": "AWS::NoValue"})
    assert not PATH_OR_QUERY.search(setting["Format"])
    assert all(value.startswith("$context.") for value in json.loads(setting["Format"]).values())
    assert "$context.requestId" in setting["Format"]  # API Gateway refuses a format without it


@pytest.mark.parametrize("name", ["path", "requestOverride.path.token", "customDomain.basePathMatched"])
def test_a_log_of_paths_would_be_found(name: str) -> None:
    assert PATH_OR_QUERY.search(f'{{"p":"$context.{name}"}}')
    assert not PATH_OR_QUERY.search('{"p":"$context.resourcePath"}')


def test_access_logs_are_off_until_the_account_can_write_them(template: Template) -> None:
    assert template["Parameters"]["AccessLogs"]["Default"] == "off"
    assert not of_type(template, "AWS::ApiGateway::Account")  # an account-wide setting: not ours to change


def test_a_domain_is_all_or_nothing(template: Template) -> None:
    for name in ("ApiDomain", "ApiDomainMapping"):
        assert template["Resources"][name]["Condition"] == "HasDomain"
    mapping = template["Resources"]["ApiDomainMapping"]["Properties"]
    (stage,) = of_type(template, "AWS::ApiGateway::Stage")
    assert (mapping["Stage"], mapping["DomainName"]) == ({"Ref": stage}, {"Ref": "ApiDomain"})
    assert "BasePath" not in mapping
    assert template["Resources"]["ApiDomain"]["Properties"]["SecurityPolicy"] == "TLS_1_2"
    rule = template["Rules"]["DomainHasCertificate"]
    assert "CertificateArn" in [value for key, value in walk(rule) if key == "Ref"]


def test_conditional_resources_are_referred_to_under_their_condition_only(template: Template) -> None:
    """CloudFormation refuses a reference to a resource that its condition left out."""
    conditional = {name: r["Condition"] for name, r in template["Resources"].items() if "Condition" in r}
    assert conditional
    for user, resource in {**template["Outputs"], **template["Resources"]}.items():
        for name, condition in conditional.items():
            mentioned = name in references(_without_branch(resource, condition))
            assert not mentioned or resource.get("Condition") == condition or user == name, (user, name)


def _without_branch(node: Any, condition: str) -> Any:
    """`node` as it is where `condition` is false."""
    if isinstance(node, list):
        return [_without_branch(item, condition) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("Fn::If", [None])[0] == condition:
        return _without_branch(node["Fn::If"][2], condition)
    return {key: _without_branch(value, condition) for key, value in node.items()}
