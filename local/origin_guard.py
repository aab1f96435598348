"""Decide which requests a server on this machine accepts: those of local programs and of the front's own pages.

A browser lets every web page send requests to 127.0.0.1. It names the page in Origin: on CORS requests and on every
method but GET and HEAD (Fetch standard, "Origin header"). A GET without Origin carries Sec-Fetch-Site (Fetch Metadata).
A name that an attacker resolves to 127.0.0.1 (DNS rebinding) stays in Host.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import parse_qs

NAMES = ("127.0.0.1", "localhost", "[::1]")
"""The names of this machine in a Host header and in an origin."""

Answer = tuple[int, dict[str, str], bytes]
AsgiApp = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


class Headers(Protocol):
    """Headers, read by their lower-case names."""

    def get(self, name: str, /) -> str | None: ...


class Guard:
    """Hold the rule of the server on `port`. `front_port`: the front's, whose pages may call it; None admits no page.

    Host is one of NAMES, with one of the two ports or without: the front passes its own Host on to the emulator.
    `subdomains` also admits names below localhost, because SDKs put a bucket's name there. Resolvers keep them on this
    machine (RFC 6761), so they cannot be rebound.
    """

    def __init__(self, port: int, front_port: int | None = None, *, subdomains: bool = False) -> None:
        ports = [port] if front_port is None else [port, front_port]
        self._port = port
        self._hosts = {*NAMES, *(f"{name}:{one}" for name in NAMES for one in ports)}
        self._below = tuple(f".{host}" for host in self._hosts if subdomains and host.startswith("localhost"))
        self._origins = [f"http://{name}:{front_port}".removesuffix(":80") for name in NAMES if front_port is not None]

    def refusal(self, headers: Headers, target: str, *, signed: bool = False, allowed: str = "") -> Answer | None:
        """Return the answer to a refused request: 403 and a text that names the expected value.

        `target`: path and query. `signed`: a signature in the address decides, so any page may send it. `allowed`: one
        more origin, or "*" for all, if a key in a header decides.
        """
        host, origin = (headers.get("host") or "").lower(), headers.get("origin")
        if host not in self._hosts and not host.endswith(self._below):
            return _forbidden(f"Host: one of {', '.join(NAMES)}, with port {self._port} or without (got {host!r})")
        if signed or allowed == "*" or (allowed and origin == allowed):
            return None
        if origin is not None and origin not in self._origins:
            return _forbidden(
                f"Origin: {' or '.join(self._origins) or 'none, this server has no pages'} (got {origin!r})"
            )
        # AWS's query protocol also acts on GET, which a page can send as the address of a picture.
        foreign = origin is None and headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if foreign and "Action" in parse_qs(target.partition("?")[2], keep_blank_values=True):
            return _forbidden("Sec-Fetch-Site: same-origin or none for a request with an Action")
        return None


def guarded(app: AsgiApp, guard: Guard) -> AsgiApp:
    """Return an ASGI application that passes the requests accepted by `guard` on to `app`."""

    async def checked(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await app(scope, receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = guard.refusal(headers, f"?{scope['query_string'].decode('latin-1')}")
        if refused is None:
            return await app(scope, receive, send)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: HTTP 403
            return
        status, fields, body = refused
        fields = {**fields, "Content-Length": str(len(body))}
        encoded = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    return checked


def _forbidden(reason: str) -> Answer:
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return 403, headers, f"{reason}\n".encode()
