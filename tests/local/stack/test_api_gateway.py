"""Test api_gateway.py in front of a small server that plays the emulator: the gateway's limits and its own answers."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from local.stack import api_gateway, deploy_template
from local.stack.api_gateway import Front, gateway_answer

RESPONSES = deploy_template.load_template()["Resources"]["Api"]["Properties"]["GatewayResponses"]


met: list[bytes] = []  # the bodies that came through
CASES = json.loads((Path(__file__).parents[2] / "fixtures/requests.json").read_text())
(CHUNKED,) = [case["wire"]["chunks"] for case in CASES if "chunks" in case.get("wire", {})]
(CUT,) = [case["wire"] for case in CASES if "then_close_after" in case.get("wire", {})]


class Behind(BaseHTTPRequestHandler):
    """Repeats what it is sent. `/slow` takes longer than the gateway waits, `/teapot` has a status of its own, and
    `/gone` closes the connection without an answer."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.endswith("/gone"):
            self.close_connection = True
            return
        if self.path.endswith("/slow"):
            time.sleep(1.0)
        met.append(body)
        told = {"method": self.command, "path": self.path, "headers": dict(self.headers.items()), "size": len(body)}
        answer = json.dumps(told).encode()
        self.send_response(418 if self.path.endswith("/teapot") else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("X-Own", "kept")
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_DELETE = do_PUT = do_OPTIONS = do_GET

    def log_message(self, *_: Any) -> None:
        """Silent."""


class Backend(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """Silent: the gateway gives up on it in one of the tests."""


@pytest.fixture(scope="module")
def behind() -> Iterator[str]:
    with Backend(("127.0.0.1", 0), Behind) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/stage"
        server.shutdown()


@pytest.fixture
def gateway(behind: str) -> Iterator[Front]:
    running = Front(0, RESPONSES)
    running.start(behind)
    yield running
    running.stop()


def enveloped(answer: requests.Response) -> tuple[int, int]:
    """HTTP status and code of the gateway's own answer, in Kling's envelope."""
    body = answer.json()
    assert isinstance(body["message"], str) and body["message"] and body["request_id"]
    assert body["request_id"] == answer.headers["x-amzn-RequestId"] and "$context" not in answer.text
    assert answer.headers["Content-Type"] == "application/json"
    return answer.status_code, body["code"]


def test_requests_are_passed_on(gateway: Front) -> None:
    answer = requests.post(f"{gateway.url}/v1/x?a=1&b=%2F", data=b"12345", headers={"X-Mine": "é"}, timeout=5)
    told = answer.json()
    assert (told["method"], told["path"], told["size"]) == ("POST", "/stage/v1/x?a=1&b=%2F", 5)
    assert answer.headers["X-Own"] == "kept" and told["headers"]["Host"] == gateway.url.removeprefix("http://")
    assert "X-Mine" in told["headers"]
    assert requests.delete(f"{gateway.url}/teapot", timeout=5).status_code == 418


@pytest.mark.parametrize(("size", "status"), [(api_gateway.MAX_BODY_BYTES, 200), (api_gateway.MAX_BODY_BYTES + 1, 413)])
def test_the_limit_of_the_body(gateway: Front, size: int, status: int) -> None:
    answer = requests.post(f"{gateway.url}/v1/x", data=b"x" * size, timeout=20)
    assert answer.status_code == status
    if status == 413:
        assert enveloped(answer) == (413, 1201) and "5500000" in answer.json()["message"]
    else:
        assert answer.json()["size"] == size


def test_the_limit_of_time(gateway: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api_gateway.INTEGRATION_SECONDS == 29.0
    monkeypatch.setattr(api_gateway, "INTEGRATION_SECONDS", 0.2)
    began = time.monotonic()
    assert enveloped(requests.get(f"{gateway.url}/slow", timeout=5)) == (504, 5002)
    assert time.monotonic() - began < 0.9
    assert requests.get(f"{gateway.url}/fast", timeout=5).status_code == 200


def test_every_answer_is_counted_with_the_time_that_it_took(gateway: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, float]] = []
    gateway.figures = SimpleNamespace(record=lambda *request: told.append(request), stop=lambda: None)
    monkeypatch.setattr(api_gateway, "INTEGRATION_SECONDS", 0.2)
    requests.get(f"{gateway.url}/teapot", timeout=5)
    requests.post(f"{gateway.url}/x", data=b"0" * (api_gateway.MAX_BODY_BYTES + 1), timeout=5)
    requests.get(f"{gateway.url}/slow", timeout=5)
    assert [status for status, _ in told] == [418, 413, 504]
    assert told[0][1] < 200 <= told[2][1] < 900


def test_nobody_behind(gateway: Front) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    gateway.api_base = f"http://127.0.0.1:{port}"
    answer = requests.get(f"{gateway.url}/x", timeout=5)
    assert enveloped(answer) == (503, 5001) and answer.headers["Retry-After"] == "2"


def test_a_connection_that_breaks_off_is_no_invitation_to_repeat(gateway: Front) -> None:
    """What was sent may have been done, and paid: only a request that never left may be sent again."""
    answer = requests.post(f"{gateway.url}/gone", data=b"{}", timeout=5)
    assert enveloped(answer) == (500, 5000) and "Retry-After" not in answer.headers


@pytest.mark.parametrize(
    "head",
    [
        *(b"Content-Length: many", b"Content-Length: -1", b"Content-Length: 1e3", b"Content-Length: 1_0"),
        *(b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 0"),
        *(b"Transfer-Encoding: chunked\r\n\r\n+2", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}}}"),
    ],
)
def test_a_body_of_unknown_length(gateway: Front, head: bytes) -> None:
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n")
        said = connection.makefile("rb").read()
    assert said.startswith(b"HTTP/1.1 400 ") and b'"code":1200' in said


PAGE = "https://app.example"
CORS = deploy_template.load_template()["Resources"]["Api"]["Properties"]["Cors"]


@pytest.mark.parametrize("allowed", ["", "*", PAGE])
def test_pages_that_are_admitted_call_the_api(behind: str, allowed: str) -> None:
    running = Front(0, RESPONSES, CORS, allowed)
    running.start(behind)
    try:
        origin = allowed if allowed == PAGE else running.url if not allowed else "https://any.example"
        named = allowed or running.url
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        preflight = requests.options(f"{running.url}/v1/x", headers=asked, timeout=5)
        assert preflight.status_code == 200 and preflight.headers["Access-Control-Allow-Origin"] == named
        assert "Idempotency-Key" in preflight.headers["Access-Control-Allow-Headers"].split(",")
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"].split(",")
        answer = requests.post(f"{running.url}/v1/x", headers={"Origin": origin}, timeout=5)
        assert answer.status_code == 200
        assert "Origin" not in answer.json()["headers"]  # the emulator admits the front's pages alone
        large = requests.post(
            f"{running.url}/x", bytes(api_gateway.MAX_BODY_BYTES + 1), headers={"Origin": origin}, timeout=5
        )
        assert large.status_code == 413 and large.headers["Access-Control-Allow-Origin"] == named
        other = requests.post(f"{running.url}/v1/x", headers={"Origin": "https://evil.example"}, timeout=5)
        assert other.status_code == (200 if allowed == "*" else 403)
    finally:
        running.stop()


def test_the_operations_page_admits_no_other_page(behind: str) -> None:
    """It asks for no key."""
    running = Front(0, RESPONSES, CORS, "*")
    running.start(behind, operations=SimpleNamespace(answer=lambda *_: (200, {}, b"")))  # type: ignore[arg-type]
    try:
        assert requests.get(f"{running.url}/operations", timeout=5).status_code == 200
        for origin in ("https://any.example", "null"):
            assert requests.get(f"{running.url}/operations", headers={"Origin": origin}, timeout=5).status_code == 403
    finally:
        running.stop()


def exchanged(gateway: Front, sent: bytes) -> bytes:
    """What the front answers to `sent`, after which the client's side is closed."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as connection:
        connection.sendall(b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\n" + sent)
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read()


def in_chunks(parts: list[str], last: bytes = b"0\r\n\r\n") -> bytes:
    chunks = b"".join(b"%x;name=value\r\n%s\r\n" % (len(part), part.encode()) for part in parts)
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunks + last


@pytest.mark.parametrize("last", [b"0\r\n\r\n", b"000\r\nTrailer: x\r\n\r\n"])
def test_a_body_in_chunks_is_put_together(gateway: Front, last: bytes) -> None:
    """RFC 9112 section 7.1; a guess of API Gateway, which takes HTTP/1.1 requests without Content-Length."""
    met.clear()
    assert exchanged(gateway, in_chunks(CHUNKED, last)).startswith(b"HTTP/1.1 200 ")
    assert met == ["".join(CHUNKED).encode()]


def test_chunks_have_the_limit_of_a_body(gateway: Front) -> None:
    many = ["x" * 1_000_000] * 10 + ["x" * (api_gateway.MAX_BODY_BYTES - 10_000_000)]
    assert exchanged(gateway, in_chunks(many)).startswith(b"HTTP/1.1 200 ")
    assert exchanged(gateway, in_chunks([*many, "x"])).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: %s\r\n\r\n%s" % (CUT["headers"]["Content-Length"].encode(), CUT["then_close_after"].encode()),
        b"Content-Length: 3\r\n\r\n{}",
        *(in_chunks(CHUNKED, last) for last in (b"", b"0", b"0\r\n", b"0\r\nTrailer: x\r\n", b"5\r\n{}")),
        in_chunks(CHUNKED)[:-20],
    ],
)
def test_a_message_that_ends_early_is_no_request(gateway: Front, sent: bytes) -> None:
    """Its client is dead; what came of it may parse, and would be paid."""
    met.clear()
    assert exchanged(gateway, sent) == b""
    assert met == []


def test_expect_100_is_answered_at_once(gateway: Front) -> None:
    """curl sends it with large bodies, and waits a second where nobody answers."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=0.5) as connection:
        connection.sendall(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"{}")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("kind", "asked", "status", "code"),
    [
        ("MISSING_AUTHENTICATION_TOKEN", 403, 404, 1202),
        ("RESOURCE_NOT_FOUND", 404, 404, 1202),
        ("REQUEST_TOO_LARGE", 413, 413, 1201),
        ("THROTTLED", 429, 429, 1302),
        ("INTEGRATION_TIMEOUT", 504, 504, 5002),
        ("INTEGRATION_FAILURE", 500, 503, 5001),
        ("API_CONFIGURATION_ERROR", 500, 503, 5001),
        ("AUTHORIZER_FAILURE", 500, 500, 5000),
        ("BAD_REQUEST_BODY", 400, 400, 1200),
    ],
)
def test_the_templates_gateway_responses(kind: str, asked: int, status: int, code: int) -> None:
    given, headers, body = gateway_answer(RESPONSES, kind, asked)
    answer = json.loads(body)
    assert (given, answer["code"]) == (status, code) and answer.keys() == {"code", "message", "request_id"}
    assert (headers.get("Retry-After") == "2") is (status in (429, 503))


def test_a_client_that_goes_away_is_no_news(gateway: Front, capfd: pytest.CaptureFixture[str]) -> None:
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, not closed
            connection.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert requests.get(f"{gateway.url}/slow", timeout=5).status_code == 200
    assert capfd.readouterr().err == ""


def test_a_port_that_is_taken(gateway: Front) -> None:
    with pytest.raises(OSError, match="in use"):
        Front(int(gateway.url.rpartition(":")[2]), RESPONSES)


def test_one_that_never_began_can_be_stopped() -> None:
    Front(0, RESPONSES).stop()
