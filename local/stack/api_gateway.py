"""Serve the stack's address for local clients: the parts of API Gateway around its API that the emulator lacks.

It passes requests on to the emulator's REST API, and adds the gateway's own limits with the answers of the template's
GatewayResponses: bodies over 10 MB, integrations over 29 s, an unreachable API. It also delivers the finished videos
(`edge`), which CloudFront delivers from its own address, and the operations page, which is CloudWatch's part. `guard`
refuses requests from pages of another server. Any page may play a video: its address is signed.
"""

import re
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3

from local.cloudwatch import page
from local.cloudwatch.page import OperationsPage
from local.origin_guard import Answer, Guard
from local.stack import cloudfront
from local.stack.cloudfront import Edge
from local.stack.gateway_metrics import GatewayMetrics

MAX_BODY_BYTES = 10 * 1024 * 1024
INTEGRATION_SECONDS = 29.0
_PREFLIGHT = {"AllowOrigin": "Origin", "AllowHeaders": "Headers", "AllowMethods": "Methods"}  # the template's names
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length", "host"}


def gateway_answer(responses: dict[str, Any], kind: str, status: int, allowed_origins: str = "*") -> Answer:
    """Return status, headers and body of the gateway's own answer `kind`, from the template's GatewayResponses.

    `status`: AWS's status if the template names none. `allowed_origins`: the template's parameter.
    """
    fallback = "DEFAULT_5XX" if status >= 500 else "DEFAULT_4XX"
    response = responses.get(kind) or responses[fallback]
    request_id = str(uuid.uuid4())
    body = response["ResponseTemplates"]["application/json"].replace("$context.requestId", request_id)
    extra = response.get("ResponseParameters", {}).get("Headers", {})
    headers = {name: _value(value, allowed_origins) for name, value in extra.items()}
    headers |= {"Content-Type": "application/json", "x-amzn-RequestId": request_id}
    return int(response.get("StatusCode", status)), headers, body.encode()


def _value(value: Any, allowed_origins: str) -> str:
    """Return a template header's value without quotes, and with its one parameter replaced."""
    text = value["Fn::Sub"].replace("${AllowedOrigins}", allowed_origins) if isinstance(value, dict) else value
    return str(text).strip("'")


class Front:
    """Serve `api_url` on 127.0.0.1:`port` in threads of this process.

    `responses` and `cors` are the template's GatewayResponses and Cors. `allowed_origins` is its parameter: empty
    admits the front's own pages only. The port is bound at once, so that a port in use is noticed before anything else
    starts. Raises OSError.
    """

    def __init__(
        self, port: int, responses: dict[str, Any], cors: dict[str, Any] | None = None, allowed_origins: str = ""
    ) -> None:
        self.pool = urllib3.PoolManager(maxsize=32, retries=False)
        self.api_base = ""
        self.edge: Edge | None = None
        self.figures: GatewayMetrics | None = None
        self.operations: OperationsPage | None = None
        self.responses, self.cors = responses, cors or {}
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.front = self
        self.port = int(self._server.server_address[1])
        self.guard = Guard(self.port, self.port)
        self.url = f"http://127.0.0.1:{self.port}"
        self.allowed_origins = allowed_origins or self.url
        self._thread: threading.Thread | None = None

    def start(
        self,
        api_base: str,
        edge: Edge | None = None,
        figures: GatewayMetrics | None = None,
        operations: OperationsPage | None = None,
    ) -> None:
        """Begin to answer.

        `api_base` is the emulator's address of the deployed stage. `edge` delivers videos, `operations` shows the
        dashboard. `figures` receives the metrics of all other requests, and stops with the front.
        """
        self.api_base, self.edge, self.figures, self.operations = api_base, edge, figures, operations
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._server.shutdown()
        self._server.server_close()
        if self.figures is not None:
            self.figures.stop()
        self.pool.clear()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        began = time.monotonic()
        answered = self._integrated(method, path, headers, body)
        if self.figures is not None:
            self.figures.record(answered[0], (time.monotonic() - began) * 1000)
        return answered

    def _integrated(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if len(body) > MAX_BODY_BYTES:
            return self.gateway_answer("REQUEST_TOO_LARGE", 413)
        sent = {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
        sent["Host"] = headers.get("Host", "127.0.0.1")
        sent.pop("Origin", None)  # the guard has checked it, and the emulator's guard admits this front only
        timeout = urllib3.Timeout(connect=min(5, INTEGRATION_SECONDS), read=INTEGRATION_SECONDS)
        try:
            got = self.pool.request(method, self.api_base + path, body=body, headers=sent, timeout=timeout)
        except urllib3.exceptions.ReadTimeoutError:
            return self.gateway_answer("INTEGRATION_TIMEOUT", 504)
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
            return self.gateway_answer("INTEGRATION_FAILURE", 500)
        except urllib3.exceptions.HTTPError:  # the request was sent and may have taken effect: do not invite a retry
            return self.gateway_answer("DEFAULT_5XX", 500)
        kept = {name: value for name, value in got.headers.items() if name.lower() not in _HOP_BY_HOP}
        if method == "OPTIONS" and got.status == 200:  # the emulator drops the headers of such a mock integration
            kept |= {f"Access-Control-Allow-{_PREFLIGHT[name]}": self._value(name) for name in _PREFLIGHT}
        return got.status, kept, got.data

    def gateway_answer(self, kind: str, status: int) -> Answer:
        return gateway_answer(self.responses, kind, status, self.allowed_origins)

    def _value(self, name: str) -> str:
        return _value(self.cors.get(name, ""), self.allowed_origins)


class _Incomplete(Exception):
    """A message that ends before its announced length."""


def _number(text: str, base: int) -> int:
    """Parse digits only, and few of them, because int() also takes signs and underscores. Raise ValueError."""
    if not re.fullmatch("[0-9a-fA-F]{1,8}" if base == 16 else "[0-9]{1,12}", text):
        raise ValueError
    return int(text, base)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    front: Front

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a disconnected client; print any other error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "kling-relay"
    sys_version = ""
    wbufsize = -1
    timeout = 60
    server: _Server

    def do_GET(self) -> None:
        try:
            body = self._body()
        except _Incomplete:  # the client has disconnected: a partial message is no request
            self.close_connection = True
            return None
        except ValueError:
            self.close_connection = True
            return self._send(*self.server.front.gateway_answer("BAD_REQUEST_BODY", 400))
        front, headers = self.server.front, dict(self.headers.items())
        video = front.edge if self.path.startswith(cloudfront.PREFIX) else None
        operating = front.operations is not None and self.path.startswith(page.PREFIX)
        allowed = "" if operating else front.allowed_origins  # the page needs no key
        refused = front.guard.refusal(self.headers, self.path, signed=video is not None, allowed=allowed)
        if refused is not None:
            return self._send(*refused)
        if video is not None:
            return self._deliver(video.answer(self.command, self.path, headers))
        if front.operations is not None and self.path.startswith(page.PREFIX):
            return self._send(*front.operations.answer(self.command, self.path, headers, body))
        self._send(*front.answer(self.command, self.path, headers, body))

    def handle_expect_100(self) -> bool:
        go_on = super().handle_expect_100()
        self.wfile.flush()  # curl waits a second for it if it sends more than a megabyte
        return go_on

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_GET

    def _body(self) -> bytes:
        """Read the body (RFC 9112 sections 6 and 7.1).

        Raise ValueError if its length is not clear, _Incomplete if it ends before that length.
        """
        length, encoding = self.headers.get("Content-Length"), self.headers.get("Transfer-Encoding")
        if encoding is None:
            return self._read(_number(length or "0", 10))
        if encoding.strip().lower() != "chunked" or length is not None:
            raise ValueError
        body = b""
        while size := _number(self._line().partition(";")[0].strip(), 16):
            body = (body + self._read(size))[: MAX_BODY_BYTES + 1]
            if self._line():
                raise ValueError
        while self._line():
            pass  # a trailer field: dropped
        return body

    def _line(self) -> str:
        line = self.rfile.readline(8192)
        if not line.endswith(b"\n"):
            raise _Incomplete
        return line.decode("latin-1").strip("\r\n")

    def _read(self, length: int) -> bytes:
        """Read `length` bytes and drop those over the limit, so that the client reads the answer."""
        kept = self.rfile.read(min(length, MAX_BODY_BYTES + 1))
        left = min(length, 20 * MAX_BODY_BYTES) - len(kept)
        self.close_connection = self.close_connection or length > 20 * MAX_BODY_BYTES
        while left > 0 and (dropped := self.rfile.read(min(65_536, left))):
            left -= len(dropped)
        if left > 0:
            raise _Incomplete
        return kept

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _deliver(self, answer: cloudfront.Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            for chunk in answer.body:
                self.wfile.write(chunk)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: paths hold callback tokens and signatures."""
