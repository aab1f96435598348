"""Serve the simulator over HTTP: requests to the provider's API, to result URLs and to the control API."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from local.origin_guard import Guard
from local.simulator.account import Account
from local.simulator.delivery import ROOT, Delivery
from local.simulator.dialects import Answer, Ids, Refusal, as_json, refuse
from local.simulator.faults import Faults
from local.simulator.ledger import Ledger
from local.simulator.provider_api import DROPPED, ProviderApi
from local.simulator.task_life import TaskLife

MAX_BODY = 64 * 1024 * 1024  # bytes


class Simulator:
    """Run the whole provider. ``settings`` are those of ``Account``: key, slots, render_seconds, render_size, ...

    The pages of the front on ``front_port`` may call it; no other page may.
    """

    def __init__(self, port: int = 0, *, front_port: int | None = None, **settings: Any) -> None:
        self.account, self.faults, self.ledger = Account(), Faults(), Ledger()
        self.account.set(**settings)
        self._settings = settings
        self._server = Server(("127.0.0.1", port), Handler)
        self._server.simulator = self
        port = int(self._server.server_address[1])
        self.guard = Guard(port, front_port)
        self.url = f"http://127.0.0.1:{port}"
        self.comet_url = f"{self.url}/kling"
        ids = Ids()
        self.delivery = Delivery(self.ledger, self.faults, self.account, self.url)
        self.life = TaskLife(self.ledger, self.faults, self.account, ids, self.delivery.videos_of)
        self.delivery.studio = self.life.studio
        self.api = ProviderApi(self.account, self.faults, self.ledger, self.life, self.delivery, ids)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="simulator", daemon=True)

    def start(self) -> Simulator:
        self._thread.start()
        return self

    def stop(self) -> None:
        self.api.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self.life.close()

    def __enter__(self) -> Simulator:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def reset(self) -> None:
        """Restore the state of the start: no tasks, no switches, the initial settings. Rendered videos stay cached."""
        self.life.agenda.clear()
        self.faults.clear()
        self.delivery.clear()
        self.ledger.clear()
        self.account.set(**{**Account().shown(), **self._settings})

    def control(self, method: str, path: str, body: bytes) -> Answer:
        """Answer the control API, which needs no key: the guard admits only local programs and the front's pages."""
        name, _, reference = path.removeprefix("/_sim/").partition("/")
        if method == "GET" and name == "tasks" and reference:
            entry = self.ledger.anywhere(unquote(reference))
            if entry is None:
                return as_json({"error": "no such task"}, 404)
            with self.ledger.lock:
                return as_json(entry.shown())
        shown = {"ledger": self.ledger.shown, "faults": self.faults.shown, "account": self.account.shown}
        if method == "POST" and name in ("faults", "account", "reset"):
            try:
                given = json.loads(body or b"{}")
                if name == "reset":
                    self.reset()
                else:
                    (self.faults if name == "faults" else self.account).set(**given)
            except (ValueError, TypeError) as problem:
                return as_json({"error": str(problem)}, 400)
            return as_json({"reset": True} if name == "reset" else shown[name]())
        if method == "GET" and name in shown and not reference:
            return as_json(shown[name]())
        return as_json({"error": "GET ledger, tasks/{id}, faults, account; POST faults, account, reset"}, 404)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    simulator: Simulator

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a disconnected client; print any other error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Serve one connection (kept alive): read the whole request, find its answer, write it or break off."""

    protocol_version = "HTTP/1.1"
    server_version = "kling-simulator"
    sys_version = ""
    timeout = 60
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_DELETE = do_PUT = do_OPTIONS = do_GET

    def handle_expect_100(self) -> bool:
        go_on = super().handle_expect_100()
        self.wfile.flush()
        return go_on

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the ledger is the log."""

    def _serve(self) -> None:
        simulator, asked = self.server.simulator, urlsplit(self.path)
        length = self.headers.get("Content-Length") or "0"
        if not length.isdecimal() or int(length) > MAX_BODY or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            return self._send(refuse(Refusal(413, 1201, "request body too large, or of unknown length")))
        body = self.rfile.read(int(length))
        if refused := simulator.guard.refusal(self.headers, self.path):
            status, headers, text = refused
            return self._send(Answer(status, text, headers))
        if asked.path.startswith("/_sim/"):
            return self._send(simulator.control(self.command, asked.path, body))
        if asked.path.startswith(ROOT) and self.command in ("GET", "HEAD"):
            headers = {name.lower(): value for name, value in self.headers.items()}
            return self._send(simulator.delivery.download(asked, headers, count=self.command == "GET"))
        self._send(simulator.api.answer(self.command, asked, self.headers.get("Authorization"), body))

    def _send(self, answer: Answer) -> None:
        if answer is DROPPED or answer.dropped:
            return self._break_off()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: answer.cut])
        if answer.cut is not None:
            self.wfile.flush()
            self._break_off()

    def _break_off(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
