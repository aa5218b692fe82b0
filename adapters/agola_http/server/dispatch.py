"""The ASGI application made of a route table: finds the endpoint, admits the caller, reads, calls, answers."""

from __future__ import annotations

import asyncio
import logging
import posixpath
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import anyio
import anyio.to_thread
from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Message, Receive, Scope, Send

from agola_core.errors import MaintenanceError, UnauthorizedError
from agola_core.maintenance import Gate
from agola_core.runtime.context import Context
from agola_http.access.control import Access, is_loopback
from agola_http.access.principals import Caller, Principal
from agola_http.protocol.errors import ErrorDocument, MethodError, RefusedError, describe
from agola_http.protocol.names import FORM, JSON, PREFIX
from agola_http.server.bodies import read_body, upload_pieces
from agola_http.server.endpoints import Answer, Call, Endpoint
from agola_http.server.limits import Limits
from agola_http.server.request_json import decode, encode
from agola_http.server.streams import Streams, break_connection

access_log = logging.getLogger("agola_http.access")

_RETRY_SECONDS = 5
_LINGER_SECONDS = 10.0
Observe = Callable[[str, str, int, float], None]


@dataclass
class Exchange:
    """What the access log and the metrics tell of one request."""

    method: str
    path: str
    route: str = "none"
    status: int = 0
    sent: int = 0
    caller: str = "-"
    body_left: bool = False


class Dispatcher:
    """Serves a route table.

    Args:
        endpoints: The table; the first row that matches wins.
        access: Decides who may call.
        limits: What one client may take.
        gate: What endpoints that are not served in maintenance mode must be inside of; None when all are served.
        observe: Told the method, route, status and seconds of every request.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        access: Access,
        limits: Limits,
        *,
        gate: Gate[Any] | None = None,
        observe: Observe = lambda *_: None,
    ) -> None:
        self.endpoints = tuple(endpoints)
        self._routes = [(compile_path(endpoint.path)[0], endpoint) for endpoint in endpoints]
        self._access = access
        self._limits = limits
        self._gate = gate
        self._observe = observe
        self._streams = Streams(limits)
        self._workers: anyio.CapacityLimiter | None = None

    def end_uploads(self) -> None:
        """Give up what uploads are at work on, as far as it can be given up; from any thread."""
        self._streams.end_uploads()

    @property
    def open_streams(self) -> int:
        """How many streams and uploads there are now."""
        return self._streams.open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        exchange = Exchange(scope["method"], scope["path"], body_left=_has_body(Headers(scope=scope)))

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            else:
                exchange.sent += len(message.get("body", b""))
            await send(message)

        async def taken() -> Message:
            message = await receive()
            exchange.body_left = exchange.body_left and message.get("more_body", False)
            return message

        try:
            await self._serve(scope, taken, counted, exchange)
        finally:
            seconds = time.perf_counter() - started
            self._observe(exchange.method, exchange.route, exchange.status, seconds)
            client = scope.get("client") or ("-", 0)
            access_log.info(
                "%s %s %r %d %d %.1fms %s",
                client[0],
                exchange.method,
                exchange.path[:500],
                exchange.status,
                exchange.sent,
                seconds * 1000,
                exchange.caller,
            )

    async def _serve(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        answer = Answer()
        try:
            _check_head(scope, self._limits.header_bytes)
            location = _cleaned(scope)
            if location is not None:
                answer = Answer(status=301, headers={"Location": location})
            else:
                endpoint, path = self._find(scope["method"], scope["path"])
                exchange.route = endpoint.path
                caller = self._access.admit(endpoint.principal, Headers(scope=scope))
                exchange.caller = _shown(caller)
                async with self._inside(endpoint, scope):
                    answer = await self._call(endpoint, path, caller, scope, receive)
                    if not isinstance(answer.body, bytes):
                        await self._streams.send(answer, _kind(caller, endpoint), scope, receive, send)
                        return
        except Exception as error:  # noqa: BLE001 - every error becomes an answer
            if exchange.status:  # begun already: the connection was broken
                return
            answer = _error_answer(error, f"{exchange.method} {exchange.path[:500]!r}")
        await _send(answer, scope, receive, send, exchange)

    @asynccontextmanager
    async def _inside(self, endpoint: Endpoint, scope: Scope) -> AsyncIterator[None]:
        """Be inside the gate, or answer 503; a call that maintenance mode does not wait for is cut off."""
        if self._gate is None or endpoint.in_maintenance:
            yield
            return
        loop = asyncio.get_running_loop()
        cut = anyio.CancelScope()
        with self._gate.enter(lambda: loop.call_soon_threadsafe(cut.cancel)), cut:
            yield
        if cut.cancelled_caught:
            await break_connection(scope)
            raise MaintenanceError("the service went into maintenance mode: try again later")

    def _find(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]]:
        known: list[str] = []
        for pattern, endpoint in self._routes:
            match = pattern.fullmatch(path)
            if match is not None:
                if endpoint.method == method:
                    return endpoint, match.groupdict()
                known.append(endpoint.method)
        if path.startswith(PREFIX) and self._gate is not None:
            with self._gate.enter():  # in maintenance mode 503 goes before everything else
                pass
        if known:
            raise MethodError(known)
        if path.startswith(PREFIX):
            raise RefusedError(400, "unknown path")
        raise RefusedError(404, "404 page not found")

    async def _call(
        self, endpoint: Endpoint, path: dict[str, str], caller: Caller, scope: Scope, receive: Receive
    ) -> Answer:
        headers = Headers(scope=scope)
        query = QueryParams(scope["query_string"])
        limits, kind, in_place = self._limits, endpoint.body, endpoint.waits
        upload: Iterator[bytes] = iter(())
        context = Context()
        if endpoint.upload == FORM:
            upload = iter([await read_body(headers, receive, limits.form_bytes, limits.body_seconds)])
        elif endpoint.upload is not None:
            most = None if endpoint.principal is Principal.ADMIN else limits.upload_bytes
            upload, in_place = upload_pieces(headers, receive, most, limits), True
        data = b"" if kind is None else await read_body(headers, receive, limits.body_bytes, limits.body_seconds)

        def work() -> Answer:
            body = None if kind is None else decode(data, kind)
            here, secure = _same_machine(scope), scope.get("scheme") == "https"
            call = Call(path, query, headers, caller, body, upload, context, same_machine=here, secure=secure)
            return endpoint.handler(call)

        if in_place:
            with self._streams.place(_kind(caller, endpoint)):
                return await self._streams.take(work, context, scope)

        if self._workers is None:  # a limiter belongs to an event loop
            self._workers = anyio.CapacityLimiter(self._limits.workers)
        return await anyio.to_thread.run_sync(work, limiter=self._workers)


async def _send(answer: Answer, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
    """Send an answer of bytes, and read what is left of the request's body; one without an end breaks the connection.

    A connection that is closed while bytes of its client are unread is reset, and the answer is lost with it.
    """
    assert isinstance(answer.body, bytes)
    response = Response(answer.body, answer.status, dict(answer.headers))
    await send({"type": "http.response.start", "status": answer.status, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": exchange.body_left})
    if exchange.body_left:
        with anyio.move_on_after(_LINGER_SECONDS):
            while (await receive()).get("more_body", False):
                pass
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        await break_connection(scope)


def _same_machine(scope: Scope) -> bool:
    """Return whether a connection comes from this machine: from loopback, or from the address that it came to."""
    client, server = scope.get("client") or ("",), scope.get("server") or ("",)
    return is_loopback(client[0]) or (bool(client[0]) and client[0] == server[0])


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _check_head(scope: Scope, limit: int) -> None:
    """Refuse a head that is too large; one that came in pieces was refused by the connection."""
    size = len(scope["raw_path"]) + len(scope["query_string"])
    if size + sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > limit:
        raise RefusedError(431, f"the request's head is larger than {limit} bytes")
    try:
        unquote_to_bytes(scope["raw_path"]).decode()
    except UnicodeDecodeError as error:  # the server has put one character in the place of each wrong byte
        raise RefusedError(400, "the path is not valid UTF-8") from error


def _cleaned(scope: Scope) -> str | None:
    """Return where a path with `//`, `.` or `..` is redirected to, as Go's router does; None for a clean one."""
    path: str = scope["path"]
    clean = "/" + posixpath.normpath("/" + path).lstrip("/")
    if path.endswith("/") and clean != "/":
        clean += "/"
    if clean == path:
        return None
    query: bytes = scope["query_string"]
    return quote(clean) + (f"?{query.decode('latin-1')}" if query else "")


def _kind(caller: Caller, endpoint: Endpoint) -> Principal:
    """Return whose place among the streams a caller takes."""
    if caller.is_known:
        return caller.principal
    return Principal.CLIENT if endpoint.principal is Principal.PUBLIC else endpoint.principal


def _shown(caller: Caller) -> str:
    return f"{caller.principal.value}:{caller.executor_id}" if caller.executor_id else caller.principal.value


def _error_answer(error: Exception, request: str) -> Answer:
    told = describe(error, request)
    headers = {"Content-Type": JSON, **told.headers()}
    if isinstance(error, MethodError):
        headers["Allow"] = error.allowed
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    if told.status == 503:
        headers["Retry-After"] = str(_RETRY_SECONDS)
    return Answer(encode(ErrorDocument(told.message)), told.status, headers)
