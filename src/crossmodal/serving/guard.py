"""The outermost layer of the server: host names, HEAD, headers of every answer, counts, and errors of the server."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crossmodal.serving.counters import Counters

LOG = logging.getLogger("crossmodal.serve")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOCAL = ("localhost", "127.0.0.1", "::1")


class Guard:
    """ASGI middleware. A HEAD request is answered as GET, without the body.

    Args:
        hosts: names by which the server may be asked, so that a page of another site cannot reach it by a name that
            points to this machine (DNS rebinding); None: any.
    """

    def __init__(self, app: ASGIApp, counters: Counters, hosts: Collection[str] | None) -> None:
        self.app, self.counters, self.hosts = app, counters, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, head = time.perf_counter(), 0, scope["method"] == "HEAD"
        if head:
            scope = {**scope, "method": "GET"}  # uvicorn keeps its own: it expects no body then

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            elif head:
                message = {**message, "body": b""}
            await send(message)

        try:
            if self.hosts is not None and _host(scope) not in self.hosts:
                refused = error_response(400, "host: the server answers to " + ", ".join(sorted(self.hosts)))
                await refused(scope, receive, send_with_headers)
            else:
                await self.app(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # the server ends and waits no longer
            if status:
                raise
            await error_response(503, "the server is ending")(scope, receive, send_with_headers)
        except ClientDisconnect:  # there is no one left to answer
            status = 499
        except Exception:
            LOG.exception("%s %s failed", scope["method"], scope["path"])
            if status:  # the answer has begun: what is left is to break it off
                raise
            failed = error_response(500, "the server failed at this request; its log says why")
            await failed(scope, receive, send_with_headers)
        finally:
            self.counters.add(_route(scope), status, time.perf_counter() - started)


def error_response(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as every route gives it: {"error": one line}."""
    if status in (429, 503):
        headers = {"Retry-After": "1", **(headers or {})}
    return JSONResponse({"error": " ".join(text.split())}, status, headers)


def _host(scope: Scope) -> str:
    """The name in the Host header, without port and brackets."""
    host = Headers(scope=scope).get("host", "").lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _route(scope: dict[str, Any]) -> str:
    """The path of the route that answered, such as /images/{item}; "none" where none did."""
    return getattr(scope.get("route"), "path", "none")
