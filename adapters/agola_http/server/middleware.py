"""ASGI middleware: the access log with request metrics, and the check of request heads."""

from __future__ import annotations

import logging
import posixpath
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

import anyio
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agola_http.protocol.errors import RefusedError
from agola_http.server.connections.streams import break_connection

access_log = logging.getLogger("agola_http.access")

_LINGER_SECONDS = 10.0
_EXCHANGE = "agola_http.exchange"
Observe = Callable[[str, str, int, float], None]


@dataclass
class Exchange:
    """The record of one request for the access log and the metrics."""

    route: str = "none"
    status: int = 0
    sent: int = 0
    caller: str = "-"
    body_left: bool = False


def exchange_of(scope: Scope) -> Exchange:
    """Return the record of a request, for the application to complete."""
    exchange: Exchange = scope[_EXCHANGE]
    return exchange


class RequestLog:
    """Logs and observes every request, and reads the rest of its body before the answer ends.

    A connection that is closed while bytes of its client are unread is reset, and the answer is lost with it; a body
    without an end breaks the connection.

    Args:
        app: The wrapped application.
        observe: Called with the method, route, status and seconds of every request.
    """

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = time.perf_counter()
        headers = Headers(scope=scope)
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        exchange = scope[_EXCHANGE] = Exchange(body_left=has_body)

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            else:
                exchange.sent += len(message.get("body", b""))
            if exchange.body_left and message["type"] == "http.response.body" and not message.get("more_body", False):
                await send({**message, "more_body": True})
                with anyio.move_on_after(_LINGER_SECONDS):
                    while (await receive()).get("more_body", False):
                        pass
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    return
                await break_connection(scope)
                return
            await send(message)

        async def counted_receive() -> Message:
            message = await receive()
            exchange.body_left = exchange.body_left and message.get("more_body", False)
            return message

        try:
            await self._app(scope, counted_receive, counted_send)
        except Exception:
            if not exchange.status:
                raise  # otherwise the connection was broken in the middle of the answer
        finally:
            seconds = time.perf_counter() - started
            method, path = scope["method"], scope["path"][:500]
            self._observe(method, exchange.route, exchange.status, seconds)
            access_log.info(
                "%s %s %r %d %d %.1fms %s",
                (scope.get("client") or ("-", 0))[0],
                method,
                path,
                exchange.status,
                exchange.sent,
                seconds * 1000,
                exchange.caller,
            )


class HeadCheck:
    """Refuses heads that are too large and paths that are not UTF-8, and redirects to clean paths as Go's router does.

    Args:
        app: The wrapped application.
        limit: The largest head, in bytes; the connection has already refused one that came in pieces.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            RefusedError: The head is too large, or the path is not UTF-8.
        """
        size = len(scope["raw_path"]) + len(scope["query_string"])
        if size + sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > self._limit:
            raise RefusedError(431, f"the request's head is larger than {self._limit} bytes")
        try:
            unquote_to_bytes(scope["raw_path"]).decode()
        except UnicodeDecodeError as error:  # the server has put one character in the place of each wrong byte
            raise RefusedError(400, "the path is not valid UTF-8") from error
        location = _clean_location(scope["path"], scope["query_string"])
        app = self._app if location is None else Response(b"", 301, {"Location": location})
        await app(scope, receive, send)


def _clean_location(path: str, query: bytes) -> str | None:
    """Return the redirect target of a path with `//`, `.` or `..`; None for a clean path."""
    clean = "/" + posixpath.normpath("/" + path).lstrip("/")
    if path.endswith("/") and clean != "/":
        clean += "/"
    if clean == path:
        return None
    return quote(clean) + (f"?{query.decode('latin-1')}" if query else "")
