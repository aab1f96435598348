"""API Gateway, corrected."""

import json

import pytest

from tests.emulator.aws import Aws


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
