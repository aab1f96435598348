"""Record the answers that a function receives from AWS and the provider, then replay them.

    python -m bench.replay AWS PROVIDER    prints its own address

Requests below /provider go to the PROVIDER, all others to AWS. `POST /_replay/record` starts a recording. `POST
/_replay/play` ends it and returns the recorded requests. From then on the recorded answers are served in their order,
again and again. `GET /_replay/played` returns the number of answers served.
"""

import base64
import http.client
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

PROVIDER = "/provider"
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


class Tape:
    def __init__(self, aws: str, provider: str) -> None:
        self.aws, self.provider = aws, provider
        self.exchanges: list[dict[str, Any]] = []
        self.playing, self.played = False, 0


class Handler(BaseHTTPRequestHandler):
    tape: Tape
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/_replay/"):
            self._answer(200, {}, json.dumps(self._control()).encode())
        elif self.tape.playing:
            exchange = self.tape.exchanges[self.tape.played % len(self.tape.exchanges)]
            self.tape.played += 1
            self._answer(*exchange["answer"])
        else:
            answer = self._forwarded(body)
            asked = {"method": self.command, "path": self.path, "headers": dict(self.headers)}
            self.tape.exchanges.append(asked | {"body": base64.b64encode(body).decode(), "answer": answer})
            self._answer(*answer)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _any

    def _control(self) -> Any:
        if self.path == "/_replay/record":
            self.tape.exchanges, self.tape.playing = [], False
        elif self.path == "/_replay/play":
            self.tape.playing, self.tape.played = True, 0
            return [{name: one[name] for name in one if name != "answer"} for one in self.tape.exchanges]
        return self.tape.played

    def _forwarded(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        to_provider = self.path.startswith(PROVIDER)
        place = urlsplit(self.tape.provider if to_provider else self.tape.aws)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        headers = {**self.headers, "Connection": "close", "Host": place.netloc}
        connection.request(self.command, self.path.removeprefix(PROVIDER), body, headers)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        kept = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP}
        return response.status, kept, data

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def log_message(self, *_: Any) -> None: ...


def main() -> None:
    Handler.tape = Tape(*sys.argv[1:])
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
