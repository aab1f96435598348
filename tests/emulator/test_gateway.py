"""Test the corrections of API Gateway."""

import json
from collections.abc import Iterator

import pytest

from tests.emulator.aws import Aws

BUSY = {"application/json": '{"code":5001}'}


@pytest.fixture
def throttled(aws: Aws, stack: dict[str, str]) -> Iterator[None]:
    aws.functions.put_function_concurrency(FunctionName=stack["Function"], ReservedConcurrentExecutions=0)
    yield
    aws.functions.put_function_concurrency(FunctionName=stack["Function"], ReservedConcurrentExecutions=3)


@pytest.fixture
def failure_response(aws: Aws, stack: dict[str, str]) -> Iterator[None]:
    """The API has an answer for INTEGRATION_FAILURE."""
    kind = {"restApiId": stack["Api"], "responseType": "INTEGRATION_FAILURE"}
    again = {"gatewayresponse.header.Retry-After": "'2'"}
    aws.apigateway.put_gateway_response(**kind, statusCode="503", responseParameters=again, responseTemplates=BUSY)
    aws.apigateway.create_deployment(restApiId=stack["Api"], stageName="live")
    yield
    aws.apigateway.delete_gateway_response(**kind)
    aws.apigateway.create_deployment(restApiId=stack["Api"], stageName="live")


class TestGateway:
    def test_any_method_is_routed(self, aws: Aws, stack: dict[str, str]) -> None:
        assert aws.get(stack["url"] + "/any/echo", "DELETE").status == 200

    def test_gateway_responses_come_from_the_template(self, aws: Aws, stack: dict[str, str]) -> None:
        answer = aws.get(stack["url"] + "/unknown")
        assert (answer.status, answer.headers["X-Known"]) == (404, "no")
        assert json.loads(answer.body) == {"code": 1202, "message": "Missing Authentication Token"}

    def test_the_event_names_the_domain(self, aws: Aws, stack: dict[str, str]) -> None:
        context = json.loads(aws.get(stack["url"] + "/do/echo").body)
        assert (context["domainName"], context["domainPrefix"]) == ("localhost", "localhost")

    def test_a_path_stays_as_it_was_sent(self, aws: Aws, stack: dict[str, str]) -> None:
        event = json.loads(aws.get(stack["url"] + "/do/a%2Fb%20%C3%A9%25").body)
        assert event["path"] == "/live/do/a%2Fb%20%C3%A9%25"
        assert event["mode"] == "a%2Fb%20%C3%A9%25"

    def test_a_request_above_10_mb_is_refused(self, aws: Aws, stack: dict[str, str]) -> None:
        answer = aws.get(stack["url"] + "/do/echo", "POST", b"x" * (10 * 1024 * 1024 + 1))
        assert (answer.status, json.loads(answer.body)) == (413, {"message": "Request Too Long"})

    @pytest.mark.parametrize("mode", ["raise", "crash", "sleep", "text", "extra", "object"])
    def test_a_failing_function_is_a_bad_gateway(self, aws: Aws, stack: dict[str, str], mode: str) -> None:
        answer = aws.get(f"{stack['url']}/do/{mode}")
        assert (answer.status, json.loads(answer.body)) == (502, {"code": 5000})

    @pytest.mark.usefixtures("throttled")
    def test_a_throttled_function_is_an_internal_error(self, aws: Aws, stack: dict[str, str]) -> None:
        answer = aws.get(f"{stack['url']}/do/echo")
        assert (answer.status, json.loads(answer.body)) == (500, {"code": 5000})
        assert answer.headers["x-amzn-ErrorType"] == "InternalServerErrorException"

    @pytest.mark.usefixtures("throttled", "failure_response")
    def test_a_throttled_function_is_an_integration_failure(self, aws: Aws, stack: dict[str, str]) -> None:
        answer = aws.get(f"{stack['url']}/do/echo")
        assert (answer.status, json.loads(answer.body), answer.headers["Retry-After"]) == (503, {"code": 5001}, "2")

    @pytest.mark.usefixtures("failure_response")
    @pytest.mark.parametrize("mode", ["raise", "crash", "sleep"])
    def test_so_is_one_that_fails(self, aws: Aws, stack: dict[str, str], mode: str) -> None:
        answer = aws.get(f"{stack['url']}/do/{mode}")
        assert (answer.status, json.loads(answer.body), answer.headers["Retry-After"]) == (503, {"code": 5001}, "2")
